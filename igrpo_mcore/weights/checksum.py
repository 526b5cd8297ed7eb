"""A 64-bit checksum of a tensor that ranks can add up from parts.

Each element's bits are multiplied by an odd number mixed from its index in the whole Hugging Face
tensor, and summed modulo 2^64: parts that do not overlap add up to the whole, and moved, swapped or
transposed elements change the sum.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from igrpo_mcore.weights.rules import HFTensor, Run

_CHUNK = 1 << 21
_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_INTEGER = {2: torch.int16, 4: torch.int32}


def _index_weights(index: Tensor) -> Tensor:
    mixed = index * _GOLDEN
    return (mixed ^ (mixed >> 29)) | 1


def checksum(part: Tensor, tensor: HFTensor, run: Run) -> int:
    """Sum over ``part``, which is ``run`` of ``tensor`` along its split dimension; 0 <= sum < 2^64.

    Args:
        part: float32, bfloat16 or float16, shape of ``tensor`` with ``run.length`` at its dimension.
    """
    outer = math.prod(tensor.shape[: tensor.dim])
    extent = tensor.shape[tensor.dim]
    inner = math.prod(tensor.shape[tensor.dim + 1 :])
    bits = part.detach().contiguous().view(_INTEGER[part.element_size()]).reshape(outer, run.length * inner)
    device = part.device
    total = 0
    rows = max(1, _CHUNK // max(1, bits.shape[1]))
    for first in range(0, outer, rows):
        block = bits[first : first + rows]
        base = torch.arange(first, first + block.shape[0], device=device)[:, None] * (extent * inner)
        for column in range(0, block.shape[1], _CHUNK):
            piece = block[:, column : column + _CHUNK].to(torch.int64)
            start = run.start * inner + column
            index = base + torch.arange(start, start + piece.shape[1], device=device)
            total += int(((piece + 0x5BD1E995) * _index_weights(index)).sum())
    return total % (1 << 64)


def add(sums: Sequence[int]) -> int:
    """The checksum of a whole from those of parts that do not overlap."""
    return sum(sums) % (1 << 64)
