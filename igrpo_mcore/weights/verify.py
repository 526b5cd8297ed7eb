"""Prove a push: checkpoint = policy = what arrived = what the engine computes with, tensor by tensor."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from igrpo_mcore.collective import gather_objects
from igrpo_mcore.weights.checkpoint import check_against_table, open_checkpoint, resolve_checkpoint
from igrpo_mcore.weights.ledger import Ledger, as_sent, checkpoint_sums, policy_ledger
from igrpo_mcore.weights.read_back import ReadBack
from igrpo_mcore.weights.rules import HFTensor, Run
from igrpo_mcore.weights.shard_tensor import ShardTensor
from igrpo_mcore.weights.sync import WeightSync
from igrpo_mcore.weights.table import HEAD, OUTPUT, Table
from igrpo_mcore.weights.verify_report import FamilyRow, Mismatch, VerifyReport, tensor_family


def local_part(tensor: Tensor, spec: HFTensor, runs: tuple[Run, ...]) -> Tensor:
    """An engine rank's share of an arrived tensor, its runs one after the other."""
    if isinstance(tensor, ShardTensor):
        return tensor.part
    return torch.cat([tensor.narrow(spec.dim, run.start, run.length) for run in runs], spec.dim)


def _engine_view(name: str, part: Tensor) -> Tensor:
    """What vLLM keeps of an arrived tensor: A instead of A_log, everything else as it is."""
    return -torch.exp(part.float()) if name.endswith(".A_log") else part


def _engine_names(table: Table, tensor: HFTensor) -> tuple[str, ...]:
    """Under which names an engine keeps a tensor: a tied head may be a packed copy of the embedding."""
    return (tensor.name, HEAD) if table.tied and tensor.vocabulary else (tensor.name,)


def _same(held: Tensor, part: Tensor, spec: HFTensor) -> bool:
    """Whether the engine's tensor is the arrived one bit by bit, its padding and its shape aside."""
    expected = _engine_view(spec.name, part).to(held.dtype)
    held = held.narrow(0, 0, expected.shape[0]) if spec.vocabulary else held
    held = held.reshape(expected.shape) if held.numel() == expected.numel() else held
    return held.shape == expected.shape and torch.equal(held, expected)


def _engine_differences(
    sync: WeightSync, ledger: Ledger, reader: ReadBack | None, read: set[str]
) -> Iterator[Mismatch]:
    engine = sync.rank // sync.rollout_tp
    for name, arrived in sync.stream():
        spec = sync.table.tensors[name]
        runs = spec.engine_runs(sync.rank % sync.rollout_tp, sync.rollout_tp)
        part = local_part(arrived, spec, runs)
        if not ledger.matches(part, spec, runs):
            yield Mismatch(name, f"arrived on rank {sync.rank} with another checksum than the policy's")
        for engine_name in _engine_names(sync.table, spec):
            held = reader.read(engine_name, sync.dtype) if reader else None
            if held is None:
                continue
            read.add(engine_name)
            if not _same(held, part, spec):
                where = f"engine {engine} (rank {sync.rank}) has other values than the policy"
                yield Mismatch(engine_name, where)


def _replica_differences(sync: WeightSync, ledger: Ledger) -> Iterator[Mismatch]:
    """Replicas within the policy: data-parallel ones, and a tied head on a stage without its embedding."""
    for param, shard in sync.shards.items():
        for segment in shard.segments:
            tensor = sync.table.tensors[segment.tensor]
            part = shard.view(segment).to(as_sent(tensor, sync.dtype))
            if not ledger.matches(part, tensor, (segment.run,)):
                name = HEAD if sync.table.tied and param == OUTPUT else tensor.name
                yield Mismatch(name, f"rank {sync.rank} of the policy holds other values than another")


def _checkpoint_differences(sync: WeightSync, ledger: Ledger, path: str | Path) -> Iterator[Mismatch]:
    checkpoint = open_checkpoint(resolve_checkpoint(path))
    check_against_table(checkpoint, sync.table)
    mine = {t.name: s.tensor.dtype for s in sync.shards.values() for t in s.rule.tensors}
    dtypes = {name: dtype for part in gather_objects(mine) for name, dtype in part.items()}
    world = len(gather_objects(None))
    sums = checkpoint_sums(checkpoint, sync.table, sync.rank, world, dtypes, sync.dtype)
    for name, value in sums.items():
        if ledger.whole(name) != value:
            yield Mismatch(name, "the policy holds other values than the checkpoint")


@torch.no_grad()
def verify_weights(
    sync: WeightSync, *, checkpoint: str | Path | None = None, engine_model: nn.Module | None = None
) -> VerifyReport:
    """Compare checksums of every tensor along its way, and the engine's own weights bit by bit. Collective.

    Moves the weights once more but loads nothing. Call it after a push, before the next update.

    Args:
        checkpoint: folder or hub id that the policy was just loaded from; none skips that comparison
            (after an update the policy rightly differs).
        engine_model: vLLM's model of this rank; none checks the arrival only.

    Raises:
        UserError: the checkpoint cannot be read or does not fit its config.
    """
    ledger = policy_ledger(sync.table, sync.shards, sync.cells, sync.rank, sync.rollout_tp, sync.dtype)
    found = list(_checkpoint_differences(sync, ledger, checkpoint)) if checkpoint is not None else []

    found += _replica_differences(sync, ledger)

    def local_length(name: str) -> int:
        runs = sync.table.tensors[name].engine_runs(sync.rank % sync.rollout_tp, sync.rollout_tp)
        return sum(run.length for run in runs)

    reader = ReadBack(engine_model, local_length) if engine_model is not None else None
    read: set[str] = set()
    found += _engine_differences(sync, ledger, reader, read)
    mismatches = {m: None for part in gather_objects(found) for m in part}
    read_everywhere = set.intersection(*gather_objects(read))
    sizes = {name: t.numel * as_sent(t, sync.dtype).itemsize for name, t in sync.table.tensors.items()}
    rows = []
    for family, members in _families(sync.table).items():
        rows.append(
            FamilyRow(
                family,
                len(members),
                sum(sizes.get(name, 0) for name in members),
                len(read_everywhere.intersection(members)),
                tuple(m for m in mismatches if m.tensor in members),
            )
        )
    return VerifyReport(tuple(rows))


def _families(table: Table) -> dict[str, list[str]]:
    """Tensor names by the line that they are counted under, a tied head among them."""
    names: dict[str, list[str]] = {}
    for name in (*table.tensors, *((HEAD,) if table.tied else ())):
        names.setdefault(tensor_family(name), []).append(name)
    return names
