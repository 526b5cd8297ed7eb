"""What every rank holds of the Hugging Face tensors, run by run."""

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from igrpo_mcore.collective import gather_objects
from igrpo_mcore.weights.rules import Run, Segment
from igrpo_mcore.weights.table import Table

if TYPE_CHECKING:
    from igrpo_mcore.weights.local import LocalShard


@dataclass(frozen=True, slots=True)
class Holding:
    """What one rank tells the others of a parameter it holds."""

    segments: tuple[Segment, ...]
    dtype: torch.dtype


def exchange_holdings(shards: Mapping[str, "LocalShard"]) -> list[dict[str, Holding]]:
    """What each rank holds, index = rank. Collective."""
    mine = {name: Holding(shard.segments, shard.tensor.dtype) for name, shard in shards.items()}
    return gather_objects(mine)


@dataclass(frozen=True, slots=True)
class Cell:
    """A run that every one of ``sources`` (rank -> parameter, offset of the run) holds whole."""

    run: Run
    sources: dict[int, tuple[str, int]]


def _cells(segments: Sequence[tuple[int, str, Segment]]) -> list[Cell]:
    edges = sorted({e for _, _, s in segments for e in (s.run.start, s.run.stop)})
    cells = []
    for start, stop in itertools.pairwise(edges):
        run = Run(start, stop - start)
        sources: dict[int, tuple[str, int]] = {}
        for rank, param, segment in segments:
            if segment.run.start <= start and stop <= segment.run.stop:
                sources.setdefault(rank, (param, segment.offset + start - segment.run.start))
        cells.append(Cell(run, sources))
    return cells


def source_cells(held: Sequence[Mapping[str, Holding]]) -> dict[str, list[Cell]]:
    """Tensor name -> its cells in order, over all ranks."""
    segments: dict[str, list[tuple[int, str, Segment]]] = defaultdict(list)
    for rank, params in enumerate(held):
        for param, holding in params.items():
            for segment in holding.segments:
                segments[segment.tensor].append((rank, param, segment))
    return {name: _cells(found) for name, found in segments.items()}


def allgather_bytes(table: Table, cells: Mapping[str, Sequence[Cell]], world: int, dtype: torch.dtype) -> int:
    """Bytes between ranks where every rank is sent all that it does not hold: what an all-gather moves."""
    return sum(
        table.tensors[name].run_bytes(cell.run, dtype) * (world - len(cell.sources))
        for name, found in cells.items()
        for cell in found
    )
