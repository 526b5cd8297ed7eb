"""Memory of the fullest rank in each phase of a step. Phases never add up: each has the GPU to itself.

What stays throughout: bf16 parameters, the CUDA context and NCCL's buffers, and fp32 gradients and
the optimizer's share (Megatron frees none of them), unless ``model.offload_optimizer`` leaves those
to the update alone. The engine's weights and cache are there in the
rollout phase only, its weights already in the refit (sleep level 2 discards both before the
log-probs); its CUDA graphs stay while it sleeps, being outside its sleeping pool.
"""

from dataclasses import dataclass, field

from igrpo_mcore.config.schema import Config, Recompute
from igrpo_mcore.planning import activations as act
from igrpo_mcore.planning.catalogue import PlannedModel, itemsize
from igrpo_mcore.planning.engine import EngineBytes, engine_bytes
from igrpo_mcore.planning.gpus import GIB, GPU
from igrpo_mcore.planning.layout import Layout, Stage, stages_of
from igrpo_mcore.planning.lora import trained_bytes
from igrpo_mcore.planning.parameters import TrainerBytes, largest_weight_gradient
from igrpo_mcore.planning.refit import Refit
from igrpo_mcore.planning.workload import Lengths, largest_micro_batch, most_head_rows, update_of
from igrpo_mcore.policy.architecture import padded_vocab_size

CONTEXT_BYTES = int(0.6 * GIB)
"""CUDA context, loaded kernels and cuBLAS workspaces of one process. Assumed."""
COMMUNICATOR_BYTES = int(0.2 * GIB)
"""Buffers of one NCCL communicator that a rank is part of. Assumed."""
FRAGMENTATION = 0.05
"""Share that the caching allocator adds to what comes and goes in a phase. Assumed."""

PHASES = ("rollout", "refit", "logprobs", "update")


@dataclass(frozen=True)
class PhaseMemory:
    """One phase on its fullest rank: bytes by part, in bar order; ``stage`` is its pipeline stage."""

    name: str
    parts: dict[str, int]
    stage: int = 0

    @property
    def total(self) -> int:
        return sum(self.parts.values())


@dataclass(frozen=True)
class MemoryPlan:
    """All phases against one GPU. ``problem`` is why the engine would not start, if it would not."""

    capacity: int
    phases: tuple[PhaseMemory, ...]
    engine: EngineBytes
    problem: str | None = field(default=None)

    @property
    def peak(self) -> PhaseMemory:
        return max(self.phases, key=lambda phase: phase.total)

    @property
    def margin(self) -> int:
        """Bytes that the peak phase leaves free; negative where it does not fit."""
        return self.capacity - self.peak.total

    @property
    def fits(self) -> bool:
        return self.margin >= 0 and self.problem is None

    def phase(self, name: str) -> PhaseMemory:
        return next(phase for phase in self.phases if phase.name == name)


def in_flight(layout: Layout, stage: int, micro_batches: int) -> float:
    """Micro-batches whose activations a stage holds at once, in units of all its layers.

    1F1B: stage s of p holds p - s (Narayanan et al., arXiv 2104.04473, section 2.2); interleaved, it
    warms up on 2 (p - s - 1) + (v - 1) p chunks of a v-th of its layers each and runs one more
    (``get_pp_rank_microbatches``).
    """
    p, v = layout.pp, layout.vpp
    if p == 1:
        return 1.0
    if v == 1:
        return float(min(micro_batches, p - stage))
    return min(micro_batches * v, 2 * (p - stage - 1) + (v - 1) * p + 1) / v


def communicators(layout: Layout) -> int:
    """NCCL communicators of a rank: world, TP, DP, PP, and the engine's TP group."""
    return 1 + sum(size > 1 for size in (layout.tp, layout.dp, layout.pp, layout.rollout_tp))


def _resident(trainer: TrainerBytes, layout: Layout) -> dict[str, int]:
    return {
        "parameters": trainer.parameters,
        "gradients": trainer.gradients,
        "optimizer": trainer.optimizer,
        "context": CONTEXT_BYTES + COMMUNICATOR_BYTES * communicators(layout),
    }


def _without_optimizer(parts: dict[str, int]) -> dict[str, int]:
    return {part: size for part, size in parts.items() if part not in ("gradients", "optimizer")}


def _shape(model: PlannedModel, layout: Layout) -> act.Shape:
    return act.Shape(model.architecture, layout.tp, layout.sp)


