"""Random rollouts to report on."""

import random

from igrpo_mcore.types import Completion, Group, Problem, Prompt, PromptRollout, Score, StageGroup

PROBLEM = Problem("p1", "What is <2+3>?", "5")


def random_group(rng: random.Random, size: int, prompt_length: int = 3) -> Group:
    completions, scores = [], []
    for _ in range(size):
        length = rng.randint(1, 9)
        parts = {"accuracy": float(rng.random() < 0.5), "format": float(rng.random() < 0.8)}
        failures = ("accuracy",) if rng.random() < 0.1 else ()
        scores.append(Score(sum(parts.values()), parts, failures))
        completions.append(
            Completion(tuple(range(length)), (-0.5,) * length, "<b>5 & 6</b>", rng.random() < 0.3)
        )
    return Group(Prompt(PROBLEM, tuple(range(prompt_length))), tuple(completions), tuple(scores))


def one_stage(group: Group) -> PromptRollout:
    return PromptRollout((StageGroup("completions", group),))


def two_stages(drafts: Group, chosen: int, refinements: Group, overflowed: bool = False) -> PromptRollout:
    return PromptRollout(
        (StageGroup("drafts", drafts, chosen, overflowed), StageGroup("refinements", refinements))
    )


def random_rollouts(seed: int, prompts: int = 5, two_stage: bool = True) -> list[PromptRollout]:
    rng = random.Random(seed)
    if not two_stage:
        return [one_stage(random_group(rng, 8)) for _ in range(prompts)]
    return [
        two_stages(random_group(rng, 4), 2, random_group(rng, 3, prompt_length=7), rng.random() < 0.5)
        for _ in range(prompts)
    ]
