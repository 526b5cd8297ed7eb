"""What a run spends beside sampling and training: refit, sleep, rewards, checkpoints, its start."""

from igrpo_mcore.config.schema import Config
from igrpo_mcore.config.stages import stages_of
from igrpo_mcore.planning.catalogue import PlannedModel, itemsize
from igrpo_mcore.planning.collectives import link_peak, send_seconds
from igrpo_mcore.planning.efficiency import Efficiency
from igrpo_mcore.planning.engine import EngineBytes
from igrpo_mcore.planning.gpus import GPU
from igrpo_mcore.planning.layout import Layout
from igrpo_mcore.planning.refit import Refit
from igrpo_mcore.planning.update_time import fullest_trainer, host_copy_seconds

REWARD_WORKERS = 4
"""Worker processes an engine on a GPU node (``rewards.pool.MOST_WORKERS``)."""
_STATE_BYTES = 14  # a parameter in a checkpoint: 16-bit copy, fp32 main copy, two moments


def push_seconds(
    model: PlannedModel,
    config: Config,
    layout: Layout,
    gpu: GPU,
    engine: EngineBytes,
    refit: Refit,
    efficiency: Efficiency,
) -> float:
    """One refit: the optimizer's way out where it is offloaded, vLLM's wake-up, each tensor's handling,
    each rank's share of the messages, and vLLM's two copies of its weights."""
    ranks = max(layout.tp * layout.pp, layout.rollout_tp)
    peak = link_peak(gpu, ranks, layout.gpus_per_node)
    sent = send_seconds(refit.bytes_moved / layout.world, peak, efficiency)
    copies = 4 * engine.weights / (gpu.memory_gb_s * 1e9 * efficiency.optimizer_bandwidth)
    tensors = len(model.table.tensors) * efficiency.tensor_s
    out = 0.0
    if config.model.offload_optimizer:
        out = host_copy_seconds(fullest_trainer(model, layout).optimizer, gpu, efficiency)
    return out + efficiency.wake_s + tensors + sent + copies


def sleep_seconds(config: Config, gpu: GPU, engine: EngineBytes, efficiency: Efficiency) -> float:
    """vLLM's sleep; where the parity gate is due the host keeps a copy of the weights."""
    return efficiency.sleep_s + host_copy_seconds(engine.weights, gpu, efficiency) / config.parity.every


def reference_seconds(model: PlannedModel, layout: Layout, gpu: GPU, efficiency: Efficiency) -> float:
    """Swapping the frozen reference in and out (``ReferenceWeights.active``): three copies."""
    return 3 * host_copy_seconds(fullest_trainer(model, layout).parameters, gpu, efficiency)


def reward_seconds(config: Config, layout: Layout, rollout: float, efficiency: Efficiency) -> float:
    """What the fullest engine waits for rewards: they are computed while it samples for ``rollout`` seconds,
    but for the last completion's of each stage and what its workers do not get done meanwhile."""
    stages = stages_of(config.rollout)
    prompts = -(-config.train.prompts_per_step // layout.engines)
    completions = prompts * sum(stage.num_samples for stage in stages)
    work = completions * efficiency.reward_s / (config.reward.workers or REWARD_WORKERS)
    return len(stages) * efficiency.reward_s + max(0.0, work - rollout)


def checkpoint_seconds(model: PlannedModel, config: Config, efficiency: Efficiency) -> float:
    """A save's own time shared by ``checkpoint.every`` steps; ``time/step_s`` of a run leaves it out."""
    every = config.checkpoint.every or config.train.steps
    return model.table.parameters * _STATE_BYTES / (efficiency.save_gb_s * 1e9) / every


def start_seconds(model: PlannedModel, efficiency: Efficiency) -> float:
    """From the first process to the first step, once a job."""
    size = model.table.parameters * itemsize(model.architecture)
    return efficiency.start_s + size / (efficiency.read_gb_s * 1e9)
