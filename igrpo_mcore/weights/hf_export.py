"""The policy as a Hugging Face folder, written in parallel by the ranks that own the tensors."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor, nn

from igrpo_mcore.collective import gather_objects, raise_everywhere
from igrpo_mcore.errors import UserError
from igrpo_mcore.families import table_for
from igrpo_mcore.weights.checkpoint import INDEX, SINGLE, resolve_checkpoint
from igrpo_mcore.weights.holdings import exchange_holdings
from igrpo_mcore.weights.local import locate_shards
from igrpo_mcore.weights.push_plan import PushPlan, plan_push, wanted_by_writers
from igrpo_mcore.weights.table import Table
from igrpo_mcore.weights.transport import Meter, Transport

MAX_FILE_BYTES = 4 << 30
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".index.json")


@dataclass(frozen=True)
class ExportStats:
    """Tensor bytes and weight files of the whole folder."""

    total_bytes: int
    files: tuple[str, ...]


def _files_of_rank(table: Table, plan: PushPlan, dtype: torch.dtype, limit: int) -> list[list[str]]:
    """Tensor names of each file that this rank writes, in the order they arrive."""
    files: list[list[str]] = []
    size = limit
    for bucket in plan.buckets:
        for arrival in bucket.arrivals:
            tensor = table.tensors[arrival.tensor]
            bytes_ = tensor.run_bytes(tensor.whole, dtype)
            if size + bytes_ > limit:
                files.append([])
                size = 0
            files[-1].append(arrival.tensor)
            size += bytes_
    return files


def _copy_everything_else(source: Path, out: Path, dtype: torch.dtype) -> None:
    """Tokenizer, generation config and the rest; config.json with the type that is written."""
    for file in sorted(source.iterdir()):
        if file.is_file() and not file.name.endswith(_WEIGHTS) and file.name != "config.json":
            shutil.copyfile(file, out / file.name)
    config = json.loads((source / "config.json").read_text())
    config.pop("torch_dtype", None)
    config["dtype"] = str(dtype).removeprefix("torch.")
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def _prepare(source: Path, out: Path) -> None:
    if not (source / "config.json").is_file():
        raise UserError(
            f"{source} has no config.json to export with; name the checkpoint the run started from"
        )
    if out.exists() and any(out.iterdir()):
        raise UserError(f"export folder {out} is not empty; choose a new one with --out")
    out.mkdir(parents=True, exist_ok=True)


@torch.no_grad()
def export_hf(
    chunks: Sequence[nn.Module],
    hf_config: Any,
    checkpoint_src: str | Path,
    out_dir: str | Path,
    dtype: torch.dtype = torch.bfloat16,
    *,
    bucket_bytes: int = 512 << 20,
    max_file_bytes: int = MAX_FILE_BYTES,
) -> ExportStats:
    """Write the policy as sharded safetensors with config, tokenizer and generation config. Collective.

    Every tensor is gathered on one of the ranks that hold part of it and written there, at most
    ``max_file_bytes`` at a time. All ranks must see the same file system. The few tensors that
    Megatron keeps in float32 (Mamba's A_log, D, dt_bias) stay so in a bf16 export.

    Args:
        checkpoint_src: folder or hub id whose config and tokenizer belong to the policy.
        out_dir: new or empty folder.

    Raises:
        UserError: on every rank, for a folder that is not empty or a source without config.json.
    """
    rank = dist.get_rank() if dist.is_initialized() else 0
    out, problem = Path(out_dir), None
    try:
        source = resolve_checkpoint(checkpoint_src)
        if rank == 0:
            _prepare(source, out)
    except (UserError, OSError) as error:
        problem = str(error)
    raise_everywhere(problem)
    table = table_for(hf_config)
    shards = locate_shards(chunks, table)
    held = exchange_holdings(shards)
    plan = plan_push(table, held, rank, wanted_by_writers(table, held), bucket_bytes, dtype)
    mine = _files_of_rank(table, plan, dtype, max_file_bytes)
    counts = gather_objects(len(mine))
    total, first = sum(counts), sum(counts[:rank]) + 1

    def file_name(i: int) -> str:
        return SINGLE if total == 1 else f"model-{first + i:05d}-of-{total:05d}.safetensors"

    pending: dict[str, Tensor] = {}
    written = 0
    number = 0
    for name, tensor in Transport(table, shards, plan, dtype).stream(Meter()):
        pending[name] = tensor.contiguous().cpu()
        if len(pending) == len(mine[number]):
            save_file(pending, out / file_name(number), metadata={"format": "pt"})
            written += sum(t.nbytes for t in pending.values())
            pending, number = {}, number + 1
    where = {name: file_name(i) for i, names in enumerate(mine) for name in names}
    everywhere = gather_objects((where, written))
    total_bytes = sum(w for _, w in everywhere)
    weight_map = {name: file for part, _ in everywhere for name, file in part.items()}
    if rank == 0:
        if total > 1:
            index = {"metadata": {"total_size": total_bytes}, "weight_map": dict(sorted(weight_map.items()))}
            (out / INDEX).write_text(json.dumps(index, indent=2) + "\n")
        _copy_everything_else(source, out, dtype)
    if dist.is_initialized():
        dist.barrier()
    return ExportStats(total_bytes, tuple(sorted(set(weight_map.values()))))
