"""Checksums of the policy's weights in Hugging Face coordinates, run by run, known to every rank."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from safetensors import safe_open
from torch import Tensor

from igrpo_mcore.collective import gather_objects
from igrpo_mcore.weights.checkpoint import Checkpoint
from igrpo_mcore.weights.checksum import add, checksum
from igrpo_mcore.weights.holdings import Cell
from igrpo_mcore.weights.push import Pusher
from igrpo_mcore.weights.rules import HFTensor, Run


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


def policy_ledger(pusher: Pusher) -> Ledger:
    """Checksums of what the policy holds, as sent; each run by the first rank that holds it. Collective."""
    mine: dict[str, dict[Run, int]] = {}
    for name, tensor in pusher.table.tensors.items():
        for run in _runs(tensor, pusher.cells[name], pusher.rollout_tp):
            cell = next(c for c in pusher.cells[name] if c.run.intersect(run).length)
            if min(cell.sources) != pusher.rank:
                continue
            param, offset = cell.sources[pusher.rank]
            held = pusher.shards[param].tensor
            part = held.narrow(tensor.dim, offset + run.start - cell.run.start, run.length)
            mine.setdefault(name, {})[run] = checksum(part.to(tensor.sent_as(pusher.dtype)), tensor, run)
    sums: dict[str, dict[Run, int]] = {}
    for part_of_rank in gather_objects(mine):
        for name, found in part_of_rank.items():
            sums.setdefault(name, {}).update(found)
    ordered = {name: dict(sorted(found.items(), key=lambda i: i[0].start)) for name, found in sums.items()}
    return Ledger(ordered)


def checkpoint_sums(checkpoint: Checkpoint, pusher: Pusher) -> dict[str, int]:
    """Whole-tensor checksums of a checkpoint, cast as the policy holds it and then as sent.

    Ranks share the reading; independent of the tables' splits. Collective.
    """
    held = {t.name: s.tensor.dtype for s in pusher.shards.values() for t in s.rule.tensors}
    everywhere = gather_objects(held)
    dtypes = {name: dtype for part in everywhere for name, dtype in part.items()}
    mine: dict[str, int] = {}
    for i, (name, tensor) in enumerate(pusher.table.tensors.items()):
        if i % len(everywhere) == pusher.rank:
            with safe_open(checkpoint.folder / checkpoint.files[name], "pt") as handle:
                value = handle.get_tensor(name).to(dtypes[name]).to(tensor.sent_as(pusher.dtype))
            mine[name] = checksum(value, tensor, tensor.whole)
    return {name: value for part in gather_objects(mine) for name, value in part.items()}
