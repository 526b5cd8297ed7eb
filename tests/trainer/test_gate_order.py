"""Where the engine's weights are while the gate works: out of the log-prob pass's way, back for a refusal."""

from types import SimpleNamespace

import pytest
import torch

from igrpo_mcore import trainer as trainer_module
from igrpo_mcore.config.schema import Config, DataConfig, DType, ModelConfig
from igrpo_mcore.errors import UserError
from igrpo_mcore.phases import Phases
from igrpo_mcore.rollout.engine import EngineMemory
from igrpo_mcore.trainer import Trainer
from igrpo_mcore.types import TrainingSequence

SAMPLED = (-1.0, -2.0, -0.5)


class UpdateReachedError(Exception):
    """The step came as far as its update."""


class GPUEngine:
    """Remembers where a GPU engine's weights are."""

    model = None

    def __init__(self) -> None:
        self.weights = "on the GPU"

    def sleep(self, *, keep_weights: bool = False) -> None:
        self.weights = "on the host" if keep_weights else "discarded"

    def wake(self, what: EngineMemory) -> None:
        assert what == EngineMemory.weights
        self.weights = "on the GPU" if self.weights == "on the host" else "undefined"


def play(monkeypatch, off_by: float, step: int) -> tuple[list[tuple[str, str]], str]:
    """A step whose trainer is ``off_by`` nats from the sampler: who saw the weights where, what was said."""
    config = Config(model=ModelConfig(path="m", dtype=DType.float32), data=DataConfig(path="d"))
    config.parity.every, config.train.passes = 5, 2
    trainer = Trainer.__new__(Trainer)
    trainer.config, trainer.phases, trainer.reference, trainer.pusher = config, Phases(), None, None
    trainer.objective, trainer.engine = None, GPUEngine()
    seen: list[tuple[str, str]] = []

    def logprobs(batch):
        seen.append(("logprobs", trainer.engine.weights))
        return {0: torch.tensor(SAMPLED) + off_by}

    def update(*_):
        raise UpdateReachedError

    def verify(*_, **__):
        seen.append(("verify", trainer.engine.weights))
        return SimpleNamespace(mismatches=(SimpleNamespace(tensor="model.norm.weight"),))

    trainer.policy = SimpleNamespace(logprobs=logprobs, update=update, offload_optimizer=lambda: None)
    trainer.rollout = lambda step: ([], None)
    monkeypatch.setattr(
        trainer_module, "mini_batches", lambda *_: [[TrainingSequence((1,), (2, 3, 4), SAMPLED)]]
    )
    monkeypatch.setattr(trainer_module, "verify_weights", verify)
    with pytest.raises((UserError, UpdateReachedError)) as caught:
        trainer.step(step)
    return seen, str(caught.value)


@pytest.mark.parametrize("step", [1, 5])
def test_a_refusal_looks_at_the_weights_that_sampled(monkeypatch, step):
    seen, said = play(monkeypatch, 1.0, step)
    assert seen == [("logprobs", "on the host"), ("verify", "on the GPU")]
    assert "these weights differ between trainer and sampler: model.norm.weight" in said


@pytest.mark.parametrize(
    ("off_by", "step", "where"), [(0.0, 1, "on the host"), (0.0, 2, "discarded"), (1.0, 2, "discarded")]
)
def test_a_healthy_step_and_one_that_is_not_due_go_on(monkeypatch, off_by, step, where):
    seen, said = play(monkeypatch, off_by, step)
    assert seen == [("logprobs", where)]
    assert said == ""
