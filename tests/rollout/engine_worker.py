"""In every rank: vLLM engines one after another, each compared with transformers on the same weights.

Arguments: a scratch folder, then one FAMILY:TP a checkpoint lying in the scratch folder under its
family's name. Each engine gets a process group of its own, since closing an engine ends the group.
Every rank writes its findings to ``FAMILY-TP-RANK.json``.
"""

import json
import os
import random
import shutil
import string
import sys
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from igrpo_mcore.config.schema import DType, RolloutConfig
from igrpo_mcore.rollout.engine import EngineMemory, Sampling, generate
from igrpo_mcore.rollout.shared_scorer import SharedScorer
from igrpo_mcore.rollout.vllm_engine import VLLMEngine
from igrpo_mcore.types import Problem, SampleKey, Score

EOS = 2
TEMPERATURE = 0.7


def characters(token_ids: tuple[int, ...]) -> str:
    """The text of tests.support's character tokenizer, special tokens left out."""
    return "".join(string.printable[t - 4] for t in token_ids if 4 <= t < 4 + len(string.printable))


def prompts_of(engine_index: int) -> list[list[int]]:
    """Six prompts of 36 to 41 tokens, of which the first 34 (more than a KV block) are shared."""
    generator = torch.Generator().manual_seed(engine_index)
    shared = torch.randint(4, 100, (34,), generator=generator).tolist()
    return [shared + torch.randint(4, 100, (2 + i,), generator=generator).tolist() for i in range(6)]


@torch.no_grad()
def compare(engine: VLLMEngine, folder: Path) -> dict:
    """Sampled log-probs, greedy tokens and determinism, against the checkpoint in ``folder``."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    prompts = prompts_of(engine.index)
    seeds = [100 + i for i in range(len(prompts))]
    sampling = Sampling(4, TEMPERATURE, 24, (EOS,))
    groups = generate(engine, prompts, sampling, seeds)
    worst, endings_right = 0.0, True
    for prompt, group in zip(prompts, groups, strict=True):
        for completion in group:
            ids = torch.tensor([prompt + list(completion.token_ids)])
            logprobs = (model(ids).logits[0, len(prompt) - 1 : -1] / TEMPERATURE).log_softmax(-1)
            expected = logprobs.gather(-1, ids[0, len(prompt) :, None])[:, 0]
            worst = max(worst, (expected - torch.tensor(completion.logprobs)).abs().max().item())
            stopped = completion.token_ids[-1] == EOS
            endings_right &= EOS not in completion.token_ids[:-1]
            endings_right &= completion.truncated == (not stopped) and (stopped or len(expected) == 24)
    greedy_equal = True
    for prompt, (completion,) in zip(
        prompts, generate(engine, prompts, Sampling(1, 0.0, 24, (EOS,)), seeds), strict=True
    ):
        expected = model.generate(
            torch.tensor([prompt]), max_new_tokens=24, do_sample=False, eos_token_id=EOS, pad_token_id=0
        )
        greedy_equal &= expected[0, len(prompt) :].tolist() == list(completion.token_ids)
    tokens = [[c.token_ids for c in group] for group in groups]
    every = [completion for group in groups for completion in group]
    again = [[c.token_ids for c in g] for g in generate(engine, prompts[2:4], sampling, seeds[2:4])]
    other = [[c.token_ids for c in g] for g in generate(engine, prompts, sampling, [s + 50 for s in seeds])]
    return {
        "logprob_difference": worst,
        "greedy_equal": greedy_equal,
        "endings_right": endings_right,
        "stopped": sum(not c.truncated for c in every),
        "truncated": sum(c.truncated for c in every),
        "text_is_decoded": all(c.text == characters(c.token_ids) for c in every),
        "distinct_samples": len({t for group in tokens for t in group}),
        "same_by_seed": again == tokens[2:4],
        "other_by_other_seed": other != tokens,
        "tokens": tokens,
    }


def perturbed(weights: dict[str, Tensor], source: Path, target: Path) -> dict[str, Tensor]:
    """The weights of another policy of the same shape, also written as a checkpoint."""
    generator = torch.Generator().manual_seed(5)
    moved = {
        name: w + 0.1 * w.std() * torch.randn(w.shape, generator=generator) for name, w in weights.items()
    }
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(source / "config.json", target)
    save_file(moved, target / "model.safetensors", metadata={"format": "pt"})
    return moved


def refused(engine: VLLMEngine, weights: dict[str, Tensor]) -> str:
    try:
        engine.load_weights(weights.items())
    except ValueError as error:
        return str(error)
    return "accepted"


def shared_memory() -> set[str]:
    """The segments of vLLM's own CPU all-reduce that this process maps, as its kernel names them."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    return {line.split(maxsplit=5)[5] for line in maps if "cpushm" in line}


