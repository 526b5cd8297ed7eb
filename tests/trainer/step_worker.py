"""In ranks: one whole iGRPO step of the real trainer, everything it saw written to a file.

python -m tests.trainer.step_worker RECIPE OUT [key=value ...]
"""

import os
import sys

import torch
import torch.distributed as dist

from igrpo_mcore.config.load import load_config
from igrpo_mcore.objective.batch import mini_batches
from igrpo_mcore.policy.architecture import load_hf_config
from igrpo_mcore.rollout.engine import Sampling, generate
from igrpo_mcore.trainer import Trainer
from igrpo_mcore.weights.checkpoint import resolve_checkpoint
from igrpo_mcore.weights.hf_import import load_hf_weights
from igrpo_mcore.weights.push import Pusher
from tests.policy.layouts_worker import Collector, full_gradients

GREEDY = Sampling(num_samples=1, temperature=0.0, max_tokens=12, stop_token_ids=(2,))
PROMPTS = [[5, 20, 33, 47], [60, 61, 62], [10] * 40]


def main() -> None:
    recipe, out, *overrides = sys.argv[1:]
    trainer = Trainer(load_config(recipe, overrides))
    seen: dict = {}
    weights = Collector()

    def greedy() -> list[list[int]]:
        found = generate(trainer.gpu.engine, PROMPTS, GREEDY, seeds=[0] * len(PROMPTS))
        return [list(group[0].token_ids) for group in found]

    trainer.push()
    seen["greedy_before"] = greedy()
    rollouts = trainer.sampler.sample(1, 0).rollouts
    seen["rollouts"] = rollouts
    batch = mini_batches(rollouts, 1, trainer.config.objective, trainer.config.rollout)[0]
    measured = trainer.gate.check([batch], None, 1)
    seen["parity"] = measured
    policy, objective = trainer.learner.policy, trainer.learner.objective
    hf_config = load_hf_config(trainer.config.model.path)
    whole = Pusher(policy.chunks, hf_config, rollout_tp=1, dtype=policy.dtype)
    seen["loss"], _ = policy.accumulate_gradient(batch, objective)
    seen["gradients"] = full_gradients(policy, whole)  # they took the weights' place
    load_hf_weights(policy.chunks, resolve_checkpoint(trainer.config.model.path), hf_config)
    policy.weights_loaded()
    seen["stats"] = policy.update(batch, objective)
    trainer.push()
    seen["greedy_after"] = greedy()
    again = trainer.sampler.sample(1, 0).rollouts
    seen["resampled_differently"] = again != rollouts
    whole.push(weights)
    seen["weights_after"] = weights.tensors
    if dist.get_rank() == 0:
        torch.save(seen, out)
    trainer.sampler.close()
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
