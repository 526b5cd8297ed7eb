"""Prove a push: checkpoint = policy = what arrived = what the engine computes with, tensor by tensor."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from igrpo_mcore.collective import gather_objects
from igrpo_mcore.weights.checkpoint import check_against_table, open_checkpoint, resolve_checkpoint
from igrpo_mcore.weights.ledger import Ledger, checkpoint_sums, policy_ledger
from igrpo_mcore.weights.push import Pusher
from igrpo_mcore.weights.read_back import ReadBack
from igrpo_mcore.weights.rules import HFTensor, Run
from igrpo_mcore.weights.shard_tensor import ShardTensor
from igrpo_mcore.weights.table import HF_HEAD, OUTPUT

_FAMILIES = (
    ("embedding", r"embed_tokens|embeddings"),
    ("head", r"^lm_head"),
    ("attention", r"self_attn|mixer\.[qkvo]_proj"),
    ("mlp", r"mlp\.|mixer\.(up|down)_proj"),
    ("mamba", r"mixer\."),
    ("norm", r"norm"),
)


def tensor_family(name: str) -> str:
    """The line of the table that a Hugging Face tensor is counted under."""
    return next((family for family, pattern in _FAMILIES if re.search(pattern, name)), "other")


@dataclass(frozen=True)
class Mismatch:
    """One tensor that differs, and between which two places."""

    tensor: str
    where: str


@dataclass(frozen=True)
class FamilyRow:
    """Counts of one tensor family over all ranks. ``bytes`` are sent in a push; ``read_back`` is how many
    tensors were read out of the engine itself, a tied head (of no bytes) among them."""

    family: str
    tensors: int
    bytes: int
    read_back: int
    mismatches: tuple[Mismatch, ...]


@dataclass(frozen=True)
class VerifyReport:
    """What ``verify_weights`` found, the same on every rank."""

    rows: tuple[FamilyRow, ...]

    @property
    def mismatches(self) -> tuple[Mismatch, ...]:
        return tuple(m for row in self.rows for m in row.mismatches)

    @property
    def ok(self) -> bool:
        return not self.mismatches

    def table(self) -> str:
        """A line a tensor family, then a line a tensor that differs."""
        lines = [f"{'family':<10} {'tensors':>8} {'MB':>10} {'read back':>10} {'differ':>7}"]
        for row in self.rows:
            lines.append(
                f"{row.family:<10} {row.tensors:>8} {row.bytes / 1e6:>10.2f} {row.read_back:>10} "
                f"{len({m.tensor for m in row.mismatches}):>7}"
            )
        lines += [f"DIFFERS {m.tensor}: {m.where}" for m in self.mismatches]
        return "\n".join(lines)


def local_part(tensor: Tensor, spec: HFTensor, runs: tuple[Run, ...]) -> Tensor:
    """An engine rank's share of an arrived tensor, its runs one after the other."""
    if isinstance(tensor, ShardTensor):
        return tensor.part
    return torch.cat([tensor.narrow(spec.dim, run.start, run.length) for run in runs], spec.dim)


def _engine_view(name: str, part: Tensor) -> Tensor:
    """What vLLM keeps of an arrived tensor: A instead of A_log, everything else as it is."""
    return -torch.exp(part.float()) if name.endswith(".A_log") else part


def _engine_differences(
    pusher: Pusher, ledger: Ledger, reader: ReadBack | None, read: set[str]
) -> Iterator[Mismatch]:
    engine = pusher.rank // pusher.rollout_tp
    for name, arrived in pusher.stream():
        spec = pusher.table.tensors[name]
        runs = pusher.engine_runs(spec)
        part = local_part(arrived, spec, runs)
        if not ledger.matches(part, spec, runs):
            yield Mismatch(name, f"arrived on rank {pusher.rank} with another checksum than the policy's")
        if reader is None:
            continue
        expected = _engine_view(name, part)
        # a tied head computes with the embedding, from a copy that vLLM may have made of it
        for used in (name, HF_HEAD) if name == pusher.table.tied_embedding else (name,):
            held = reader.read(used, pusher.dtype)
            if held is None:
                continue
            read.add(used)
            if not _equal(held, expected, spec):
                yield Mismatch(used, f"engine {engine} (rank {pusher.rank}) has other values than the policy")


def _equal(held: Tensor, expected: Tensor, spec: HFTensor) -> bool:
    """Whether an engine holds what it should, whatever padding and shape it keeps it in."""
    expected = expected.to(held.dtype)
    held = held.narrow(0, 0, expected.shape[0]) if spec.vocabulary else held
    held = held.reshape(expected.shape) if held.numel() == expected.numel() else held
    return held.shape == expected.shape and torch.equal(held, expected)


def _replica_differences(pusher: Pusher, ledger: Ledger) -> Iterator[Mismatch]:
    """Replicas within the policy: data-parallel ones, and a tied head on a stage without its embedding."""
    for param, shard in pusher.shards.items():
        for segment in shard.segments:
            tensor = pusher.table.tensors[segment.tensor]
            part = shard.view(segment).to(tensor.sent_as(pusher.dtype))
            if not ledger.matches(part, tensor, (segment.run,)):
                name = HF_HEAD if pusher.table.tied and param == OUTPUT else tensor.name
                yield Mismatch(name, f"rank {pusher.rank} of the policy holds other values than another rank")


def _checkpoint_differences(pusher: Pusher, ledger: Ledger, path: str | Path) -> Iterator[Mismatch]:
    checkpoint = open_checkpoint(resolve_checkpoint(path))
    check_against_table(checkpoint, pusher.table)
    for name, value in checkpoint_sums(checkpoint, pusher).items():
        if ledger.whole(name) != value:
            yield Mismatch(name, "the policy holds other values than the checkpoint")


@torch.no_grad()
def verify_weights(
    pusher: Pusher, *, checkpoint: str | Path | None = None, engine_model: nn.Module | None = None
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
    ledger = policy_ledger(pusher)
    found = list(_checkpoint_differences(pusher, ledger, checkpoint)) if checkpoint is not None else []
    found += _replica_differences(pusher, ledger)

    def local_length(name: str) -> int:
        return sum(run.length for run in pusher.engine_runs(pusher.table.tensors[name]))

    reader = ReadBack(engine_model, local_length) if engine_model is not None else None
    read: set[str] = set()
    found += _engine_differences(pusher, ledger, reader, read)
    mismatches = {m: None for part in gather_objects(found) for m in part}
    read_everywhere = set.intersection(*gather_objects(read))
    rows = []
    names: dict[str, list[str]] = {}
    tied = [HF_HEAD] if pusher.table.tied else []
    for name in [*pusher.table.tensors, *tied]:
        names.setdefault(tensor_family(name), []).append(name)
    for family, members in names.items():
        tensors = [pusher.table.tensors[name] for name in members if name not in tied]  # what is sent
        rows.append(
            FamilyRow(
                family,
                len(members),
                sum(t.run_bytes(t.whole, pusher.dtype) for t in tensors),
                len(read_everywhere.intersection(members)),
                tuple(m for m in mismatches if m.tensor in members),
            )
        )
    return VerifyReport(tuple(rows))
