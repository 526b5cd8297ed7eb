"""What an update measured: of its micro-batches, and as one figure each on every rank."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from megatron.core import parallel_state as mpu
from torch import Tensor

from igrpo_mcore.objective.correction import ImportanceInUpdate, ImportanceStats, added

MEAN_METRICS = ("clip_fraction_low", "clip_fraction_high", "kl", "neg_log_ratio", "entropy")
COUNTS = ("row_tokens", "row_pairs", "head_rows")
"""What an update computed: tokens of its rows, the tokens that they saw (``PackedRow``), rows that left
the LM head."""


@dataclass(frozen=True)
class UpdateStats:
    """One optimizer update.

    ``tokens`` are of the sequences that carry a gradient, ``batch_tokens`` of all; ``metrics`` are means
    over the response tokens of the former (0 where there are none), and ``importance`` is of the weights
    that the update made itself. ``flops`` are of all ranks. ``skipped``: loss or gradient were not finite,
    and nothing was changed.
    """

    loss: float
    grad_norm: float
    lr: float
    tokens: int
    batch_tokens: int
    head_rows: int
    flops: int
    metrics: dict[str, float]
    importance: ImportanceStats | None = None
    skipped: bool = False


def _of_all_ranks(mine: Tensor, operation: dist.ReduceOp.RedOpType = dist.ReduceOp.SUM) -> list[float]:
    """From the last stage's data-parallel ranks to every rank."""
    if mpu.is_pipeline_last_stage(ignore_virtual=True):
        dist.all_reduce(mine, operation, group=mpu.get_data_parallel_group())
    if mpu.get_pipeline_model_parallel_world_size() > 1:
        dist.broadcast(
            mine, mpu.get_pipeline_model_parallel_last_rank(), mpu.get_pipeline_model_parallel_group()
        )
    return mine.tolist()


def update_totals(
    collected: Sequence[Mapping[str, Tensor | int]], device: torch.device
) -> tuple[float, dict[str, float]]:
    """The loss; token-weighted means of ``MEAN_METRICS``, and ``COUNTS``. Collective.

    Args:
        collected: a micro-batch's "loss", "tokens" and ``MEAN_METRICS`` (0-d) and ``COUNTS``.
    """
    names = (*MEAN_METRICS, "tokens", "loss")
    total = torch.zeros(len(names) + len(COUNTS), dtype=torch.float64)
    if collected:  # to the host in one copy
        measured = [torch.stack([torch.as_tensor(e[n]).double() for n in names]) for e in collected]
        for entry, counts in zip(torch.stack(measured).cpu(), collected, strict=True):
            means, tokens = entry[: len(MEAN_METRICS)], entry[-2]
            means.copy_(tokens * means if tokens else torch.zeros_like(means))
            total += torch.cat([entry, torch.tensor([float(counts[name]) for name in COUNTS]).double()])
    found = dict(zip((*names, *COUNTS), _of_all_ranks(total.to(device)), strict=True))
    averages = {name: found[name] / max(found["tokens"], 1.0) for name in MEAN_METRICS}
    return found["loss"], averages | {name: found[name] for name in COUNTS}


def importance_totals(importance: object, device: torch.device) -> ImportanceStats | None:
    """What is logged of weights that an update made itself, over all ranks; none of others. Collective."""
    if not isinstance(importance, ImportanceInUpdate):
        return None
    mine = added([torch.zeros(5, dtype=torch.float64, device=device), *importance.sums])
    summed = _of_all_ranks(mine[:4].clone())
    return ImportanceStats.of([*summed, *_of_all_ranks(mine[4:].clone(), dist.ReduceOp.MAX)])
