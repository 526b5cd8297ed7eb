"""The one collective of a vocabulary-parallel loss."""

from __future__ import annotations

import torch
import torch.distributed as dist


def all_gather_stats(stats_4T: torch.Tensor, tp_group: dist.ProcessGroup | None) -> torch.Tensor:
    """Row statistics of every tensor-parallel rank in rank order, [W, 4, T]; [1, 4, T] without a group."""
    T = stats_4T.shape[1]
    if tp_group is None or tp_group.size() == 1 or T == 0:
        return stats_4T.expand(1 if tp_group is None else tp_group.size(), 4, T)
    stats_WT = stats_4T.new_empty(tp_group.size() * 4, T)
    dist.all_gather_single(stats_WT, stats_4T, group=tp_group)
    return stats_WT.view(-1, 4, T)
