"""In four ranks: train, save, train on; then load at other layouts and train on from there.

python -m tests.policy.checkpoint_worker SCRATCH CASE [CASE ...]
CASE: name:checkpoint:dtype:layout;layout…, a layout tp,pp,sp,vpp; the first one writes. Rank 0 leaves
SCRATCH/NAME.pt: [layout] -> loaded weights, then two updates.
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from igrpo_kernels import Objective
from megatron.core import parallel_state as mpu

from igrpo_mcore import device
from igrpo_mcore.config.schema import Config, DType
from igrpo_mcore.errors import UserError
from igrpo_mcore.families import architecture_of
from igrpo_mcore.policy.architecture import load_hf_config
from igrpo_mcore.policy.checkpoint import load_latest
from igrpo_mcore.policy.checkpoint_writer import save_checkpoint
from igrpo_mcore.policy.parallel import start_process_groups
from igrpo_mcore.policy.policy import Policy
from igrpo_mcore.run.checkpoint_folder import CheckpointFolder, Position
from igrpo_mcore.weights.hf_import import load_hf_weights
from igrpo_mcore.weights.push import Pusher
from tests.policy.layouts_worker import Collector
from tests.policy.sequences import training_batch

OBJECTIVE = Objective(kind="clip", temperature=0.8)


def build(checkpoint: str, dtype: str, layout: str) -> tuple[Policy, Pusher]:
    config = Config()
    config.model.path, config.model.dtype = checkpoint, DType(dtype)
    tp, pp, sp, vpp = map(int, layout.split(","))
    config.parallel.tp, config.parallel.pp, config.parallel.sp, config.parallel.vpp = tp, pp, bool(sp), vpp
    config.rollout.max_prompt_tokens = config.rollout.max_completion_tokens = 64
    config.rollout.temperature = 0.8
    config.train.micro_batch_tokens = 40
    config.optimizer.lr, config.optimizer.warmup_ratio = 1e-3, 0.5
    if mpu.is_initialized():
        mpu.destroy_model_parallel()
    start_process_groups(config.parallel, seed=0)
    hf_config = load_hf_config(checkpoint)
    policy = Policy(config, architecture_of(hf_config, dtype), updates=6)
    with torch.no_grad():
        for chunk in policy.chunks:  # a tensor that a load forgets must not look right
            for parameter in chunk.parameters():
                parameter.fill_(0.02)
    pusher = Pusher(policy.chunks, hf_config, rollout_tp=1, dtype=policy.dtype)
    return policy, pusher


def weights(pusher: Pusher) -> dict[str, torch.Tensor]:
    collector = Collector()
    pusher.push(collector)
    return collector.tensors


def train_on(policy: Policy, pusher: Pusher) -> list[dict]:
    done = []
    for _ in range(2):
        stats = policy.update(training_batch(), OBJECTIVE)
        done.append({"loss": stats.loss, "grad_norm": stats.grad_norm, "lr": stats.lr})
    return [*done, weights(pusher)]


def refuse_infinite(policy: Policy, pusher: Pusher) -> tuple[str, bool]:
    """What is said of a gradient that is not finite, and whether the weights stayed as they were."""
    before, updates = weights(pusher), policy.updates
    try:
        policy.update([replace(s, advantage=float("inf")) for s in training_batch()], OBJECTIVE)
    except UserError as error:
        after = weights(pusher)
        return str(error), policy.updates == updates and all(torch.equal(before[n], after[n]) for n in before)
    return "", False


def skip_infinite(policy: Policy, pusher: Pusher) -> dict:
    """With one such update allowed: a bad one, a good one, a bad one, and a second bad one in a row."""
    policy._options.train.max_skipped_updates, first = 1, policy.updates
    policy._skipped_in_a_row = 0  # of ``refuse_infinite``, which a run does not survive
    found: dict = {"skipped": [], "unchanged": [], "updates": [], "said": ""}
    for bad in (True, False, True):
        before = weights(pusher)
        batch = [replace(s, advantage=float("nan") if bad else s.advantage) for s in training_batch()]
        found["skipped"].append(policy.update(batch, OBJECTIVE).skipped)
        after = weights(pusher)
        found["unchanged"].append(all(torch.equal(before[n], after[n]) for n in before))
        found["updates"].append(policy.updates - first)
    try:
        policy.update([replace(s, advantage=float("nan")) for s in training_batch()], OBJECTIVE)
    except UserError as error:
        found["said"] = str(error)
    policy._options.train.max_skipped_updates = 0
    return found


def run(scratch: Path, name: str, checkpoint: str, dtype: str, layouts: list[str]) -> None:
    root = scratch / f"{name}-checkpoints"
    folder = CheckpointFolder(root, keep=2)
    policy, pusher = build(checkpoint, dtype, layouts[0])
    load_hf_weights(policy.chunks, Path(checkpoint), load_hf_config(checkpoint))
    policy.weights_loaded()
    for step in (1, 2, 3):
        policy.update(training_batch(), OBJECTIVE)
        save_checkpoint(folder, policy, Position(step, 8 * step, policy.updates))
    results: dict = {"undisturbed": (weights(pusher), train_on(policy, pusher))}
    results["not finite"] = refuse_infinite(policy, pusher)
    results["skipped"] = skip_infinite(policy, pusher)
    for layout in layouts:
        policy, pusher = build(checkpoint, dtype, layout)
        position = load_latest(folder, policy)
        assert position == Position(3, 24, 3), position
        results[layout] = (weights(pusher), train_on(policy, pusher))
    results["one writer"] = by_one_writer(
        scratch / f"{name}-one-writer", folder, checkpoint, dtype, layouts[0]
    )
    if dist.get_rank() == 0:
        results["written"] = file_sizes(root), file_sizes(scratch / f"{name}-one-writer")
        results["kept"] = [path.name for path in sorted(root.iterdir())]
        torch.save(results, scratch / f"{name}.pt")
    dist.barrier()


def by_one_writer(root: Path, folder: CheckpointFolder, checkpoint: str, dtype: str, layout: str):
    """Weights and two updates from what is loaded, saved without room to gather, and loaded again."""
    narrow = CheckpointFolder(root)
    policy, _ = build(checkpoint, dtype, layout)
    position = load_latest(folder, policy)
    assert position is not None
    free, device.free_bytes = device.free_bytes, lambda: 1 if dist.get_rank() == 1 else 2**50
    save_checkpoint(narrow, policy, position)
    device.free_bytes = free
    policy, sync = build(checkpoint, dtype, layout)
    load_latest(narrow, policy)
    return weights(sync), train_on(policy, sync)


def file_sizes(root: Path) -> dict[str, int]:
    """Of the newest checkpoint, by the rank that wrote them."""
    latest = CheckpointFolder(root).latest()
    assert latest is not None
    return {file.name.split("_")[2]: file.stat().st_size for file in latest.glob("*.distcp")}


def main() -> None:
    for case in sys.argv[2:]:
        name, checkpoint, dtype, layouts = case.split(":")
        run(Path(sys.argv[1]), name, checkpoint, dtype, layouts.split(";"))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
