"""How one Megatron parameter is made of Hugging Face tensors, and how either is split.

Everything is one-dimensional: a tensor is divided along one dimension (rows of a column-parallel
layer, columns of a row-parallel one), so any layout is a list of runs along it. Hugging Face
coordinates are the common language: import, export and the plan of a push only compare runs of
Hugging Face tensors.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import torch

VLLM_VOCABULARY_MULTIPLE = 64
"""vLLM pads vocabularies to this before it divides them (``DEFAULT_VOCAB_PADDING_SIZE``)."""


@dataclass(frozen=True, slots=True)
class Run:
    """``length`` consecutive indices from ``start`` along a tensor's split dimension."""

    start: int
    length: int

    @property
    def stop(self) -> int:
        return self.start + self.length

    def intersect(self, other: "Run") -> "Run":
        """The common part; its length is 0 where there is none."""
        start = max(self.start, other.start)
        return Run(start, max(0, min(self.stop, other.stop) - start))


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a fused tensor that is divided over tensor-parallel ranks on its own.

    ``units`` is how many indivisible runs (heads, groups) it has: a rollout engine with more ranks
    than units replicates them.
    """

    length: int
    units: int


@dataclass(frozen=True, slots=True)
class HFTensor:
    """One tensor of a Hugging Face checkpoint.

    ``dim`` is the dimension that tensor parallelism divides, by ``blocks``; without blocks every
    rank of an engine wants the whole tensor. ``keep_dtype`` marks the few that stay in the policy's
    own type (float32) whatever the rest is sent in.
    """

    name: str
    shape: tuple[int, ...]
    dim: int = 0
    blocks: tuple[Block, ...] = ()
    vocabulary: bool = False
    keep_dtype: bool = False

    @property
    def numel(self) -> int:
        return prod(self.shape)

    def sent_as(self, dtype: torch.dtype) -> torch.dtype:
        """Its type where the rest is sent or written as ``dtype``."""
        return torch.float32 if self.keep_dtype else dtype

    def run_bytes(self, run: Run, dtype: torch.dtype) -> int:
        """Bytes of ``run`` where the rest is sent as ``dtype``."""
        return self.numel // self.shape[self.dim] * run.length * self.sent_as(dtype).itemsize

    @property
    def whole(self) -> Run:
        return Run(0, self.shape[self.dim])

    @property
    def padded_by_engine(self) -> bool:
        """Whether vLLM pads it: its loader then waits for rows that never come and keeps what it was
        given until the end of a push."""
        return self.vocabulary and self.shape[0] % VLLM_VOCABULARY_MULTIPLE != 0

    def engine_runs(self, rank: int, size: int) -> tuple[Run, ...]:
        """What rank ``rank`` of a vLLM engine with ``size`` tensor-parallel ranks holds of this tensor."""
        if size == 1 or not (self.blocks or self.vocabulary):
            return (self.whole,)
        if self.vocabulary:
            rows = self.shape[0]
            padded = -(-rows // VLLM_VOCABULARY_MULTIPLE) * VLLM_VOCABULARY_MULTIPLE
            start = min(rank * (padded // size), rows)  # the last ranks may hold padding only
            return (Run(start, min(padded // size, rows - start)),)
        runs, start = [], 0
        for block in self.blocks:
            if block.units >= size:
                share = block.length // size
                runs.append(Run(start + rank * share, share))
            else:
                unit = block.length // block.units
                runs.append(Run(start + rank * block.units // size * unit, unit))
            start += block.length
        return tuple(runs)


@dataclass(frozen=True, slots=True)
class Segment:
    """``run`` of Hugging Face tensor ``tensor`` lies at ``offset`` of a rule's block or of a local shard."""

    tensor: str
    run: Run
    offset: int


