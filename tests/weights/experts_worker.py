"""On one rank: log-probs of expert models in Megatron against transformers and vLLM on their exported folder.

Argument: a scratch folder. Prints one JSON line: family -> reader -> largest difference. vLLM's CPU build
runs Qwen3-MoE; of the Nemotron hybrid with experts it says that its expert kernel is for GPUs only.
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from transformers import AutoModelForCausalLM

from igrpo_mcore import device
from igrpo_mcore.config.schema import DType, ParallelConfig, RolloutConfig
from igrpo_mcore.rollout.engine import Sampling
from igrpo_mcore.rollout.vllm_engine import VLLMEngine
from igrpo_mcore.weights import export_hf, load_hf_weights
from tests.support.checkpoints import char_tokenizer
from tests.weights.moe import build_moe_policy, make_moe_checkpoint, moe_config
from tests.weights.support import PROMPTS, disturb, lay_out_ranks


@torch.no_grad()
def run(family: str, scratch: Path) -> dict[str, float]:
    config, folder, out = moe_config(family), scratch / family, scratch / f"{family}_exported"
    make_moe_checkpoint(folder, config)
    (policy,) = chunks = build_moe_policy(config, 1, 1, 1)
    load_hf_weights(chunks, folder, config)
    disturb(chunks)
    export_hf(chunks, config, folder, out, torch.float32)

    def ours(ids: torch.Tensor) -> torch.Tensor:
        with device.megatron_on_cpu():
            return policy.eval()(ids, torch.arange(ids.shape[1])[None], None)

    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    ids = torch.tensor([[token for prompt in PROMPTS for token in prompt]])
    difference = ours(ids).log_softmax(-1) - model(ids).logits.log_softmax(-1)
    found = {"transformers": float(difference.abs().max())}
    if family == "nemotron_h":
        return found
    rollout = RolloutConfig(tp=1, max_prompt_tokens=64, max_completion_tokens=32)
    engine = VLLMEngine(str(out), rollout, DType.float32, char_tokenizer(), load_format="auto")
    groups = engine.generate(PROMPTS, Sampling(2, 1.0, 16, ()), list(range(len(PROMPTS))))
    found["vllm"] = 0.0
    for prompt, group in zip(PROMPTS, groups, strict=True):
        for completion in group:
            sequence = torch.tensor([[*prompt, *completion.token_ids]])
            logprobs = ours(sequence)[0, len(prompt) - 1 : -1].log_softmax(-1)
            chosen = logprobs.gather(-1, sequence[0, len(prompt) :, None])[:, 0]
            worst = float((chosen - torch.tensor(completion.logprobs)).abs().max())
            found["vllm"] = max(found["vllm"], worst)
    engine.close()
    return found


def main() -> None:
    lay_out_ranks(ParallelConfig())
    found = {family: run(family, Path(sys.argv[1])) for family in ("nemotron_h", "qwen3_moe")}
    print("RESULT " + json.dumps(found), flush=True)
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
