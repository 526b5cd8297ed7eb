"""Seconds of a step by phase, from FLOPs, bytes and the efficiencies of ``gpus.Efficiency``.

Rough by nature: it ranks layouts and shows where the time goes. FLOP counts: 2 a parameter and token
for the matrix products, attention over half the sequence (causal), the state-space dual form for
Mamba (arXiv 2405.21060, section 6); backward twice the forward, full recomputation one forward more
(Korthikanti et al., arXiv 2205.05198, section 5).
"""

from dataclasses import dataclass

from igrpo_mcore.config.schema import Config, Correction, Recompute
from igrpo_mcore.planning.activations import SCAN_CHUNK
from igrpo_mcore.planning.catalogue import PlannedModel
from igrpo_mcore.planning.engine import EngineBytes, kv_bytes_per_token, sequence_bytes, state_bytes
from igrpo_mcore.planning.gpus import GPU, Efficiency
from igrpo_mcore.planning.layout import Layout, stages_of
from igrpo_mcore.planning.parameters import trainer_bytes
from igrpo_mcore.planning.refit import Refit
from igrpo_mcore.planning.workload import Lengths, RolloutStage, rollout_stages, update_of
from igrpo_mcore.policy.architecture import Architecture


@dataclass(frozen=True)
class TimePlan:
    """Seconds of a step by phase, named as the run's ``time/<name>_s``; rewards are not planned."""

    drafts: float
    refinements: float
    logprobs: float
    update: float
    push: float

    @property
    def step(self) -> float:
        return self.drafts + self.refinements + self.logprobs + self.update + self.push


def body_parameters(model: PlannedModel) -> int:
    """Parameters that every token multiplies: all but the embedding and the head."""
    a = model.architecture
    return model.table.parameters - a.vocab_size * a.hidden * (1 if a.tied_embeddings else 2)


def mixing_flops(architecture: Architecture, context: float) -> float:
    """FLOPs a token of attention over ``context`` earlier tokens, and of the Mamba scan."""
    a = architecture
    attention = a.pattern.count("*") * 4 * context * a.heads * a.head_dim
    if a.mamba is None:
        return attention
    inner, mixed = a.mamba.heads * a.mamba.head_dim, a.mamba.groups * a.mamba.state_dim
    scan = 2 * SCAN_CHUNK * (mixed + inner) + 4 * inner * a.mamba.state_dim
    return attention + a.pattern.count("M") * scan


def forward_flops(model: PlannedModel, tokens: float, head_rows: float, length: float) -> float:
    """Forward FLOPs of ``tokens`` in sequences of ``length``, with the LM head on ``head_rows``."""
    a = model.architecture
    body = tokens * (2 * body_parameters(model) + mixing_flops(a, length / 2))
    return body + head_rows * 2 * a.hidden * a.vocab_size


