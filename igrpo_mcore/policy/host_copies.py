"""Copies of device tensors in host memory that is kept: allocated once, and page-locked with CUDA."""

from collections.abc import Hashable

from torch import Tensor

from igrpo_mcore import device


class HostCopies:
    """One buffer a key. Pageable memory is copied at a fraction of the bus's speed, and allocating it costs
    as much again."""

    def __init__(self) -> None:
        self._buffers: dict[Hashable, Tensor] = {}

    def take(self, key: Hashable, tensor: Tensor) -> Tensor:
        """The buffer of ``key``, holding ``tensor``'s values in its shape and dtype.

        With CUDA the copy is in order with the current stream: the host reads it after
        ``device.synchronize()``. The next copy under the same key overwrites it.
        """
        if key not in self._buffers:
            self._buffers[key] = device.pinned_like(tensor)
        return self._buffers[key].copy_(tensor.detach(), non_blocking=True)
