"""In several ranks: log-probs, loss and full gradients of the policy under each parallel layout.

python -m tests.policy.layouts_worker OUT CASE [CASE ...]

CASE is name:checkpoint:tp,pp,sp,vpp,micro_batch_tokens; a name in -fused takes ``model.fused_head``, in
chunks of 8 rows, and one in -corrected or -fused weighs samples by importance as well.
"""

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from igrpo_kernels import Objective, linear_policy_loss, linear_token_logprobs
from megatron.core import parallel_state as mpu

from igrpo_mcore.config.schema import Config, Correction, DType, ObjectiveConfig
from igrpo_mcore.families import architecture_of
from igrpo_mcore.objective.correction import ImportanceInUpdate, ImportanceWeights
from igrpo_mcore.policy import head
from igrpo_mcore.policy.architecture import load_hf_config
from igrpo_mcore.policy.parallel import start_process_groups
from igrpo_mcore.policy.policy import Policy, carries_gradient
from igrpo_mcore.policy.update_stats import importance_totals
from igrpo_mcore.weights.hf_import import load_hf_weights
from igrpo_mcore.weights.push import Pusher
from tests.policy.sequences import shift, training_batch


class Collector:
    """A weight sink that keeps every full tensor it is given."""

    def load_weights(self, named_tensors):
        self.tensors = {name: tensor.float().clone() for name, tensor in named_tensors}


def full_gradients(policy: Policy, pusher: Pusher) -> dict[str, torch.Tensor]:
    """HF name -> whole gradient: main_grad takes the parameters' place in a push."""
    dp, group = mpu.get_data_parallel_world_size(), mpu.get_data_parallel_group()
    for ddp in policy._ddp:
        for buffer in ddp.buffers + ddp.expert_parallel_buffers:
            for bucket in buffer.buckets:  # reduce-scattered by the distributed optimizer
                size = bucket.grad_data.numel() // dp
                mine = bucket.grad_data[group.rank() * size : (group.rank() + 1) * size].clone()
                dist.all_gather_into_tensor(bucket.grad_data, mine, group=group)
    with torch.no_grad():
        for chunk in policy.chunks:
            for parameter in chunk.parameters():
                parameter.copy_(parameter.main_grad)
    collector = Collector()
    pusher.push(collector)
    return collector.tensors


def corrected(policy: Policy, mine: dict[int, torch.Tensor], everyones: dict[int, torch.Tensor]) -> dict:
    """Loss, local gradient and logged weights: by log π_old of a pass of its own, and by the update's own."""
    sequences = [
        replace(s, logprobs=tuple((everyones[i] + 0.3 * torch.sin(everyones[i])).tolist()))
        for i, s in enumerate(training_batch())
    ]
    found = {}
    objective = Objective(temperature=0.8)
    for kind in (Correction.token, Correction.sequence):
        options = ObjectiveConfig(correction=kind, correction_cap=1.2)
        trained = {i: lp for i, lp in mine.items() if carries_gradient(sequences[i], objective)}
        passed = ImportanceWeights.of([sequences], [trained], options)
        own = ImportanceInUpdate(options)
        for name, importance in {"passed": passed.weights[0], "own": own}.items():
            loss, _ = policy.accumulate_gradient(sequences, objective, importance=importance)
            gradient = [p.main_grad.flatten().clone() for chunk in policy.chunks for p in chunk.parameters()]
            found[kind.value, name] = {"loss": loss, "gradient": torch.cat(gradient)}
        found[kind.value, "passed"]["stats"] = passed.stats
        found[kind.value, "own"]["stats"] = importance_totals(own, policy.device)
    return found


def run(name: str, checkpoint: str, tp: int, pp: int, sp: int, vpp: int, micro_batch_tokens: int) -> dict:
    config = Config()
    config.model.fused_head = name.endswith("-fused")
    config.model.path, config.model.dtype = checkpoint, DType.float32
    config.parallel.tp, config.parallel.pp, config.parallel.sp, config.parallel.vpp = tp, pp, bool(sp), vpp
    config.rollout.max_prompt_tokens = config.rollout.max_completion_tokens = 64
    config.rollout.temperature = 0.8
    config.train.micro_batch_tokens = micro_batch_tokens
    if mpu.is_initialized():
        mpu.destroy_model_parallel()
    start_process_groups(config.parallel, seed=0)
    hf_config = load_hf_config(checkpoint)
    policy = Policy(config, architecture_of(hf_config, "float32"), updates=4)
    load_hf_weights(policy.chunks, Path(checkpoint), hf_config)
    policy.weights_loaded()
    pusher = Pusher(policy.chunks, hf_config, rollout_tp=1, dtype=torch.float32)
    sequences = training_batch()
    found: list = [None] * dist.get_world_size()
    mine = policy.logprobs(sequences)
    dist.all_gather_object(found, mine)
    logprobs = {index: value for part in found for index, value in part.items()}
    old = {i: lp - shift(i) for i, lp in logprobs.items()}  # ratios on both sides of the clip
    ref = {i: lp + 0.1 for i, lp in logprobs.items()}
    objective = Objective(kind="clip", kl_coef=0.05, temperature=config.rollout.temperature)
    loss, metrics = policy.accumulate_gradient(sequences, objective, old, ref)
    weighed = corrected(policy, mine, logprobs) if name.endswith(("-fused", "-corrected")) else None
    if weighed:
        policy.accumulate_gradient(sequences, objective, old, ref)
    before = Collector()
    pusher.push(before)
    gradients = full_gradients(policy, pusher)
    with torch.no_grad():  # put the weights back, then take the real step
        load_hf_weights(policy.chunks, Path(checkpoint), hf_config)
        policy.weights_loaded()
    stats = policy.update(sequences, objective, old, ref)
    after = Collector()
    pusher.push(after)
    return {
        "logprobs": [logprobs[i] for i in range(len(sequences))],
        "loss": loss,
        "metrics": metrics,
        "gradients": gradients,
        "grad_norm": stats.grad_norm,
        "updated": after.tensors,
        "corrected": weighed,
        "changed": any(not torch.equal(before.tensors[n], after.tensors[n]) for n in before.tensors),
    }


def main() -> None:
    out = Path(sys.argv[1])
    head.linear_policy_loss = partial(linear_policy_loss, chunk_tokens=8)
    head.linear_token_logprobs = partial(linear_token_logprobs, chunk_tokens=8)
    for case in sys.argv[2:]:
        name, checkpoint, layout = case.split(":")
        tp, pp, sp, vpp, budget = map(int, layout.split(","))
        result = run(name, checkpoint, tp, pp, sp, vpp, budget)
        if dist.get_rank() == 0:
            torch.save(result, out / f"{name}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
