"""Optimizer state and gradient buffers out of the GPU's memory while the engine samples."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from megatron.core.distributed import DistributedDataParallel
from megatron.core.optimizer import ChainedOptimizer, MegatronOptimizer
from torch import Tensor

from igrpo_mcore import device
from igrpo_mcore.policy.host_copies import HostCopies


class OptimizerOffload:
    """Megatron-Core's own offloading as one switch; either call may be repeated.

    The fp32 main parameters and AdamW's moments move to host memory that is kept in between. Gradients
    are not kept: their buffers are freed and come back as zeros. On a machine without a GPU the state is
    on the host anyway and only the buffers go and come.
    """

    def __init__(self, optimizer: MegatronOptimizer, ddp: Sequence[DistributedDataParallel]) -> None:
        self._optimizer, self._ddp = optimizer, ddp
        self._copies = HostCopies()
        self.offloaded = False

    def offload(self) -> None:
        """Free the device memory of both."""
        if self.offloaded:
            return
        with _quiet(), device.megatron_on_cpu():
            self._state_to_host()
            self._optimizer.offload_to_cpu()  # what is left, and torch's cache
            for chunk in self._ddp:
                chunk.offload_grad_buffers()
        self.offloaded = True

    def _state_to_host(self) -> None:
        """As ``MegatronOptimizer.offload_to_cpu``, which allocates pageable memory anew for every tensor."""
        chained = isinstance(self._optimizer, ChainedOptimizer)
        for part in self._optimizer.chained_optimizers if chained else [self._optimizer]:
            inner = getattr(part, "optimizer", None)
            if inner is None or getattr(part, "is_stub_optimizer", False):
                continue
            for parameter in (p for group in inner.param_groups for p in group["params"] if p.is_cuda):
                parameter.data = self._copies.take(parameter, parameter)
            for parameter, state in inner.state.items():
                for name, value in state.items():
                    if isinstance(value, Tensor) and value.is_cuda:
                        state[name] = self._copies.take((parameter, name), value)
        device.synchronize()

    def restore(self) -> None:
        """Take it again; gradients are zero."""
        if not self.offloaded:
            return
        with _quiet(), device.megatron_on_cpu():
            self._optimizer.restore_from_cpu()
            for chunk in self._ddp:
                chunk.restore_grad_buffers()
        self.offloaded = False


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "TypedStorage is deprecated", UserWarning)
        yield
