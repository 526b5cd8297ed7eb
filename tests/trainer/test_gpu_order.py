"""Who holds the GPU in every path of the trainer: order of calls, by an engine and a policy that record."""

from types import SimpleNamespace

import pytest

from igrpo_mcore import device_memory, gate
from igrpo_mcore import trainer as trainer_module
from igrpo_mcore.config.schema import Config, DataConfig, DType, ModelConfig
from igrpo_mcore.device_memory import DeviceMemory
from igrpo_mcore.errors import UserError
from igrpo_mcore.policy import learner
from igrpo_mcore.rollout.sampler import StepSamples
from igrpo_mcore.run.checkpoint_folder import Position
from igrpo_mcore.run.journal import NoJournal
from igrpo_mcore.run.phases import Phases
from igrpo_mcore.trainer import Trainer
from igrpo_mcore.types import TrainingSequence
from tests.trainer.recording import LOGPROBS, NEVER_EVALUATED, RecordingEngine, RecordingPolicy

PUSH = ["offload", "wake weights", "push", "wake kv_cache"]


class Run:
    """A trainer whose sampler, policy, engine and push write to ``events``."""

    def __init__(self, monkeypatch, off_by: float = 0.0, offloads: bool = True, **options: object) -> None:
        config = Config(model=ModelConfig(path="m", dtype=DType.float32), data=DataConfig(path="d"))
        config.parity.every = 5
        for name, value in options.items():
            section, option = name.split("__")
            setattr(getattr(config, section), option, value)
        self.events: list[str] = []
        policy = RecordingPolicy(self.events, off_by, offloads)
        self.trainer = trainer = Trainer.__new__(Trainer)
        trainer.config, trainer.phases, trainer.report = config, Phases(), None
        trainer.checkpoints = SimpleNamespace(oldest_step=lambda: 0)
        trainer.position = Position(0, 0, 0)
        trainer.learner = learner.Learner(config, policy, trainer.phases)

        def start_engine() -> RecordingEngine:
            self.events.append("engine starts")
            return RecordingEngine(self.events)

        trainer.gpu = DeviceMemory(policy, start_engine, trainer.phases)
        trainer.sampler = SimpleNamespace(sample=self.sample, journal=NoJournal())
        trainer.held_out = NEVER_EVALUATED
        trainer.pusher = SimpleNamespace(push=self.pushed)
        monkeypatch.setattr(
            trainer_module, "mini_batches", lambda *_: [[TrainingSequence((1,), (2, 3, 4), LOGPROBS)]]
        )
        monkeypatch.setattr(trainer_module, "rank_spread", lambda phases: {})
        monkeypatch.setattr(gate, "verify_weights", self.verify)
        trainer.gate = gate.Gate(config, trainer.learner, trainer.gpu, trainer.pusher)
        trainer.writer = SimpleNamespace(begin=self.save)

    @property
    def engine(self) -> RecordingEngine:
        return self.trainer.gpu.engine

    def sample(self, step: int, drawn: int):
        assert self.engine.weights == "on the GPU"
        assert self.engine.kv_cache
        self.events.append("sample")
        nothing: list = []
        return StepSamples(nothing, nothing, {}, 4)

    def pushed(self, engine: RecordingEngine) -> None:
        assert engine.weights != "discarded"
        self.events.append("push")
        engine.weights = "on the GPU"

    def verify(self, *_: object, **__: object):
        self.events.append(f"verify weights {self.engine.weights}")
        return SimpleNamespace(mismatches=(SimpleNamespace(tensor="model.norm.weight"),))

    def save(self, *_: object, **__: object) -> None:
        assert not self.trainer.learner.policy.offloaded
        self.events.append("save")

    def taken(self) -> list[str]:
        """Events since the last look."""
        found = self.events[:]
        self.events.clear()
        return found


def test_the_engine_starts_without_the_optimizer_and_is_not_woken_before_it_slept(monkeypatch):
    run = Run(monkeypatch)
    assert run.taken() == ["offload", "engine starts"]
    run.trainer.push()
    assert run.taken() == ["push"]


