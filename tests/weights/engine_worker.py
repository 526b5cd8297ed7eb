"""In every rank: load a checkpoint, push it to vLLM, compare with transformers; change the policy, again.

Arguments: checkpoint folder, tp, pp, rollout tp, number of further pushes whose memory is watched.
Rank 0 prints one JSON line.
"""

import gc
import json
import sys
from pathlib import Path

import psutil
import torch
import torch.distributed as dist
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from igrpo_mcore.config.schema import DType, ParallelConfig, RolloutConfig
from igrpo_mcore.rollout.engine import Sampling
from igrpo_mcore.rollout.vllm_engine import VLLMEngine
from igrpo_mcore.weights import WeightSync, load_hf_weights
from tests.weights.support import Collector, build_policy, lay_out_ranks, main_rank

PROMPTS = [list(range(5, 25)), list(range(40, 70)), [9, 8, 7, 6]]


def largest_difference(engine: VLLMEngine, folder: Path, weights: dict[str, Tensor] | None) -> float:
    """Greedy completions of the engine against transformers' log-probs of the same tokens."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    if weights is not None:
        names = set(model.state_dict())
        renamed = {name.replace("backbone.", "model."): tensor for name, tensor in weights.items()}
        assert set(renamed) <= names, set(renamed) - names
        model.load_state_dict(renamed, strict=False)
    completions = engine.generate(PROMPTS, Sampling(1, 0.0, 16, ()), [0] * len(PROMPTS))
    worst = 0.0
    for prompt, (completion,) in zip(PROMPTS, completions, strict=True):
        ids = torch.tensor([prompt + list(completion.token_ids)])
        with torch.no_grad():
            logprobs = model(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        assert logprobs.argmax(-1).tolist() == list(completion.token_ids), "greedy tokens differ"
        reference = logprobs.gather(-1, ids[0, len(prompt) :, None])[:, 0]
        worst = max(worst, (reference - torch.tensor(completion.logprobs)).abs().max().item())
    return worst


def main() -> None:
    folder = Path(sys.argv[1])
    tp, pp, rollout_tp, pushes = map(int, sys.argv[2:6])
    parallel = ParallelConfig(tp=tp, pp=pp)
    lay_out_ranks(parallel)
    chunks, config = build_policy(folder, parallel)
    load_hf_weights(chunks, folder, config)
    rollout = RolloutConfig(tp=rollout_tp, max_prompt_tokens=64, max_completion_tokens=32)
    engine = VLLMEngine(str(folder), rollout, DType.float32, AutoTokenizer.from_pretrained(folder))
    sync = WeightSync(chunks, config, rollout_tp=rollout_tp, bucket_bytes=300_000, dtype=torch.float32)
    first = sync.push(engine)
    before = largest_difference(engine, folder, None)

    generator = torch.Generator()
    with torch.no_grad():
        for chunk in chunks:
            for name, parameter in chunk.named_parameters():
                generator.manual_seed(len(name) * 1000 + parameter.shape[0])  # replicas stay alike
                parameter.mul_(1 + 0.1 * torch.rand(parameter.shape, generator=generator))
    whole = Collector()
    WeightSync(chunks, config, rollout_tp=1, mode="allgather", dtype=torch.float32).push(whole)
    sync.push(engine)
    after = largest_difference(engine, folder, whole.tensors)
    stale = largest_stale = 0.0
    if pushes:
        process = psutil.Process()
        for i in range(pushes):
            sync.push(engine)
            if i == pushes // 5:
                gc.collect()
                stale = process.memory_info().rss
        gc.collect()
        largest_stale = process.memory_info().rss - stale
    result = dict(before=before, after=after, growth_bytes=largest_stale, moved=first.bytes_moved)
    results: list = [None] * dist.get_world_size()
    dist.all_gather_object(results, result)
    if main_rank():
        print("RESULT " + json.dumps(results), flush=True)
    engine.close()


if __name__ == "__main__":
    main()
