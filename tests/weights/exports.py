"""In ranks: log-probs of the policy against transformers and vLLM that read the folder it was exported to."""

from pathlib import Path

import torch
import torch.distributed as dist
from transformers import AutoModelForCausalLM, AutoTokenizer

from igrpo_mcore.config.schema import Config, DType, ParallelConfig
from igrpo_mcore.families import architecture_of
from igrpo_mcore.policy.architecture import load_hf_config
from igrpo_mcore.policy.policy import Policy
from igrpo_mcore.rollout.engine import Sampling, generate
from igrpo_mcore.rollout.vllm_engine import VLLMEngine
from igrpo_mcore.types import TrainingSequence
from igrpo_mcore.weights.hf_export import export_hf
from igrpo_mcore.weights.hf_import import load_hf_weights
from tests.support.checkpoints import make_checkpoint
from tests.weights.support import PROMPTS, disturb, main_rank

ENGINES: list[VLLMEngine] = []
"""Kept until the process ends: an engine that goes takes the default process group with it."""


def export_differences(family: str, scratch: Path, parallel: ParallelConfig, rollout_tp: int) -> dict:
    """Largest log-prob difference of either reader from the policy, on completions vLLM samples."""
    folder, out = scratch / family, scratch / f"{family}_exported"
    if main_rank():
        make_checkpoint(folder, family, layers=2 * parallel.pp)
    dist.barrier()
    config = Config()
    config.model.path, config.model.dtype, config.parallel = str(folder), DType.float32, parallel
    config.rollout.tp, config.rollout.temperature = rollout_tp, 1.0
    config.rollout.max_prompt_tokens, config.rollout.max_completion_tokens = 64, 32
    hf_config = load_hf_config(folder)
    policy = Policy(config, architecture_of(hf_config, "float32"), updates=1)
    load_hf_weights(policy.chunks, folder, hf_config)
    disturb(policy.chunks)  # so that the checkpoint it came from will not do
    export_hf(policy.chunks, hf_config, folder, out, torch.float32)

    tokenizer = AutoTokenizer.from_pretrained(out)
    engine = VLLMEngine(str(out), config.rollout, DType.float32, tokenizer, load_format="auto")
    ENGINES.append(engine)
    sampled = generate(engine, PROMPTS, Sampling(2, 1.0, 16, ()), list(range(len(PROMPTS))))
    sequences = [
        TrainingSequence(tuple(prompt), c.token_ids, c.logprobs, 0.0, 1.0)
        for prompt, group in zip(PROMPTS, sampled, strict=True)
        for c in group
    ]
    shared = [sequences]
    dist.broadcast_object_list(shared, src=0)
    parts: list = [None] * dist.get_world_size()
    dist.all_gather_object(parts, policy.logprobs(shared[0]))
    ours = {index: logprobs for part in parts for index, logprobs in part.items()}
    assert len(ours) == len(shared[0])
    found = {"vllm": 0.0, "transformers": 0.0, "unlike the source": 0.0}
    if not main_rank():
        return found
    readers = {
        "transformers": AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval(),
        "unlike the source": AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(),
    }
    for index, sequence in enumerate(sequences):
        ids = torch.tensor([[*sequence.prompt_ids, *sequence.completion_ids]])
        others = {"vllm": torch.tensor(sequence.logprobs)}
        for name, model in readers.items():
            with torch.no_grad():
                logits = model(ids).logits[0, len(sequence.prompt_ids) - 1 : -1]
            others[name] = logits.log_softmax(-1).gather(-1, ids[0, len(sequence.prompt_ids) :, None])[:, 0]
        for name, theirs in others.items():
            found[name] = max(found[name], float((theirs - ours[index]).abs().max()))
    return found
