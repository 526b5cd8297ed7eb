"""Checksums of the policy's weights in Hugging Face coordinates, run by run, known to every rank."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from safetensors import safe_open
from torch import Tensor

from igrpo_mcore.collective import gather_objects
from igrpo_mcore.weights.checkpoint import Checkpoint
from igrpo_mcore.weights.checksum import add, checksum
from igrpo_mcore.weights.holdings import Cell
from igrpo_mcore.weights.local import LocalShard
from igrpo_mcore.weights.rules import HFTensor, Run
from igrpo_mcore.weights.table import Table


@dataclass(frozen=True)
class Ledger:
    """``sums`` by tensor name and run. Runs of one tensor follow each other without a gap, and no
    shard of the train or rollout layout cuts one."""

    sums: dict[str, dict[Run, int]]

    def whole(self, name: str) -> int:
        """Checksum of a whole tensor."""
        return add(list(self.sums[name].values()))

    def matches(self, part: Tensor, tensor: HFTensor, runs: Sequence[Run]) -> bool:
        """Whether ``part``, the concatenation of ``runs``, has the checksums of the ledger."""
        offset = 0
        for run in runs:
            for known, expected in self.sums[tensor.name].items():
                common = known.intersect(run)
                if not common.length:
                    continue
                start = offset + common.start - run.start
                if checksum(part.narrow(tensor.dim, start, common.length), tensor, common) != expected:
                    return False
            offset += run.length
        return True


def _runs(tensor: HFTensor, cells: Sequence[Cell], rollout_tp: int) -> list[Run]:
    edges = {e for cell in cells for e in (cell.run.start, cell.run.stop)}
    for rank in range(rollout_tp):
        edges |= {e for run in tensor.engine_runs(rank, rollout_tp) for e in (run.start, run.stop)}
    return [Run(a, b - a) for a, b in itertools.pairwise(sorted(edges))]


def as_sent(tensor: HFTensor, dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if tensor.keep_dtype else dtype


def policy_ledger(
    table: Table,
    shards: Mapping[str, LocalShard],
    cells: Mapping[str, Sequence[Cell]],
    rank: int,
    rollout_tp: int,
    dtype: torch.dtype,
) -> Ledger:
    """Checksums of what the policy holds, as sent; each run by the first rank that holds it. Collective."""
    mine: dict[str, dict[Run, int]] = {}
    for name, tensor in table.tensors.items():
        for run in _runs(tensor, cells[name], rollout_tp):
            cell = next(c for c in cells[name] if c.run.intersect(run).length)
            if min(cell.sources) != rank:
                continue
            param, offset = cell.sources[rank]
            part = shards[param].tensor.narrow(tensor.dim, offset + run.start - cell.run.start, run.length)
            mine.setdefault(name, {})[run] = checksum(part.to(as_sent(tensor, dtype)), tensor, run)
    sums: dict[str, dict[Run, int]] = {}
    for part_of_rank in gather_objects(mine):
        for name, found in part_of_rank.items():
            sums.setdefault(name, {}).update(found)
    ordered = {name: dict(sorted(found.items(), key=lambda i: i[0].start)) for name, found in sums.items()}
    return Ledger(ordered)


def checkpoint_sums(
    checkpoint: Checkpoint,
    table: Table,
    rank: int,
    world: int,
    param_dtypes: Mapping[str, torch.dtype],
    dtype: torch.dtype,
) -> dict[str, int]:
    """Whole-tensor checksums of a checkpoint, cast as the policy holds it and then as sent.

    Ranks share the reading; independent of the tables' splits. Collective.
    """
    mine: dict[str, int] = {}
    for i, (name, tensor) in enumerate(table.tensors.items()):
        if i % world == rank:
            with safe_open(checkpoint.folder / checkpoint.files[name], "pt") as handle:
                value = handle.get_tensor(name).to(param_dtypes[name]).to(as_sent(tensor, dtype))
            mine[name] = checksum(value, tensor, tensor.whole)
    return {name: value for part in gather_objects(mine) for name, value in part.items()}
