"""Seconds of the update and of a log-prob pass on the trainer's layout.

Backward is twice the forward, full recomputation one forward more (Korthikanti et al., arXiv
2205.05198, section 5); no collective is counted as hidden behind a product.
"""

from igrpo_mcore.config.schema import Config, LoRAConfig, Recompute
from igrpo_mcore.planning.catalogue import PlannedModel, itemsize
from igrpo_mcore.planning.collectives import gather_seconds, link_peak, reduce_seconds, send_seconds
from igrpo_mcore.planning.efficiency import Efficiency
from igrpo_mcore.planning.flops import forward_flops, head_flops
from igrpo_mcore.planning.gpus import GPU
from igrpo_mcore.planning.layout import Layout, stages_of
from igrpo_mcore.planning.lora import trained_bytes
from igrpo_mcore.planning.parameters import TrainerBytes
from igrpo_mcore.planning.workload import Lengths, update_of


def fullest_trainer(model: PlannedModel, layout: Layout, lora: LoRAConfig | None = None) -> TrainerBytes:
    """Of the stage that holds most."""
    stages, options = stages_of(model.architecture, layout), lora or LoRAConfig()
    return max((trained_bytes(model, layout, stage, options) for stage in stages), key=lambda t: t.total)


def tensor_parallel_seconds(
    model: PlannedModel, layout: Layout, gpu: GPU, tokens: float, efficiency: Efficiency
) -> tuple[float, float]:
    """(forward, backward) collectives of one micro-batch of ``tokens`` on one stage.

    A layer ends in a row-parallel product: with sequence parallelism an all-gather before it and a
    reduce-scatter after it, in backward the same and the input gathered again for the weight gradient
    (Korthikanti et al., section 4.2.2); without, one all-reduce each way.
    """
    a, tp = model.architecture, layout.tp
    peak = link_peak(gpu, tp, layout.gpus_per_node)
    size, layers = tokens * a.hidden * itemsize(a), a.layers / layout.pp
    if layout.sp:
        gather = gather_seconds(size, tp, peak, efficiency)
        return 2 * layers * gather, 3 * layers * gather
    reduce = reduce_seconds(size, tp, peak, efficiency)
    return layers * reduce, layers * reduce


def pipeline_seconds(
    model: PlannedModel, layout: Layout, gpu: GPU, tokens: float, efficiency: Efficiency
) -> float:
    """Handing one micro-batch from stage to stage, one way, through every virtual chunk of a rank."""
    if layout.pp == 1:
        return 0.0
    a = model.architecture
    neighbours = layout.tp * layout.dp + 1  # ranks of two stages are that far apart
    peak = link_peak(gpu, neighbours, layout.gpus_per_node)
    size = tokens * a.hidden * itemsize(a) / (layout.tp if layout.sp else 1)
    return layout.vpp * send_seconds(size, peak, efficiency)


def gradient_seconds(trainer: TrainerBytes, layout: Layout, gpu: GPU, efficiency: Efficiency) -> float:
    """Reduce-scatter of the fp32 gradients and all-gather of the parameters, once an update."""
    peak = link_peak(gpu, layout.world, layout.gpus_per_node)
    sizes = (trainer.gradients, trainer.parameters)
    return sum(gather_seconds(size, layout.dp, peak, efficiency) for size in sizes)


def optimizer_seconds(trainer: TrainerBytes, gpu: GPU, efficiency: Efficiency) -> float:
    """Read main copy, moments and gradient, write all but the gradient, then the 16-bit copy."""
    return 2 * trainer.optimizer / (gpu.memory_gb_s * 1e9 * efficiency.optimizer_bandwidth)


def host_copy_seconds(size: float, gpu: GPU, efficiency: Efficiency) -> float:
    """One way over the host link."""
    return size / (gpu.host_gb_s * 1e9 * efficiency.host_copy)


def update_seconds(
    model: PlannedModel, config: Config, layout: Layout, gpu: GPU, lengths: Lengths, efficiency: Efficiency
) -> tuple[float, float]:
    """(update, one log-prob pass) of a step's sequences: products, collectives, pipeline bubble, optimizer.

    An offloaded optimizer's way back to the GPU is in the update; its way out is in the push.
    """
    work = update_of(config, lengths, layout.dp)
    rate = layout.world * gpu.tflops_bf16 * 1e12 * efficiency.update_flops
    head = head_flops(model, work.head_rows_per_step) / rate
    body = forward_flops(model, work.tokens_per_step, 0, work.mean_length) / rate
    # the last stage has the head besides, and the others wait for it
    forward = body + layout.pp * head
    # of one rank: every micro-batch of the step, at its mean length
    batches = work.count * config.train.mini_batches
    tokens = work.tokens_per_step / (batches * layout.dp)
    hand = pipeline_seconds(model, layout, gpu, tokens, efficiency)
    there, back = (
        batches * (part + hand) for part in tensor_parallel_seconds(model, layout, gpu, tokens, efficiency)
    )
    again = body + there if config.model.recompute == Recompute.full else 0.0
    # Narayanan et al., arXiv 2104.04473, section 2.2: (p - 1) / (v m) of the ideal time
    bubble = 1 + (layout.pp - 1) / (layout.vpp * work.count)
    trainer = fullest_trainer(model, layout, config.lora)
    step = gradient_seconds(trainer, layout, gpu, efficiency) + optimizer_seconds(trainer, gpu, efficiency)
    update = config.train.passes * (3 * forward + there + back + again) * bubble
    update += config.train.updates_per_step * step
    if config.model.offload_optimizer:
        update += host_copy_seconds(trainer.optimizer, gpu, efficiency)
    return update, (forward + there) * bubble
