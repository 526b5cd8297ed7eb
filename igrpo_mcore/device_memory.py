"""Who holds the GPU's memory: the engine while it samples, the policy while it trains, both during a push.

The one place that puts the engine to sleep and wakes it, and that offloads and restores the optimizer. On a
machine without a GPU the calls are the same and do next to nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from igrpo_mcore import device
from igrpo_mcore.rollout.engine import EngineMemory, RolloutEngine
from igrpo_mcore.run.phases import Phases


class TrainerMemory(Protocol):
    """What the policy can give back (nothing, where ``model.offload_optimizer`` is false)."""

    @property
    def offloads_optimizer(self) -> bool: ...
    def offload_optimizer(self) -> None: ...
    def restore_optimizer(self) -> None: ...


class DeviceMemory[Engine: RolloutEngine]:
    """``engine`` is started here, when the optimizer has left the device. Its weights are those of the start
    until a push."""

    def __init__(self, policy: TrainerMemory, start_engine: Callable[[], Engine], phases: Phases) -> None:
        self._policy, self._phases = policy, phases
        policy.offload_optimizer()
        self.engine = start_engine()
        self._asleep: set[EngineMemory] = set()

    @property
    def engine_ready(self) -> bool:
        """Whether the engine's weights and KV cache are in memory."""
        return not self._asleep

    @contextmanager
    def sampling(self) -> Iterator[None]:
        """Inside, the engine generates. Raises ``RuntimeError`` where it sleeps: it has no weights."""
        if self._asleep:
            raise RuntimeError("the engine sleeps; push the weights before sampling")
        yield

    @contextmanager
    def training(self, *, keep_engine_weights: bool = False) -> Iterator[None]:
        """Inside, the engine sleeps. ``keep_engine_weights`` lets ``pushing`` bring back those it sampled
        with; otherwise only a push makes it able to sample again."""
        with self._phases("sleep"):
            self.engine.sleep(keep_weights=keep_engine_weights)
        self._asleep = set(EngineMemory)
        yield

    @contextmanager
    def updating(self) -> Iterator[None]:
        """Inside ``training``: gradients and optimizer state are on the device."""
        self._policy.restore_optimizer()
        yield

    @contextmanager
    def pushing(self) -> Iterator[None]:
        """Inside, both have their weights and nothing else; afterwards the engine has its KV cache."""
        with self._phases("offload"):
            self._policy.offload_optimizer()
        self._wake(EngineMemory.weights)
        yield
        self._wake(EngineMemory.kv_cache)

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Inside, the optimizer's state is on the device, where a save may gather it; on a GPU the engine
        sleeps for it and needs a push afterwards."""
        if (self._policy.offloads_optimizer or device.has_cuda()) and not self._asleep:
            with self.training():
                pass
        with self.updating():
            yield

    def _wake(self, what: EngineMemory) -> None:
        with self._phases(f"wake_{what}"):
            if what in self._asleep:
                self.engine.wake(what)
                self._asleep.remove(what)
