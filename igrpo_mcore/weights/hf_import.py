"""Hugging Face safetensors into the policy: each rank reads only its own slices."""

import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import safe_open
from torch import Tensor, nn

from igrpo_mcore.collective import raise_everywhere
from igrpo_mcore.errors import UserError
from igrpo_mcore.families import table_for
from igrpo_mcore.weights.checkpoint import check_against_table, open_checkpoint, resolve_checkpoint
from igrpo_mcore.weights.local import locate_shards
from igrpo_mcore.weights.rules import Segment

_DTYPES = ("F64", "F32", "F16", "BF16")


def _not_finite(tensor: str, file: str) -> str:
    return (
        f"checkpoint tensor {tensor} holds NaN or infinite values ({file}); fetch the checkpoint again, or "
        "take one from before its training diverged"
    )


def _progress(total: int):
    from tqdm import tqdm

    on = sys.stderr.isatty() and (not dist.is_initialized() or dist.get_rank() == 0)
    return tqdm(total=total, unit="B", unit_scale=True, desc="weights", disable=not on)


@torch.no_grad()
def load_hf_weights(chunks: Sequence[nn.Module], checkpoint: str | Path, hf_config: Any) -> None:
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
    table = table_for(hf_config)
    found = None
    problem = None
    try:
        found = open_checkpoint(resolve_checkpoint(checkpoint))
        check_against_table(found, table)
        odd = {name: d for name, d in found.dtypes.items() if name in table.tensors and d not in _DTYPES}
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
    places: dict[str, list[tuple[Segment, Tensor]]] = defaultdict(list)  # by file
    for shard in shards.values():
        if shard.rule.vocabulary:
            shard.tensor.zero_()
        for segment in shard.segments:
            places[found.files[segment.tensor]].append((segment, shard.view(segment)))
    with _progress(sum(place.nbytes for part in places.values() for _, place in part)) as bar:
        for name, part in sorted(places.items()):
            with safe_open(found.folder / name, "pt") as handle:
                for segment, place in part:
                    before = (slice(None),) * table.tensors[segment.tensor].dim
                    run = slice(segment.run.start, segment.run.stop)
                    place.copy_(handle.get_slice(segment.tensor)[(*before, run)])
                    if problem is None and not place.isfinite().all():
                        problem = _not_finite(segment.tensor, name)
                    bar.update(place.nbytes)
    raise_everywhere(problem)
