"""An engine and a policy that compute nothing: they write down who is given the GPU, and in which order."""

from types import SimpleNamespace

import torch

from igrpo_mcore.rollout.engine import EngineMemory

LOGPROBS = (-1.0, -2.0, -0.5)
NEVER_EVALUATED = SimpleNamespace(evaluate=lambda step: {}, improved=False)
"""In the place of ``HeldOut`` where ``eval.every`` is 0."""


class RecordingEngine:
    """Follows where a GPU engine's weights are, and refuses what vLLM cannot do."""

    model = None

    def __init__(self, events: list[str]) -> None:
        self.events, self.weights, self.kv_cache = events, "on the GPU", True

    def sleep(self, *, keep_weights: bool = False) -> None:
        assert self.weights == "on the GPU", "put to sleep twice"
        self.events.append(f"sleep, weights {'kept' if keep_weights else 'discarded'}")
        self.weights, self.kv_cache = "on the host" if keep_weights else "discarded", False

    def wake(self, what: EngineMemory) -> None:
        self.events.append(f"wake {what}")
        if what == EngineMemory.kv_cache:
            assert not self.kv_cache, "woken twice"
            self.kv_cache = True
        else:
            assert self.weights != "on the GPU", "woken twice"
            self.weights = "on the GPU" if self.weights == "on the host" else "undefined"


class RecordingPolicy:
    """``off_by`` nats from the sampler; with ``offloads_optimizer`` its state comes and goes."""

    updates = 0
    chunks = ()

    def __init__(self, events: list[str], off_by: float = 0.0, offloads_optimizer: bool = True) -> None:
        self.events, self.off_by, self.offloads_optimizer = events, off_by, offloads_optimizer
        self.offloaded = False

    def offload_optimizer(self) -> None:
        if self.offloads_optimizer and not self.offloaded:
            self.events.append("offload")
            self.offloaded = True

    def restore_optimizer(self) -> None:
        if self.offloaded:
            self.events.append("restore")
            self.offloaded = False

    def logprobs(self, batch: object) -> dict[int, torch.Tensor]:
        self.events.append("logprobs")
        return {0: torch.tensor(LOGPROBS) + self.off_by}

    def update(self, *_: object) -> None:
        assert not self.offloaded
        self.events.append("update")