class RankScorer:
    """Scores by this process's id, so that a score says which rank gave it."""

    def __init__(self) -> None:
        self.waiting: list = []

    def submit(self, key, problem, completion) -> None:
        self.waiting.append(key)

    def poll(self) -> list[tuple]:
        scored, self.waiting = self.waiting, []
        return [(key, Score(float(os.getpid()))) for key in scored]

    def wait(self, timeout=None) -> list[tuple]:
        raise RuntimeError("nothing to score")


def check(family: str, tp: int, scratch: Path) -> dict:
    folder = scratch / family
    rollout = RolloutConfig(
        tp=tp, max_prompt_tokens=64, max_completion_tokens=24, max_concurrent_sequences=64
    )
    earlier = shared_memory()
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    threads, set_threads = torch.get_num_threads(), torch.set_num_threads
    engine = VLLMEngine(str(folder), rollout, DType.float32, AutoTokenizer.from_pretrained(folder), seed=3)
    kept = (
        torch.equal(states[0], torch.get_rng_state())
        and states[1:] == (np.random.get_state()[1].tolist(), random.getstate())
        and (threads, set_threads) == (torch.get_num_threads(), torch.set_num_threads)
    )
    result: dict = {"engine": engine.index, "engines": engine.count, "state_kept": kept}
    result["shared"] = sorted(shared_memory() - earlier)

    weights = load_file(folder / "model.safetensors")
    engine.load_weights(weights.items())
    result["first"] = compare(engine, folder)
    engine.sleep()
    engine.wake(EngineMemory.weights)
    other = scratch / f"{family}-moved-{dist.get_rank()}"
    engine.load_weights(perturbed(weights, folder, other).items())
    engine.wake(EngineMemory.kv_cache)
    result["second"] = compare(engine, other)

    scorer = SharedScorer(RankScorer() if engine.is_first_rank else None, engine.group)
    problem, completion = Problem("p", "1", "1"), generate(engine, [[5]], Sampling(1, 1.0, 2, ()), [0])[0][0]
    first_rank = dist.get_process_group_ranks(engine.group)[0]
    pids: list = [None] * dist.get_world_size()
    dist.all_gather_object(pids, os.getpid())
    key = SampleKey(1, "drafts", 0, 0)
    scorer.submit(key, problem, completion)
    result["scored_by_first_rank"] = scorer.take([key])[0].total == pids[first_rank]
    try:
        scorer.take([key])
    except RuntimeError as error:
        result["scorer_error"] = str(error)

    # a refused push leaves a broken engine, so each rank tries one kind
    name = next(n for n in weights if "k_proj" in n)
    surplus = name.replace("k_proj.", "kk_proj.")
    if dist.get_rank() % 2:
        result["refused"] = (surplus, refused(engine, weights | {surplus: weights[name]}))
    else:
        missing = name.replace("backbone.", "model.")
        result["refused"] = (missing, refused(engine, {n: w for n, w in weights.items() if n != name}))
    engine.close()
    result["group_left"] = dist.is_initialized()
    return result


def main() -> None:
    scratch = Path(sys.argv[1])
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    for i, case in enumerate(sys.argv[2:]):
        family, tp = case.split(":")
        store = dist.FileStore(str(scratch / f"store-{world_size}-{i}"), world_size)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size)
        found = check(family, int(tp), scratch)
        (scratch / f"{family}-{tp}-{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
