"""The push of the weights as ``Pusher`` plans it, from metadata alone."""

import itertools
from dataclasses import dataclass
from functools import cache

import torch

from igrpo_mcore.planning.catalogue import PlannedModel
from igrpo_mcore.planning.layout import Layout, stages_of
from igrpo_mcore.planning.parameters import engine_weight_bytes, held_by_stage, stage_parameters
from igrpo_mcore.weights.holdings import Holding
from igrpo_mcore.weights.push_plan import plan_push, wanted_by_engines


@dataclass(frozen=True)
class Refit:
    """One push: bytes that all ranks send together, and the most a rank holds for two buckets in flight."""

    bytes_moved: int
    bucket_bytes: int


@cache
def bounded_refit(model: PlannedModel, layout: Layout, bucket_bytes: int) -> Refit:
    """A bound in microseconds, for a search over many layouts.

    For a module a rank holds at most three copies of its engine share: sent, received, assembled.
    One that is larger than a bucket has a bucket of its own, beside that of its neighbour.
    """
    tensors = model.table.tensors
    itemsize = 4 if model.architecture.dtype == "float32" else 2
    modules = (sum(tensors[n].numel for n in group) for group in model.table.groups)
    buckets = [max(3 * numel * itemsize // layout.rollout_tp, bucket_bytes) for numel in modules]
    kept = sum(tensor.numel * itemsize for tensor in tensors.values() if tensor.padded_by_engine)
    moved = layout.world * engine_weight_bytes(model, layout.rollout_tp)
    return Refit(moved, max(map(sum, itertools.pairwise(buckets))) + kept)


@cache
def planned_refit(model: PlannedModel, layout: Layout, bucket_bytes: int) -> Refit:
    """Run the run's own reshard planner on the layout's metadata."""
    stages = stages_of(model.architecture, layout)
    itemsize = torch.float32 if model.architecture.dtype == "float32" else torch.bfloat16
    held: list[dict[str, Holding]] = []
    for rank in range(layout.world):
        tp_rank, index = layout.coordinates(rank)
        stage = stages[index]
        parameters = {p.name: p for p in stage_parameters(model, layout, stage)}
        holdings = {}
        for rule in held_by_stage(model, layout, stage):
            parameter = parameters[rule.param]
            length = parameter.shape[rule.dim] if rule.dim is not None else 0
            dtype = torch.float32 if parameter.bytes_each == 4 else itemsize
            holdings[rule.param] = Holding(tuple(rule.segments(tp_rank, layout.tp, length)), dtype)
        held.append(holdings)
    plan = plan_push(model.table, held, 0, wanted_by_engines(layout.rollout_tp), bucket_bytes, itemsize)
    return Refit(plan.bytes_moved, plan.extra_peak)
