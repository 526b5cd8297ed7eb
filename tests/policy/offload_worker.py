"""In ranks: two updates with the optimizer offloaded in between, and the same without.

python -m tests.policy.offload_worker CHECKPOINT. Prints one JSON line.
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from igrpo_kernels import Objective

from igrpo_mcore.config.schema import Config, DType
from igrpo_mcore.families import architecture_of
from igrpo_mcore.policy.architecture import load_hf_config
from igrpo_mcore.policy.parallel import start_process_groups
from igrpo_mcore.policy.policy import Policy
from igrpo_mcore.weights.hf_import import load_hf_weights
from tests.policy.sequences import training_batch


def gradient_bytes(policy: Policy) -> int:
    return sum(b.grad_data.untyped_storage().nbytes() for ddp in policy._ddp for b in ddp.buffers)


def two_updates(checkpoint: str, offload: bool) -> dict:
    config = Config()
    config.model.path, config.model.dtype = checkpoint, DType.bfloat16
    config.model.offload_optimizer = offload
    config.rollout.max_prompt_tokens = config.rollout.max_completion_tokens = 64
    config.optimizer.lr = 1e-2
    hf_config = load_hf_config(checkpoint)
    policy = Policy(config, architecture_of(hf_config, "bfloat16"), updates=2)
    load_hf_weights(policy.chunks, Path(checkpoint), hf_config)
    policy.weights_loaded()
    held = gradient_bytes(policy)
    sequences = training_batch()
    policy.update(sequences, Objective())
    policy.offload_optimizer()
    policy.offload_optimizer()
    away = gradient_bytes(policy)
    logprobs = policy.logprobs(sequences)  # needs neither
    still_away = gradient_bytes(policy)
    policy.restore_optimizer()
    stats = policy.update(sequences, Objective())
    return {
        "bytes": [held, away, still_away, gradient_bytes(policy)],
        "logprobs": logprobs,
        "grad_norm": stats.grad_norm,
        "weights": [p.detach().clone() for p in policy.chunks[0].parameters()],
    }


def main() -> None:
    start_process_groups(Config().parallel, seed=0)
    kept, away = (two_updates(sys.argv[1], offload) for offload in (False, True))
    pairs = zip(kept["weights"], away["weights"], strict=True)
    result = {
        "kept": kept["bytes"],
        "away": away["bytes"],
        "parameter_bytes": sum(4 * p.numel() for p in kept["weights"]),
        "grad_norms": [kept["grad_norm"], away["grad_norm"]],
        "same_weights": all(torch.equal(a, b) for a, b in pairs),
        "same_logprobs": all(torch.equal(kept["logprobs"][i], x) for i, x in away["logprobs"].items()),
    }
    if dist.get_rank() == 0:
        print("RESULT " + json.dumps(result), flush=True)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
