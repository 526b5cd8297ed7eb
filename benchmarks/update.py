"""What each saving of the update on a CPU is worth: the same batch with and without them, interleaved.

    PYTHONPATH=.:kernels .venv/bin/python benchmarks/update.py CHECKPOINT [--groups 2] [--rounds 3]

Prints of each variant the median CPU seconds of forward and backward over all rounds (one thread, so that
other jobs hardly show), the tokens that go through the layers, and how far loss and gradient are from those
without any saving.
"""

import argparse
import os
import random
import statistics
import time
from pathlib import Path

import torch
from igrpo_kernels import Objective

from igrpo_mcore import device
from igrpo_mcore.config.schema import Config, DType
from igrpo_mcore.families import architecture_of
from igrpo_mcore.policy import policy as policy_module
from igrpo_mcore.policy.architecture import load_hf_config
from igrpo_mcore.policy.packing import pack
from igrpo_mcore.policy.parallel import start_process_groups
from igrpo_mcore.policy.policy import Policy
from igrpo_mcore.types import TrainingSequence
from igrpo_mcore.weights.hf_import import load_hf_weights

VARIANTS = {  # oneDNN, prompts shared, groups without spread left out
    "none": (False, False, False),
    "oneDNN": (True, False, False),
    "oneDNN, shared prompts": (True, True, False),
    "oneDNN, shared prompts, no idle groups": (True, True, True),
}


def batch(groups: int, size: int, prompt: tuple[int, int], vocabulary: int) -> list[TrainingSequence]:
    """Groups of ``size`` completions of 24 to 93 tokens, every second group without spread."""
    rng = random.Random(0)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(rng.randrange(vocabulary) for _ in range(count))

    sequences = []
    for group in range(groups):
        prompt_ids = tokens(rng.randint(*prompt))
        for member in range(size):
            ids = tokens(rng.randint(24, 93))
            advantage = 0.0 if group % 2 else (1.0, -1.0)[member % 2]
            weight = 1 / (groups * size * len(ids))
            sequences.append(TrainingSequence(prompt_ids, ids, (0.0,) * len(ids), advantage, weight))
    return sequences


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--groups", type=int, default=2)
    parser.add_argument("--size", type=int, default=8)
    parser.add_argument("--prompt", type=int, nargs=2, default=(50, 70), help="shortest and longest, tokens")
    parser.add_argument("--micro-batch-tokens", type=int, default=1536)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profile", action="store_true", help="where one update without savings spends time")
    options = parser.parse_args()
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29613", "RANK": "0", "WORLD_SIZE": "1"}
    config = Config()
    config.model.path, config.model.dtype = str(options.checkpoint), DType.float32
    config.rollout.max_prompt_tokens, config.rollout.max_completion_tokens = options.prompt[1], 96
    config.train.micro_batch_tokens = options.micro_batch_tokens
    start_process_groups(config.parallel, seed=0)
    torch.set_num_threads(1)
    hf_config = load_hf_config(config.model.path)
    architecture = architecture_of(hf_config, "float32")
    policy = Policy(config, architecture, updates=1)
    load_hf_weights(policy.chunks, options.checkpoint, hf_config)
    policy.weights_loaded()
    sequences = batch(options.groups, options.size, options.prompt, architecture.vocab_size)
    objective = Objective(kind="reinforce", temperature=0.7)  # a loss that depends on the weights
    onednn, carries = device._onednn_matmul, policy_module.carries_gradient
    seconds: dict[str, list[float]] = {name: [] for name in VARIANTS}
    losses: dict[str, float] = {}
    errors: dict[str, float] = {}
    reference: list[torch.Tensor] = []
    for _ in range(options.rounds):
        for name, (by_onednn, shared, left_out) in VARIANTS.items():
            device._onednn_matmul = onednn if by_onednn else lambda a, b: None
            policy_module.carries_gradient = carries if left_out else lambda s, o: True
            policy._shares_prompts = shared
            start = time.process_time()
            losses[name], _ = policy.accumulate_gradient(sequences, objective)
            seconds[name].append(time.process_time() - start)
            print(f"{name:40} {seconds[name][-1]:6.2f} s", flush=True)
            gradient = [p.main_grad for p in policy.chunks[0].parameters()]
            reference = reference or [g.clone() for g in gradient]
            distance = sum(float((g - r).square().sum()) for g, r in zip(gradient, reference, strict=True))
            norm = sum(float(r.square().sum()) for r in reference)
            errors[name] = (distance / norm) ** 0.5
    if options.profile:
        device._onednn_matmul, policy._shares_prompts = lambda a, b: None, False
        policy_module.carries_gradient = lambda s, o: True
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            policy.accumulate_gradient(sequences, objective)
        print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=16))
    print(f"medians of {options.rounds} rounds, {len(sequences)} sequences")
    base = statistics.median(seconds["none"])
    for name, (_, shared, left_out) in VARIANTS.items():
        chosen = [i for i, s in enumerate(sequences) if not left_out or s.advantage]
        tokens = pack(sequences, chosen, 1, torch.device("cpu"), shared).tokens_T.numel()
        median = statistics.median(seconds[name])
        print(
            f"{name:40} {median:6.2f} s  x{base / median:.2f}  {tokens:6d} tokens  "
            f"loss off by {abs(losses[name] - losses['none']):.1e}  gradient by {errors[name]:.1e}"
        )


if __name__ == "__main__":
    main()