def rollout_seconds(
    model: PlannedModel,
    config: Config,
    layout: Layout,
    gpu: GPU,
    engine: EngineBytes,
    stage: RolloutStage,
    efficiency: Efficiency,
) -> float:
    """One sampling stage on the fullest engine: prefill bound by FLOPs, decoding by bytes.

    A decoding step reads the weights once and the cache of every running sequence. As many run as
    ``max_concurrent_sequences`` and the KV cache allow; the last ones run on to the completion budget.
    """
    a, tp = model.architecture, layout.rollout_tp
    prompts = -(-stage.prompts // layout.engines)
    sequences = prompts * stage.samples
    prefill = forward_flops(model, prompts * stage.prompt, prompts, stage.prompt) / (
        tp * gpu.tflops_bf16 * 1e12 * efficiency.prefill_flops
    )
    context = stage.prompt + stage.completion / 2
    room = max(1, engine.kv_cache // max(1, sequence_bytes(a, tp, int(context))))
    running = min(sequences, config.rollout.max_concurrent_sequences, room)
    tokens = sequences * stage.completion
    steps = max(config.rollout.max_completion_tokens, tokens / running)
    average = tokens / steps
    read = engine.weights + average * (kv_bytes_per_token(a, tp) * context + 2 * state_bytes(a, tp))
    by_bytes = read / (gpu.memory_gb_s * 1e9 * efficiency.decode_bandwidth)
    flops = average * (2 * body_parameters(model) + mixing_flops(a, context) + 2 * a.hidden * a.vocab_size)
    by_flops = flops / (tp * gpu.tflops_bf16 * 1e12 * efficiency.prefill_flops)
    return prefill + steps * (max(by_bytes, by_flops) + efficiency.decode_step_s)


def update_seconds(
    model: PlannedModel, config: Config, layout: Layout, gpu: GPU, lengths: Lengths, efficiency: Efficiency
) -> tuple[float, float]:
    """(update, one log-prob pass) of a step's sequences, pipeline bubble and reductions included."""
    work = update_of(config, lengths, layout.dp)
    rate = layout.world * gpu.tflops_bf16 * 1e12 * efficiency.update_flops
    forward = forward_flops(model, work.tokens_per_step, work.head_rows_per_step, work.mean_length) / rate
    head = work.head_rows_per_step * 2 * model.architecture.hidden * model.architecture.vocab_size / rate
    # Narayanan et al., arXiv 2104.04473, section 2.2: (p - 1) / (v m) of the ideal time
    bubble = 1 + (layout.pp - 1) / (layout.vpp * work.count)
    compute = 3 * forward + (forward - head if config.model.recompute == Recompute.full else 0)
    trainer = max(
        (trainer_bytes(model, layout, stage) for stage in stages_of(model.architecture, layout)),
        key=lambda t: t.total,
    )
    share = (layout.dp - 1) / layout.dp
    reduce_bytes = share * (trainer.gradients + trainer.parameters)
    reduce = reduce_bytes / _link(layout, gpu, layout.world, efficiency)
    # read main copy, moments and gradient, write all but the gradient, then the 16-bit copy
    optimizer = 2 * trainer.optimizer / (gpu.memory_gb_s * 1e9 * efficiency.optimizer_bandwidth)
    updates = config.train.passes * compute * bubble + config.train.updates_per_step * (reduce + optimizer)
    return updates, forward * bubble


def _link(layout: Layout, gpu: GPU, ranks: int, efficiency: Efficiency) -> float:
    """Bytes a second and GPU between ``ranks`` neighbouring ranks: NVLink inside a node, else the network."""
    inside = ranks <= layout.gpus_per_node
    return (gpu.nvlink_gb_s if inside else gpu.network_gb_s) * 1e9 * efficiency.link


def push_seconds(refit: Refit, layout: Layout, gpu: GPU, weights: int, efficiency: Efficiency) -> float:
    """One refit: each rank receives its share, then vLLM reads and writes its weights twice."""
    received = refit.bytes_moved / layout.world
    exchange = received / _link(layout, gpu, max(layout.tp * layout.pp, layout.rollout_tp), efficiency)
    return exchange + 4 * weights / (gpu.memory_gb_s * 1e9 * efficiency.optimizer_bandwidth)


def time_plan(
    model: PlannedModel,
    config: Config,
    layout: Layout,
    gpu: GPU,
    engine: EngineBytes,
    lengths: Lengths,
    refit: Refit,
    efficiency: Efficiency,
) -> TimePlan:
    """Seconds by phase at the given mean lengths."""
    sampled = {
        stage.name: rollout_seconds(model, config, layout, gpu, engine, stage, efficiency)
        for stage in rollout_stages(config, lengths)
    }
    update, forward = update_seconds(model, config, layout, gpu, lengths, efficiency)
    # with one update and no correction old log-probs are computed only where the parity gate is due
    needed = config.train.updates_per_step > 1 or config.objective.correction != Correction.none
    passes = 1.0 if needed else 1 / config.parity.every
    passes += 1.0 if config.objective.kl_coef else 0.0
    return TimePlan(
        drafts=sampled.get("drafts", 0.0),
        refinements=sampled["refinements"],
        logprobs=passes * forward,
        update=update,
        push=push_seconds(refit, layout, gpu, engine.weights, efficiency),
    )
