"""Hugging Face safetensors into the policy: each rank reads only its own slices."""

import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import safe_open
from torch import nn

from igrpo_mcore.collective import gather_objects, raise_everywhere
from igrpo_mcore.errors import UserError
from igrpo_mcore.weights.checkpoint import (
    Checkpoint,
    check_against_table,
    open_checkpoint,
    resolve_checkpoint,
)
from igrpo_mcore.weights.families import table_for
from igrpo_mcore.weights.local import LocalShard, locate_shards
from igrpo_mcore.weights.rules import Segment

_ITEMSIZE = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}


@dataclass(frozen=True)
class LoadStats:
    """What this rank read. ``bytes_by_rank`` is the plan of all ranks, bytes on disk."""

    tensors: int
    bytes_read: int
    bytes_by_rank: tuple[int, ...]
    seconds: float


def _slice_bytes(checkpoint: Checkpoint, segment: Segment) -> int:
    shape = checkpoint.shapes[segment.tensor]
    numel = segment.run.length
    for dim, size in enumerate(shape):
        numel *= size if dim != segment.dim else 1
    return numel * _ITEMSIZE[checkpoint.dtypes[segment.tensor]]


def _plan(
    checkpoint: Checkpoint, shards: dict[str, LocalShard]
) -> dict[str, list[tuple[LocalShard, Segment]]]:
    """File -> the slices that this rank takes from it."""
    reads: dict[str, list[tuple[LocalShard, Segment]]] = defaultdict(list)
    for shard in shards.values():
        for segment in shard.segments:
            reads[checkpoint.files[segment.tensor]].append((shard, segment))
    return dict(sorted(reads.items()))


def _not_finite(tensor: str, file: str) -> str:
    return (
        f"checkpoint tensor {tensor} holds NaN or infinite values ({file}); fetch the checkpoint again, or "
        "take one from before its training diverged"
    )


def _progress(total: int, show: bool):
    from tqdm import tqdm

    on = show and sys.stderr.isatty() and (not dist.is_initialized() or dist.get_rank() == 0)
    return tqdm(total=total, unit="B", unit_scale=True, desc="weights", disable=not on)


@torch.no_grad()
def load_hf_weights(
    chunks: Sequence[nn.Module], checkpoint: str | Path, hf_config: Any, *, progress: bool = True
) -> LoadStats:
    """Fill the policy's parameters from a checkpoint. Collective.

    No rank holds more than one slice beyond its own parameters. Rows that pad the vocabulary become
    zero. Values are cast to the parameter's own type.

    Args:
        chunks: the policy's model chunks of this rank.
        checkpoint: folder or hub id with (sharded) safetensors.
        hf_config: its transformers config.

    Raises:
        UserError: on every rank, naming a missing, misshapen or surplus tensor or parameter, or one
            that holds NaN or infinite values.
    """
    started = time.perf_counter()
    table = table_for(hf_config)
    found = None
    problem = None
    try:
        found = open_checkpoint(resolve_checkpoint(checkpoint))
        check_against_table(found, table)
        odd = {name: d for name, d in found.dtypes.items() if name in table.tensors and d not in _ITEMSIZE}
        if odd:
            name, dtype = next(iter(odd.items()))
            raise UserError(
                f"checkpoint tensor {name} is stored as {dtype}; give a checkpoint in bf16, fp16 or fp32"
            )
    except UserError as error:
        problem = str(error)
    raise_everywhere(problem)
    assert found is not None
    shards = locate_shards(chunks, table)
    reads = _plan(found, shards)
    mine = sum(_slice_bytes(found, segment) for part in reads.values() for _, segment in part)
    by_rank = gather_objects(mine)
    for shard in shards.values():
        if shard.rule.vocabulary:
            shard.tensor.zero_()
    with _progress(mine, progress) as bar:
        for name, part in reads.items():
            with safe_open(found.folder / name, "pt") as handle:
                for shard, segment in part:
                    index = (slice(None),) * segment.dim + (slice(segment.run.start, segment.run.stop),)
                    part_of_param = shard.view(segment)
                    part_of_param.copy_(handle.get_slice(segment.tensor)[index])
                    if problem is None and not part_of_param.isfinite().all():
                        problem = _not_finite(segment.tensor, name)
                    bar.update(_slice_bytes(found, segment))
    raise_everywhere(problem)
    return LoadStats(len(shards), mine, tuple(by_rank), time.perf_counter() - started)
