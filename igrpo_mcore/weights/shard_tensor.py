"""A tensor of full shape that holds only one rank's part of it.

vLLM's weight loaders are given whole Hugging Face tensors and narrow them to their own shard.
``ShardTensor`` answers the narrowing from the part that is there, so that the whole tensor never
exists; asking for anything outside is an error rather than a wrong weight.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from igrpo_mcore.weights.rules import Run


class ShardTensor(torch.Tensor):
    """Full shape, partial storage. Read through ``narrow`` or slices along the split dimension.

    ``part`` holds ``runs`` of dimension ``dim`` one after the other.
    """

    part: Tensor
    dim_: int
    runs: tuple[tuple[Run, int], ...]

    @staticmethod
    def __new__(cls, shape: Sequence[int], part: Tensor, dim: int, runs: Sequence[tuple[Run, int]]):
        wrapper = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, tuple(shape), dtype=part.dtype, device=part.device, requires_grad=False
        )
        wrapper.part, wrapper.dim_, wrapper.runs = part, dim, tuple(runs)
        return wrapper

    @classmethod
    def of_runs(cls, shape: Sequence[int], part: Tensor, dim: int, runs: Sequence[Run]) -> Tensor:
        """``part`` concatenates ``runs`` along ``dim``; a part that is everything stays a plain tensor."""
        if tuple(part.shape) == tuple(shape):
            return part
        placed: list[tuple[Run, int]] = []
        offset = 0
        for run in runs:
            last = placed[-1] if placed else None
            if last and last[0].stop == run.start and last[1] + last[0].length == offset:
                placed[-1] = (Run(last[0].start, last[0].length + run.length), last[1])
            else:
                placed.append((run, offset))
            offset += run.length
        return cls(shape, part, dim, placed)

    def _slice(self, dim: int, start: int | None, stop: int | None, step: int) -> Tensor:
        dim %= self.ndim
        start, stop, step = slice(start, stop, step).indices(self.shape[dim])
        if step != 1:
            raise NotImplementedError("a ShardTensor is sliced with step 1 only")
        wanted = Run(start, max(0, stop - start))
        shape = list(self.shape)
        shape[dim] = wanted.length
        if dim != self.dim_:
            return ShardTensor(shape, self.part.narrow(dim, start, wanted.length), self.dim_, self.runs)
        if not wanted.length:
            return self.part.narrow(dim, 0, 0)
        here: list[tuple[Run, int]] = []
        for run, offset in self.runs:
            common = run.intersect(wanted)
            if common.length == wanted.length:
                return self.part.narrow(dim, offset + wanted.start - run.start, wanted.length)
            if common.length:
                inside = Run(common.start - wanted.start, common.length)
                here.append((inside, offset + common.start - run.start))
        return ShardTensor(shape, self.part, dim, here)

    def __repr__(self, **_) -> str:  # type: ignore[override]
        return f"ShardTensor(shape={tuple(self.shape)}, dim={self.dim_}, runs={self.runs})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):  # type: ignore[override]
        tensor = args[0]
        if isinstance(tensor, cls):
            if func is torch.ops.aten.slice.Tensor:
                dim, start, stop, step = (list(args[1:]) + [0, None, None, 1][len(args) - 1 :])[:4]
                return tensor._slice(dim, start, stop, step)
            if func in (torch.ops.aten.detach.default, torch.ops.aten.alias.default):
                return cls(tensor.shape, tensor.part, tensor.dim_, tensor.runs)
            if func in (torch.ops.aten._to_copy.default,):
                part = func(tensor.part, *args[1:], **(kwargs or {}))
                return cls(tensor.shape, part, tensor.dim_, tensor.runs)
        held = next(a for a in (*args, *(kwargs or {}).values()) if isinstance(a, cls))
        raise RuntimeError(
            f"{func} was asked of {held!r}, of which only the listed runs are on this rank: the engine's "
            "sharding is not the one planned for (HFTensor.engine_runs); set another rollout.tp"
        )
