"""A rollout is a list of stages: the first samples under q, the next under q' = Concat(q, chosen draft)."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from igrpo_mcore.config.schema import RolloutConfig
from igrpo_mcore.config.stages import stages_of
from igrpo_mcore.rollout.engine import RolloutEngine, Sampling
from igrpo_mcore.rollout.selection import choose, source_of
from igrpo_mcore.types import Completion, Group, Problem, Prompt, PromptRollout, Score, StageGroup


class Renderer(Protocol):
    """Problems to prompts."""

    def first(self, problem: Problem) -> Prompt:
        """The prompt q."""
        ...

    def second(self, problem: Problem, draft: Completion) -> tuple[Prompt, bool]:
        """The prompt q' with the draft, and whether the draft overflowed the prompt budget."""
        ...


class Scorer(Protocol):
    """Completions to rewards."""

    def score(self, problems: Sequence[Problem], completions: Sequence[Completion]) -> list[Score]:
        """One score a (problem, completion) pair."""
        ...


@dataclass(frozen=True)
class StageStats:
    """Completion tokens of a stage, the seconds that sampling them took, and those of scoring them."""

    tokens: int
    seconds: float
    reward_seconds: float

    @property
    def rate(self) -> float | None:
        """Tokens a second; none where there are no tokens."""
        return self.tokens / self.seconds if self.tokens else None


def derive_seed(*parts: int | str) -> int:
    """A 48-bit seed that depends on every part (leaves room for the engine's + sample index)."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big")


def sample_stage(
    prompts: Sequence[Prompt],
    engine: RolloutEngine,
    scorer: Scorer,
    sampling: Sampling,
    seeds: Sequence[int],
) -> tuple[list[Group], StageStats]:
    """``sampling.num_samples`` scored completions after each prompt, one seed a prompt.

    Every stage of a training step samples by this call, evaluation too.
    """
    start = time.perf_counter()
    completions = engine.generate([prompt.token_ids for prompt in prompts], sampling, seeds)
    sampled = time.perf_counter()
    flat = [completion for group in completions for completion in group]
    scores = iter(scorer.score([p.problem for p in prompts for _ in range(sampling.num_samples)], flat))
    scored = time.perf_counter()
    tokens = sum(len(completion.token_ids) for completion in flat)
    groups = [
        Group(prompt, tuple(group), tuple(next(scores) for _ in group))
        for prompt, group in zip(prompts, completions, strict=True)
    ]
    return groups, StageStats(tokens, sampled - start, scored - sampled)


def sample(
    problems: Sequence[Problem],
    engine: RolloutEngine,
    renderer: Renderer,
    scorer: Scorer,
    rollout: RolloutConfig,
    *,
    seed: int,
    step: int,
    positions: Sequence[int],
    count: int,
    stop_token_ids: tuple[int, ...],
) -> tuple[list[PromptRollout], dict[str, StageStats]]:
    """Draw and score one engine's part of a step, stage by stage (paper, section 3); stats by stage.

    ``positions`` are the problems' places in the whole step of ``count`` problems, over all engines: seeds
    derive from (``seed``, ``step``, stage, position), so what is sampled does not depend on how the problems
    are spread over engines. Give those that ``selection.dealt`` says.
    """
    if len(positions) != len(problems):
        raise ValueError(f"{len(problems)} problems but {len(positions)} positions")
    stages, stats = stages_of(rollout), {}
    sampled: list[list[StageGroup]] = [[] for _ in problems]
    prompts = [renderer.first(problem) for problem in problems]
    for stage in stages:
        key = "only" if len(stages) == 1 else stage.name
        groups, stats[stage.name] = sample_stage(
            prompts,
            engine,
            scorer,
            Sampling(stage.num_samples, rollout.temperature, rollout.max_completion_tokens, stop_token_ids),
            [derive_seed(seed, step, key, position) for position in positions],
        )
        if stage is stages[-1]:
            for found, group in zip(sampled, groups, strict=True):
                found.append(StageGroup(stage.name, group))
            break
        prompts = []
        seeds = [derive_seed(seed, step, stage.name.replace("drafts", "selection"), p) for p in positions]
        own = [
            StageGroup(stage.name, group, choose(rollout.selection, group, choice_seed))
            for group, choice_seed in zip(groups, seeds, strict=True)
        ]
        place = {position: i for i, position in enumerate(positions)}
        for i, position in enumerate(positions):
            shown = own[place[source_of(rollout.selection, position, count)]]
            prompt, overflowed = renderer.second(own[i].group.prompt.problem, shown.given[0])
            foreign = None if shown is own[i] else shown.given
            sampled[i].append(replace(own[i], overflowed=overflowed, foreign=foreign))
            prompts.append(prompt)
    return [PromptRollout(tuple(found)) for found in sampled], stats
