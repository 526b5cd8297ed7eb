"""Exact parameter, gradient and optimizer bytes of each rank, from the run's own weight tables."""

import itertools
import math
import re
from dataclasses import dataclass
from functools import cache

from igrpo_mcore.planning.catalogue import PlannedModel, itemsize
from igrpo_mcore.planning.layout import Layout, Stage, stages_of
from igrpo_mcore.policy.architecture import padded_vocab_size
from igrpo_mcore.weights.rules import Rule
from igrpo_mcore.weights.table import EMBEDDING, OUTPUT

_LAYER = re.compile(r"^decoder\.layers\.(\d+)\.")
# megatron.core.ssm.mamba_mixer creates these in fp32 whatever the parameter type ("Keep in fp32")
_FP32_SUFFIXES = (".mixer.A_log", ".mixer.D")
# megatron.core.optimizer.param_layout: starts of parameters, ends of buckets; elements
_PARAMETER_ALIGNMENT = 64
_BUCKET_ALIGNMENT = 128


@dataclass(frozen=True)
class Parameter:
    """One parameter as a rank of a stage holds it; ``padding`` are vocabulary rows that no token has.

    ``shared`` marks a tied embedding that two stages hold; ``chunk`` is the virtual chunk it is in.
    """

    name: str
    shape: tuple[int, ...]
    padding: int
    bytes_each: int
    shared: bool
    chunk: int

    @property
    def numel(self) -> int:
        """Elements, padding included."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class TrainerBytes:
    """What the trainer keeps on one rank through every phase, bytes.

    ``parameters`` and ``gradients`` are Megatron's contiguous DDP buffers, alignment included;
    ``optimizer`` is the data-parallel share: fp32 main copy (of 16-bit parameters) and two moments.
    """

    parameters: int
    gradients: int
    optimizer: int

    @property
    def total(self) -> int:
        return self.parameters + self.gradients + self.optimizer


def held_by_stage(model: PlannedModel, layout: Layout, stage: Stage) -> list[Rule]:
    """The table's rules that a stage holds; a tied head lives on the last stage as a second copy."""
    layers = set(stage.layers)
    found = []
    for rule in model.table.rules:
        layer = _LAYER.match(rule.param)
        if layer:
            held = int(layer[1]) in layers
        elif rule.param == EMBEDDING:
            held = stage.first
        elif rule.param == OUTPUT:
            held = stage.last and not (model.table.tied and layout.pp == 1)
        else:
            held = stage.last
        if held:
            found.append(rule)
    return found


@cache
def stage_parameters(model: PlannedModel, layout: Layout, stage: Stage) -> tuple[Parameter, ...]:
    """The parameters of each tensor-parallel rank of a stage (all ranks hold equal shapes)."""
    each = itemsize(model.architecture)
    rows = padded_vocab_size(model.architecture, layout.tp) // layout.tp
    found = []
    for rule in held_by_stage(model, layout, stage):
        shape, padding = rule.local_shape(layout.tp), 0
        if rule.vocabulary:
            padding = rows * layout.tp - rule.tensors[0].shape[0]
            shape = (rows, *shape[1:])
        shared = model.table.tied and layout.pp > 1 and rule.param in (EMBEDDING, OUTPUT)
        bytes_each = 4 if rule.param.endswith(_FP32_SUFFIXES) else each
        layer = _LAYER.match(rule.param)
        if layer:
            chunk = next(i for i, layers in enumerate(stage.chunks) if int(layer[1]) in layers)
        else:
            chunk = 0 if rule.param == EMBEDDING else len(stage.chunks) - 1
        found.append(Parameter(rule.param, shape, padding, bytes_each, shared, chunk))
    return tuple(found)


def _aligned(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _buckets(parameters: list[Parameter], dp: int) -> tuple[int, list[tuple[int, int, int, int]]]:
    """Buffer length and (start, end, bucket start, bucket end) of each parameter, elements.

    Follows ``DistributedOptimizer._compute_per_buffer_param_layout``: last parameter first, one
    bucket a buffer, a shared embedding in a bucket of its own.
    """
    divisor = math.lcm(dp, _BUCKET_ALIGNMENT)
    spans: list[tuple[int, int, int]] = []  # start, end, bucket
    ends: list[tuple[int, int]] = []
    position = bucket_start = open_count = 0

    def close(end: int) -> int:
        nonlocal bucket_start, open_count
        padded = _aligned(end, divisor)
        ends.append((bucket_start, padded))
        bucket_start, open_count = padded, 0
        return padded

    for parameter in reversed(parameters):
        position = _aligned(position, _PARAMETER_ALIGNMENT)
        if parameter.shared and open_count:
            position = close(position)
        spans.append((position, position + parameter.numel, len(ends)))
        position += parameter.numel
        open_count += 1
        if parameter.shared:
            position = close(position)
    if open_count:
        position = close(position)
    return position, [(a, b, *ends[i]) for a, b, i in spans]


@cache
def trainer_bytes(model: PlannedModel, layout: Layout, stage: Stage, dp_rank: int = 0) -> TrainerBytes:
    """Bytes on a rank of ``stage`` at data-parallel rank ``dp_rank`` (rank 0 holds the most).

    Gradients are fp32 (``grad_reduce_in_fp32``); optimizer state is 12 bytes a 16-bit parameter (main
    copy, two moments), 8 bytes an fp32 one, each divided over data-parallel ranks bucket by bucket.
    """
    parameters = gradients = optimizer = 0
    held = stage_parameters(model, layout, stage)
    for chunk, size in itertools.product(range(len(stage.chunks)), (2, 4)):
        group = [p for p in held if p.chunk == chunk and p.bytes_each == size]
        if not group:
            continue
        length, spans = _buckets(group, layout.dp)
        parameters += length * size
        gradients += length * 4
        for start, end, bucket_start, bucket_end in spans:
            share = (bucket_end - bucket_start) // layout.dp
            mine = bucket_start + dp_rank * share
            kept = max(0, min(end, mine + share) - max(start, mine))
            optimizer += kept * (12 if size == 2 else 8)
    return TrainerBytes(parameters, gradients, optimizer)


@cache
def largest_weight_gradient(model: PlannedModel, layout: Layout, stage: Stage) -> int:
    """Bytes of the largest weight gradient: autograd makes it before it is added to the fp32 buffer."""
    return max(p.numel * p.bytes_each for p in stage_parameters(model, layout, stage))


@cache
def engine_weight_bytes(model: PlannedModel, rollout_tp: int) -> int:
    """Weights of the fullest rank of a rollout engine, bytes (replicated key-value heads included)."""
    each = itemsize(model.architecture)

    def held(rank: int) -> int:
        total = 0
        for tensor in model.table.tensors.values():
            along = sum(run.length for run in tensor.engine_runs(rank, rollout_tp))
            size = 4 if tensor.keep_dtype else each
            total += tensor.numel // tensor.shape[tensor.dim] * along * size
        return total

    return max(held(rank) for rank in range(rollout_tp))


def fullest_stage_bytes(model: PlannedModel, layout: Layout) -> int:
    """Largest ``TrainerBytes.total`` over the stages."""
    return max(trainer_bytes(model, layout, s).total for s in stages_of(model.architecture, layout))
