"""In ranks: the same step with the LM head on response rows only and on every row.

python -m tests.policy.head_rows_worker CHECKPOINT TP OUT
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from igrpo_kernels import Objective, policy_loss

from igrpo_mcore import device
from igrpo_mcore.config.schema import Config, DType
from igrpo_mcore.families import architecture_of
from igrpo_mcore.policy.architecture import load_hf_config
from igrpo_mcore.policy.packing import pack
from igrpo_mcore.policy.parallel import start_process_groups
from igrpo_mcore.policy.policy import Policy
from igrpo_mcore.weights.hf_import import load_hf_weights
from tests.policy.sequences import training_batch


def main() -> None:
    checkpoint, tp, out = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    config = Config()
    config.model.path, config.model.dtype = checkpoint, DType.float32
    config.parallel.tp, config.parallel.sp = tp, tp > 1
    config.rollout.max_prompt_tokens = config.rollout.max_completion_tokens = 64
    start_process_groups(config.parallel, seed=0)
    hf_config = load_hf_config(checkpoint)
    policy = Policy(config, architecture_of(hf_config, "float32"), updates=1)
    load_hf_weights(policy.chunks, Path(checkpoint), hf_config)
    sequences = training_batch()
    chosen = pack(sequences, list(range(len(sequences))), tp, torch.device("cpu"))
    total = chosen.tokens_T.numel()
    every = replace(
        chosen,
        rows_R=torch.arange(total),
        target_R=chosen.tokens_T.roll(-1),
        sequence_R=torch.zeros(total).long(),
    )
    weight_R = torch.tensor([s.weight for s in sequences])[chosen.sequence_R]
    advantage_R = torch.tensor([s.advantage for s in sequences])[chosen.sequence_R]

    def spread(values_R: torch.Tensor) -> torch.Tensor:
        return torch.zeros(total).index_copy(0, chosen.rows_R, values_R)

    found = {}
    cases = {
        "chosen": (chosen, advantage_R, weight_R),
        "every": (every, spread(advantage_R), spread(weight_R)),
    }
    for name, (row, advantage, weight) in cases.items():
        with device.megatron_on_cpu():
            policy._ddp[0].zero_grad_buffer()
            logits_RV = policy._ddp[0](row)
            loss = policy_loss(
                logits_RV,
                row.target_R,
                old_logprob_T=None,
                advantage_T=advantage,
                weight_T=weight,
                objective=Objective(),
                **policy._head.vocabulary,
            ).loss
            loss.backward()
        gradients = {n: p.main_grad.clone() for n, p in policy.chunks[0].named_parameters()}
        found[name] = {"loss": float(loss.detach()), "gradients": gradients, "rows": row.rows_R.numel()}
    if dist.get_rank() == 0:
        torch.save(found, out)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