def update_activations(
    model: PlannedModel, config: Config, layout: Layout, stage: Stage, lengths: Lengths
) -> dict[str, int]:
    """Activations, logits and workspace at the worst moment of the update on a rank of ``stage``.

    Two moments compete: the LM head and loss of the newest micro-batch, and the backward of its most
    expensive layer, each beside the saved activations of all micro-batches in flight.
    """
    shape = _shape(model, layout)
    tokens = largest_micro_batch(config, layout.tp)
    full = config.model.recompute == Recompute.full
    layers = [act.checkpoint_of_layer(shape) if full else act.saved_by_layer(s, shape) for s in stage.symbols]
    kept = sum(layers) * in_flight(layout, stage.index, update_of(config, lengths, layout.dp).count)
    if stage.first:
        kept += act.embedding_saved(shape)
    saved = kept * tokens
    head = _head(model, config, layout, stage, lengths, tokens, gradient=True)
    recomputed = max(
        ((act.saved_by_layer(s, shape) if full else 0) + act.backward_workspace(s, shape)) * tokens
        for s in set(stage.symbols)
    )
    if stage.last:
        saved += act.final_norm_saved(shape) * tokens
    weight_gradient = largest_weight_gradient(model, layout, stage)
    parts = {"activations": saved, "logits": 0.0, "workspace": recomputed + weight_gradient}
    if head + weight_gradient > recomputed + weight_gradient:
        parts |= {"logits": head, "workspace": weight_gradient}
    return {name: int(size * (1 + FRAGMENTATION)) for name, size in parts.items()}


def forward_activations(
    model: PlannedModel, config: Config, layout: Layout, stage: Stage, lengths: Lengths
) -> dict[str, int]:
    """The same without gradient: one layer's tensors beside the residual stream, then the logits."""
    shape = _shape(model, layout)
    tokens = largest_micro_batch(config, layout.tp)
    widest = max(act.saved_by_layer(s, shape) for s in set(stage.symbols)) * tokens
    stream = (act.embedding_saved(shape) + 2 * act.checkpoint_of_layer(shape)) * tokens
    head = _head(model, config, layout, stage, lengths, tokens, gradient=False)
    parts = {"activations": stream, "logits": 0.0, "workspace": widest}
    if head > widest:
        parts |= {"logits": head, "workspace": 0.0}
    return {name: int(size * (1 + FRAGMENTATION)) for name, size in parts.items()}


def _head(
    model: PlannedModel,
    config: Config,
    layout: Layout,
    stage: Stage,
    lengths: Lengths,
    tokens: int,
    *,
    gradient: bool,
) -> float:
    if not stage.last:
        return 0.0
    shape = _shape(model, layout)
    columns = padded_vocab_size(model.architecture, layout.tp) // layout.tp
    rows = most_head_rows(config, lengths, tokens)
    if config.model.fused_head:
        fused = act.fused_head_bytes(shape, columns, rows, gradient=gradient)
        return fused + act.head_bytes_per_token(shape) * tokens
    return act.head_bytes(shape, columns) * rows + act.head_bytes_per_token(shape) * tokens


def memory_plan(
    model: PlannedModel, config: Config, layout: Layout, gpu: GPU, lengths: Lengths, refit: Refit
) -> MemoryPlan:
    """Each phase on its fullest rank."""
    engine = engine_bytes(model, config, gpu)
    stages = stages_of(model.architecture, layout)
    training = [_resident(trained_bytes(model, layout, stage, config.lora), layout) for stage in stages]
    offloads = config.model.offload_optimizer
    residents = [_without_optimizer(parts) for parts in training] if offloads else training
    fullest = max(range(len(stages)), key=lambda i: sum(residents[i].values()))
    asleep = {"engine graphs": engine.graphs}

    rollout = PhaseMemory(
        "rollout",
        residents[fullest]
        | {
            "engine weights": engine.weights,
            "engine activations": engine.activations,
            "engine graphs": engine.graphs,
            "KV cache": max(0, engine.kv_cache),
        },
        fullest,
    )
    # vLLM fills a fresh copy of the module that it reloads, then copies it in place
    push = PhaseMemory(
        "refit",
        residents[fullest]
        | asleep
        | {
            "engine weights": engine.weights,
            "buckets": refit.bucket_bytes,
            "reload copy": _largest_module(model, layout.rollout_tp),
        },
        fullest,
    )
    steps = []
    for name, phase, held in (
        ("logprobs", forward_activations, residents),
        ("update", update_activations, training),
    ):
        candidates = [
            PhaseMemory(name, held[i] | asleep | phase(model, config, layout, stage, lengths), i)
            for i, stage in enumerate(stages)
        ]
        steps.append(max(candidates, key=lambda c: c.total))
    return MemoryPlan(gpu.memory_bytes, (rollout, push, *steps), engine, _problem(config, engine))


def _largest_module(model: PlannedModel, tp: int) -> int:
    each = itemsize(model.architecture)
    tensors = model.table.tensors
    return max(sum(tensors[n].numel for n in group) for group in model.table.groups) * each // tp


def _problem(config: Config, engine: EngineBytes) -> str | None:
    if not engine.refused:
        return None
    fraction = config.rollout.memory_fraction
    if engine.kv_cache < 0:
        return f"rollout.memory_fraction={fraction:g} does not even hold the engine's weights and activations"
    return f"rollout.memory_fraction={fraction:g} leaves a KV cache too small for one sequence"
