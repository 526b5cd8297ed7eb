"""Seconds of a rollout on the fullest engine."""

from collections.abc import Sequence

from igrpo_mcore.config.schema import Config, Schedule
from igrpo_mcore.families.architecture import Architecture
from igrpo_mcore.planning.batching import Decoding
from igrpo_mcore.planning.catalogue import PlannedModel, itemsize
from igrpo_mcore.planning.collectives import link_peak, reduce_seconds
from igrpo_mcore.planning.efficiency import Efficiency
from igrpo_mcore.planning.engine import EngineBytes, cache_tokens, kv_bytes_per_token, state_bytes
from igrpo_mcore.planning.flops import body_parameters, forward_flops, head_flops, mixing_flops
from igrpo_mcore.planning.gpus import GPU
from igrpo_mcore.planning.layout import Layout
from igrpo_mcore.planning.schedules import EngineStage, decode
from igrpo_mcore.planning.workload import RolloutStage

DRAWS = 4
"""Ways to deal lengths to prompts that a schedule's seconds are the mean of."""


def engine_reduce_seconds(
    architecture: Architecture, rows: float, layout: Layout, gpu: GPU, efficiency: Efficiency
) -> float:
    """vLLM's all-reduces of a forward pass of ``rows`` tokens: one after the embedding and each layer."""
    a, tp = architecture, layout.rollout_tp
    peak = link_peak(gpu, tp, layout.gpus_per_node)
    return (a.layers + 1) * reduce_seconds(rows * a.hidden * itemsize(a), tp, peak, efficiency)


def prefill_seconds(
    model: PlannedModel, tokens: float, length: float, layout: Layout, gpu: GPU, efficiency: Efficiency
) -> float:
    """``tokens`` of prompts of ``length``, in passes of ``gpu.engine_prefill_tokens``; bound by FLOPs."""
    rate = layout.rollout_tp * gpu.tflops_bf16 * 1e12 * efficiency.prefill_flops
    rows = min(tokens, gpu.engine_prefill_tokens)
    reduces = engine_reduce_seconds(model.architecture, rows, layout, gpu, efficiency) * tokens / max(1, rows)
    return forward_flops(model, tokens, tokens / length, length) / rate + reduces


def decode_step_seconds(
    model: PlannedModel,
    sequences: float,
    cached: float,
    layout: Layout,
    gpu: GPU,
    engine: EngineBytes,
    efficiency: Efficiency,
) -> float:
    """One decoding step: it reads the weights once and the cache of every running sequence, or its FLOPs
    take longer; then its all-reduces and what no byte explains."""
    a, tp = model.architecture, layout.rollout_tp
    read = engine.weights + cached * kv_bytes_per_token(a, tp) + sequences * 2 * state_bytes(a, tp)
    by_bytes = read / (gpu.memory_gb_s * 1e9 * efficiency.decode_bandwidth)
    context = cached / sequences
    flops = sequences * (2 * body_parameters(model) + mixing_flops(a, context)) + head_flops(model, sequences)
    by_flops = flops / (tp * gpu.tflops_bf16 * 1e12 * efficiency.prefill_flops)
    reduces = engine_reduce_seconds(a, sequences, layout, gpu, efficiency)
    return max(by_bytes, by_flops) + reduces + efficiency.decode_step_s


def rollout_seconds(
    model: PlannedModel,
    config: Config,
    layout: Layout,
    gpu: GPU,
    engine: EngineBytes,
    stages: Sequence[RolloutStage],
    efficiency: Efficiency,
) -> list[float]:
    """Prefill (a prompt once for all its samples: prefix cache) and decoding, seconds by stage.

    Stages that run at the same time share a step by the number of their sequences, as a run books them
    (``StageClock``).
    """
    a, rollout = model.architecture, config.rollout
    prompts = -(-stages[0].prompts // layout.engines)
    room, besides = cache_tokens(a, layout.rollout_tp, engine.kv_cache)
    cap = rollout.max_completion_tokens
    shapes = tuple(EngineStage(s.samples, s.prompt, s.mean, cap, s.budget) for s in stages)
    exits = 1 - rollout.whole_prompts if rollout.draft_early_exit else 0.0
    # the lengths of a stage are the same in every draw, so draws differ where stages meet or drafts are ended
    met = rollout.schedule != Schedule.barrier or exits
    draws = DRAWS if met and len(stages) > 1 else 1

    def seconds(run: Decoding) -> float:
        step = decode_step_seconds(model, run.sequences, run.tokens, layout, gpu, engine, efficiency)
        again = prefill_seconds(model, run.recomputed, stages[-1].prompt, layout, gpu, efficiency)
        return run.steps * step + again

    found = [prefill_seconds(model, prompts * s.prompt, s.prompt, layout, gpu, efficiency) for s in stages]
    most = rollout.max_concurrent_sequences
    for draw in range(draws):
        runs = decode(rollout.schedule, exits, prompts, shapes, room, besides, most, draw)
        parts = [seconds(run) * share for run in runs for share in run.shares]
        found = [total + part / draws for total, part in zip(found, parts, strict=True)]
    return found
