"""Optimizer state and gradient buffers out of the GPU's memory while the engine samples."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from megatron.core.distributed import DistributedDataParallel
from megatron.core.optimizer import MegatronOptimizer

from igrpo_mcore import device


class OptimizerOffload:
    """Megatron-Core's own offloading as one switch; either call may be repeated.

    The fp32 main parameters and AdamW's moments move to the host. Gradients are not kept: their
    buffers are freed and come back as zeros. On a machine without a GPU the state is on the host
    anyway and only the buffers go and come.
    """

    def __init__(self, optimizer: MegatronOptimizer, ddp: Sequence[DistributedDataParallel]) -> None:
        self._optimizer, self._ddp = optimizer, ddp
        self.offloaded = False

    def offload(self) -> None:
        """Free the device memory of both."""
        if self.offloaded:
            return
        with _quiet(), device.megatron_on_cpu():
            self._optimizer.offload_to_cpu()
            for chunk in self._ddp:
                chunk.offload_grad_buffers()
        self.offloaded = True

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