@pytest.mark.parametrize(
    ("step", "due"), [(1, True), (2, False), (5, True)], ids=["first step", "not due", "due again"]
)
def test_a_step(monkeypatch, step: int, due: bool):
    run = Run(monkeypatch)
    run.trainer.push()
    run.taken()
    run.trainer.step(step)
    kept = [f"sleep, weights {'kept' if due else 'discarded'}", *(["logprobs"] if due else [])]
    assert run.taken() == ["sample", *kept, "restore", "update", *PUSH]


def test_a_step_of_several_updates_restores_once(monkeypatch):
    run = Run(monkeypatch, train__passes=3)
    run.taken()
    run.trainer.step(2)
    expected = ["sample", "sleep, weights discarded", "logprobs", "restore", *["update"] * 3, *PUSH]
    assert run.taken() == expected


@pytest.mark.parametrize("correction", ["token", "sequence"])
def test_samples_are_corrected_without_a_pass_of_their_own(monkeypatch, correction: str):
    """One update has log π_old in its own forward pass; several updates ask for it before the first."""
    run = Run(monkeypatch, objective__correction=correction)
    run.taken()
    run.trainer.step(2)
    assert "logprobs" not in run.taken()
    several = Run(monkeypatch, objective__correction=correction, train__passes=2)
    several.taken()
    several.trainer.step(2)
    assert several.taken().count("logprobs") == 1


@pytest.mark.parametrize(("passes", "compared"), [(1, 4), (2, 9)])
def test_the_gate_takes_a_sample_where_no_update_wants_all(monkeypatch, passes: int, compared: int):
    run = Run(monkeypatch, train__passes=passes, parity__sequences=4)
    batch = [TrainingSequence((i,), (2, 3, 4), LOGPROBS) for i in range(9)]
    monkeypatch.setattr(trainer_module, "mini_batches", lambda *_: [batch])
    sizes = []
    run.trainer.learner.policy.logprobs = lambda some: sizes.append(len(some)) or {}
    run.trainer.step(5)
    assert sizes == [compared]


def test_a_reference_is_asked_before_the_optimizer_comes_back(monkeypatch):
    class Reference:
        def __init__(self, chunks: object) -> None: ...

        def active(self):
            return Phases()("inside")

    monkeypatch.setattr(learner, "ReferenceWeights", Reference)
    run = Run(monkeypatch, objective__kl_coef=0.1)
    run.taken()
    run.trainer.step(2)
    assert run.taken() == ["sample", "sleep, weights discarded", "logprobs", "restore", "update", *PUSH]


@pytest.mark.parametrize("step", [1, 5])
def test_a_refusal_looks_at_the_weights_that_sampled(monkeypatch, step: int):
    run = Run(monkeypatch, off_by=1.0)
    run.trainer.push()
    run.taken()
    with pytest.raises(UserError, match=r"these weights differ .*: model.norm.weight"):
        run.trainer.step(step)
    expected = ["sample", "sleep, weights kept", "logprobs", "wake weights", "verify weights on the GPU"]
    assert run.taken()[:5] == expected


def test_a_step_that_is_not_due_asks_nothing_of_the_sampler(monkeypatch):
    run = Run(monkeypatch, off_by=1.0)
    run.trainer.step(2)
    assert "logprobs" not in run.taken()


def test_a_checkpoint_takes_the_engines_memory_on_a_gpu_or_where_the_optimizer_was_away(monkeypatch):
    run = Run(monkeypatch)
    run.trainer.step(2)
    run.taken()
    run.trainer.save()
    assert run.taken() == ["sleep, weights discarded", "restore", "save", *PUSH]

    stays = Run(monkeypatch, offloads=False)
    stays.trainer.step(2)
    stays.taken()
    stays.trainer.save()
    assert stays.taken() == ["save"]

    monkeypatch.setattr(device_memory, "device", SimpleNamespace(has_cuda=lambda: True))
    stays.trainer.save()
    assert stays.taken() == ["sleep, weights discarded", "save", "wake weights", "push", "wake kv_cache"]


def test_sampling_from_an_engine_that_sleeps_is_an_error(monkeypatch):
    run = Run(monkeypatch)
    with run.trainer.gpu.training():
        pass
    with pytest.raises(RuntimeError, match="push the weights"), run.trainer.gpu.sampling():
        pass
