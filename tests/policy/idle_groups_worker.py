"""In ranks: an update with the sequences that carry no gradient left out, and with all of them run.

python -m tests.policy.idle_groups_worker CHECKPOINT OUT
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from igrpo_kernels import Objective
from megatron.core import parallel_state as mpu

from igrpo_mcore.config.schema import Config, DType
from igrpo_mcore.families import architecture_of
from igrpo_mcore.policy import policy as policy_module
from igrpo_mcore.policy.architecture import load_hf_config
from igrpo_mcore.policy.parallel import start_process_groups
from igrpo_mcore.policy.policy import Policy
from igrpo_mcore.weights.hf_import import load_hf_weights
from tests.policy.sequences import shift, training_batch

LAYOUTS = {"dp2": (1, 1, 1), "pp2": (1, 2, 1), "pp2vpp2": (1, 2, 2), "tp2": (2, 1, 1)}
ACTIVE = {"some": (0, 1, 4), "one": (7,), "none": ()}


def main() -> None:
    checkpoint, out = Path(sys.argv[1]), sys.argv[2]
    carries = policy_module.carries_gradient
    found = {}
    for layout, (tp, pp, vpp) in LAYOUTS.items():
        config = Config()
        config.model.path, config.model.dtype = str(checkpoint), DType.float32
        config.parallel.tp, config.parallel.pp, config.parallel.vpp = tp, pp, vpp
        config.parallel.sp = tp > 1
        config.rollout.max_prompt_tokens = config.rollout.max_completion_tokens = 64
        config.train.micro_batch_tokens = 40
        if mpu.is_initialized():
            mpu.destroy_model_parallel()
        start_process_groups(config.parallel, seed=0)
        hf_config = load_hf_config(checkpoint)
        policy = Policy(config, architecture_of(hf_config, "float32"), updates=8)
        for case, active in ACTIVE.items():
            sequences = [
                replace(s, advantage=(-1.0) ** i if i in active else 0.0)
                for i, s in enumerate(training_batch())
            ]
            load_hf_weights(policy.chunks, checkpoint, hf_config)
            policy.weights_loaded()
            old = {i: logprob - shift(i) for i, logprob in policy.logprobs(sequences).items()}
            for name, rule in {"left out": carries, "run": lambda s, o: True}.items():
                policy_module.carries_gradient = rule
                loss, metrics = policy.accumulate_gradient(sequences, Objective(), old)
                gradient = torch.cat(
                    [p.main_grad.flatten() for chunk in policy.chunks for p in chunk.parameters()]
                )
                found[layout, case, name] = {"loss": loss, "rows": metrics["head_rows"], "gradient": gradient}
            policy_module.carries_gradient = carries
            before = policy.updates
            stats = policy.update(sequences, Objective(), old)
            found[layout, case, "step"] = {"stats": stats, "updates": policy.updates - before}
    torch.save(found, f"{out}/{dist.get_rank()}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
