"""Tile shapes of the kernels: a fixed table, so that the same call always runs the same code.

No autotuning: its choice can differ from run to run and from rank to rank, and with it the order of the sums.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Tile:
    """A program handles ``rows`` rows and walks over the columns ``lanes * vector`` at a time."""

    rows: int
    lanes: int
    """Independent running sums of a row; merged once, after the last column."""
    vector: int
    """Neighbouring columns of a lane: one 16-byte load of a thread."""
    warps: int
    stages: int
    """Tiles on their way from memory at once."""


@dataclass(frozen=True)
class Tiles:
    stats: Tile
    grad: Tile


# device → [(largest local vocabulary, bytes of a logit, tiles)]: the first that fits. The 16-bit and 32-bit
# entries load the same 16 bytes a thread. Chosen from the code compiled for sm_90: no spilled register, three
# or more programs a multiprocessor, 48 KiB or more of loads in flight there. Not yet tuned on a GPU.
TABLE: dict[str, list[tuple[int, int, Tiles]]] = {
    "cuda": [
        (16_384, 2, Tiles(Tile(1, 256, 8, 4, 3), Tile(1, 256, 8, 4, 3))),
        (16_384, 4, Tiles(Tile(1, 256, 4, 4, 3), Tile(1, 256, 4, 4, 3))),
        (2**31 - 1, 2, Tiles(Tile(1, 512, 8, 8, 3), Tile(1, 512, 8, 8, 3))),
        (2**31 - 1, 4, Tiles(Tile(1, 512, 4, 8, 3), Tile(1, 512, 4, 8, 3))),
    ],
    # the interpreter pays for each tile, not for each element; small enough that tests walk over several
    "interpreter": [
        (2**31 - 1, size, Tiles(Tile(64, 32, 8, 1, 1), Tile(64, 32, 8, 1, 1))) for size in (2, 4)
    ],
}


def tiles(local_vocabulary: int, dtype: torch.dtype, device: str) -> Tiles:
    """The entry for a shard of ``local_vocabulary`` columns; ``device`` is "cuda" or "interpreter"."""
    for largest, size, entry in TABLE[device]:
        if local_vocabulary <= largest and dtype.itemsize == size:
            return entry
    raise ValueError(f"no tiles for {dtype} logits on {device}")