@dataclass(frozen=True)
class Rule:
    """One Megatron parameter: the Hugging Face tensors it holds and how ranks divide it.

    ``blocks`` lists the parts along ``dim`` in Megatron's order, each made of segments that follow each
    other and each divided evenly over the tensor-parallel ranks; ``dim`` None means replicated.
    """

    param: str
    tensors: tuple[HFTensor, ...]
    dim: int | None
    blocks: tuple[tuple[Segment, ...], ...]

    @property
    def vocabulary(self) -> bool:
        return self.tensors[0].vocabulary

    @property
    def group(self) -> str:
        """The module that vLLM reloads as one; tensors of one group are streamed together."""
        return self.param.rpartition(".")[0]

    def local_shape(self, size: int) -> tuple[int, ...]:
        """Shape of one of ``size`` shards (of a vocabulary: without padding, rounded up)."""
        shape = list(self.tensors[0].shape)
        if self.dim is not None:
            total = sum(segment.run.length for block in self.blocks for segment in block)
            shape[self.dim] = -(-total // size)
        return tuple(shape)

    def segments(self, rank: int, size: int, local_length: int) -> list[Segment]:
        """Where each run of Hugging Face tensors lies in shard ``rank`` of ``size``.

        ``local_length`` is the shard's extent along the split dimension: of a padded vocabulary the
        rows beyond the real ones are covered by no segment.
        """
        if self.dim is None:
            return [Segment(t.name, t.whole, 0) for t in self.tensors]
        found: list[Segment] = []
        base = 0
        for block in self.blocks:
            share = local_length if self.vocabulary else sum(s.run.length for s in block) // size
            mine = Run(rank * share, share)
            for segment in block:
                common = Run(segment.offset, segment.run.length).intersect(mine)
                if common.length:
                    run = Run(segment.run.start + common.start - segment.offset, common.length)
                    found.append(Segment(segment.tensor, run, base + common.start - mine.start))
            base += share
        return found

    def under(self, layer: str, hf_layer: str) -> "Rule":
        """The same rule with full names: ``layer`` before Megatron's, ``hf_layer`` before the others."""
        return replace(
            self,
            param=layer + self.param,
            tensors=tuple(replace(t, name=hf_layer + t.name) for t in self.tensors),
            blocks=tuple(
                tuple(replace(s, tensor=hf_layer + s.tensor) for s in block) for block in self.blocks
            ),
        )


def _block(*parts: tuple[str, int, int]) -> tuple[Segment, ...]:
    """(tensor, first index, length) one after the other."""
    block: list[Segment] = []
    for name, start, length in parts:
        offset = block[-1].offset + block[-1].run.length if block else 0
        block.append(Segment(name, Run(start, length), offset))
    return tuple(block)


def _whole_tensors(param: str, *tensors: HFTensor) -> Rule:
    """Each tensor a block of its own."""
    dim = tensors[0].dim
    return Rule(param, tensors, dim, tuple(_block((t.name, 0, t.shape[dim])) for t in tensors))


def _divided(name: str, shape: tuple[int, ...], dim: int, keep_dtype: bool = False) -> HFTensor:
    return HFTensor(name, shape, dim, (Block(shape[dim], shape[dim]),), keep_dtype=keep_dtype)


def replicated(param: str, name: str, shape: tuple[int, ...]) -> Rule:
    """Held whole by every tensor-parallel rank: norms."""
    return Rule(param, (HFTensor(name, shape),), None, ())


def column(param: str, name: str, shape: tuple[int, ...], keep_dtype: bool = False) -> Rule:
    """Rows divided (ColumnParallelLinear without gate, per-head Mamba parameters)."""
    return _whole_tensors(param, _divided(name, shape, 0, keep_dtype))


def row(param: str, name: str, shape: tuple[int, int]) -> Rule:
    """Columns divided (RowParallelLinear)."""
    return _whole_tensors(param, _divided(name, shape, 1))


def gate_up(param: str, gate: str, up: str, shape: tuple[int, int]) -> Rule:
    """SwiGLU's first layer: each rank holds its rows of gate, then its rows of up."""
    return _whole_tensors(param, _divided(gate, shape, 0), _divided(up, shape, 0))


def qkv(
    param: str, names: Sequence[str], heads: int, kv_heads: int, head_dim: int, inner: tuple[int, ...]
) -> Rule:
    """Grouped attention's fused projection: group by group, its query heads, its key, its value.

    ``inner`` is what follows the row dimension: (hidden,) of a weight, () of a bias.
    """
    sizes = (heads * head_dim, kv_heads * head_dim, kv_heads * head_dim)
    tensors = tuple(
        HFTensor(name, (rows, *inner), 0, (Block(rows, units),))
        for name, rows, units in zip(names, sizes, (heads, kv_heads, kv_heads), strict=True)
    )
    q_rows = heads // kv_heads * head_dim
    q, k, v = names
    groups = [
        part
        for g in range(kv_heads)
        for part in ((q, g * q_rows, q_rows), (k, g * head_dim, head_dim), (v, g * head_dim, head_dim))
    ]
    return Rule(param, tensors, 0, (_block(*groups),))


def fused(param: str, name: str, blocks: tuple[Block, ...], inner: tuple[int, ...]) -> Rule:
    """One tensor of several blocks, each divided on its own: Mamba's in_proj (z, x, B, C, dt), conv1d."""
    tensor = HFTensor(name, (sum(b.length for b in blocks), *inner), 0, blocks)
    starts = itertools.accumulate((b.length for b in blocks), initial=0)
    segments = tuple(_block((name, start, b.length)) for start, b in zip(starts, blocks, strict=False))
    return Rule(param, (tensor,), 0, segments)


def vocabulary(param: str, name: str, shape: tuple[int, int]) -> Rule:
    """Embedding or head: rows divided, Megatron's padded with rows that Hugging Face does not have."""
    return _whole_tensors(param, HFTensor(name, shape, 0, vocabulary=True))
