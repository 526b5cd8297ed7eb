"""In two ranks: LoRA updates at each layout, a checkpoint of one layout loaded into another.

python -m tests.policy.lora_worker OUT CASE [CASE ...]     CASE: name:checkpoint:targets
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from igrpo_kernels import Objective
from megatron.core import parallel_state as mpu

from igrpo_mcore.config.schema import Config, DType, LoRAConfig
from igrpo_mcore.families import architecture_of, table_for
from igrpo_mcore.policy.architecture import load_hf_config
from igrpo_mcore.policy.checkpoint import load_latest
from igrpo_mcore.policy.checkpoint_writer import CheckpointWriter
from igrpo_mcore.policy.parallel import start_process_groups
from igrpo_mcore.policy.policy import Policy
from igrpo_mcore.run.checkpoint_folder import CheckpointFolder, Position
from igrpo_mcore.weights.hf_import import load_hf_weights
from igrpo_mcore.weights.push import Pusher
from tests.policy.layouts_worker import Collector
from tests.policy.sequences import training_batch

RANK, ALPHA, LR, CLIP, TEMPERATURE, SEED = 3, 6.0, 0.02, 0.05, 0.8, 7
LAYOUTS = {"tp2": (2, 1, True), "dp2": (1, 1, False), "pp2": (1, 2, False)}
OBJECTIVE = Objective(kind="clip", temperature=TEMPERATURE)


def build(checkpoint: str, targets: list[str], layout: str) -> tuple[Policy, Pusher]:
    config = Config()
    config.model.path, config.model.dtype = checkpoint, DType.float32
    config.lora = LoRAConfig(rank=RANK, alpha=ALPHA, targets=targets)
    config.parallel.tp, config.parallel.pp, config.parallel.sp = LAYOUTS[layout]
    config.rollout.max_prompt_tokens = config.rollout.max_completion_tokens = 64
    config.rollout.temperature = TEMPERATURE
    config.train.micro_batch_tokens, config.train.seed = 40, SEED
    config.optimizer.lr, config.optimizer.warmup_ratio, config.optimizer.min_lr_ratio = LR, 0.0, 1.0
    config.optimizer.grad_clip = CLIP
    if mpu.is_initialized():
        mpu.destroy_model_parallel()
    start_process_groups(config.parallel, seed=0)
    hf_config = load_hf_config(checkpoint)
    policy = Policy(config, architecture_of(hf_config, "float32"), 4, table_for(hf_config))
    load_hf_weights(policy.chunks, Path(checkpoint), hf_config)
    policy.weights_loaded()
    return policy, Pusher(policy.chunks, hf_config, rollout_tp=1, dtype=torch.float32)


def weights(pusher: Pusher) -> dict[str, torch.Tensor]:
    collector = Collector()
    pusher.push(collector)
    return collector.tensors


def run(scratch: Path, name: str, checkpoint: str, targets: list[str]) -> dict:
    found: dict = {}
    folder = CheckpointFolder(scratch / f"{name}-checkpoints")
    for layout in LAYOUTS:
        policy, pusher = build(checkpoint, targets, layout)
        parts: list = [None] * dist.get_world_size()
        dist.all_gather_object(parts, policy.logprobs(training_batch()))
        seen = {"logprobs": {i: lp for part in parts for i, lp in part.items()}, "base": weights(pusher)}
        stats = [policy.update(training_batch(), OBJECTIVE) for _ in range(3)]
        if layout == "tp2":
            CheckpointWriter(folder).begin(policy, Position(3, 0, policy.updates))
        seen["weights"] = weights(pusher)
        seen["norms"] = [s.grad_norm for s in stats]
        policy.update(training_batch(), OBJECTIVE)
        seen["fourth"] = weights(pusher)
        policy, pusher = build(checkpoint, targets, layout)
        load_latest(folder, policy)
        seen["loaded"] = weights(pusher)
        policy.update(training_batch(), OBJECTIVE)
        seen["fourth after loading"] = weights(pusher)
        found[layout] = seen
    return found


def main() -> None:
    out = Path(sys.argv[1])
    for case in sys.argv[2:]:
        name, checkpoint, targets = case.split(":")
        result = run(out, name, checkpoint, targets.split(","))
        if dist.get_rank() == 0:
            torch.save(result, out / f"{name}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
