"""A rollout is a list of stages: the first samples under q, the next under q' = Concat(q, chosen draft)."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from igrpo_mcore.config.schema import RolloutConfig
from igrpo_mcore.config.stages import stages_of
from igrpo_mcore.rollout.engine import RolloutEngine, Sampling
from igrpo_mcore.rollout.selection import select_draft
from igrpo_mcore.run.journal import Key, NoJournal
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
    journal: NoJournal | None = None,
    keys: Sequence[tuple[int, str, int]] = (),
) -> tuple[list[Group], StageStats]:
    """``sampling.num_samples`` scored completions after each prompt, one seed a prompt.

    Every stage of a training step samples by this call, evaluation too. With a ``journal`` and a prompt's
    (step, stage, position) in ``keys`` what is in it is neither sampled nor scored again.
    """
    start = time.perf_counter()
    journal, samples = journal or NoJournal(), range(sampling.num_samples)
    keys = keys or [(0, "", position) for position in range(len(prompts))]
    kept = [[journal.sampled(Key(*key, i)) for i in samples] for key in keys]
    whole = [i for i, group in enumerate(kept) if not any(group)]
    single = [(i, j) for i, group in enumerate(kept) if any(group) for j in samples if group[j] is None]
    for i, group in zip(
        whole, _generate(engine, prompts, sampling, [(i, seeds[i]) for i in whole]), strict=True
    ):
        kept[i] = list(group)
    one = replace(sampling, num_samples=1)
    for (i, j), (only,) in zip(
        single, _generate(engine, prompts, one, [(i, seeds[i] + j) for i, j in single]), strict=True
    ):
        kept[i][j] = only
    completions = [[c for c in group if c is not None] for group in kept]
    flat_keys = [Key(*key, i) for key in keys for i in samples]
    flat = [completion for group in completions for completion in group]
    for key, completion in zip(flat_keys, flat, strict=True):
        journal.keep_sampled(key, completion)
    sampled = time.perf_counter()
    found = [journal.score(key) for key in flat_keys]
    unscored = [i for i, score in enumerate(found) if score is None]
    problems = [prompts[i // sampling.num_samples].problem for i in unscored]
    new = dict(zip(unscored, scorer.score(problems, [flat[i] for i in unscored]), strict=True))
    for i, score in new.items():
        journal.keep_score(flat_keys[i], score)
    scores = iter([score or new[i] for i, score in enumerate(found)])
    scored = time.perf_counter()
    tokens = sum(len(completion.token_ids) for completion in flat)
    groups = [
        Group(prompt, tuple(group), tuple(next(scores) for _ in group))
        for prompt, group in zip(prompts, completions, strict=True)
    ]
    return groups, StageStats(tokens, sampled - start, scored - sampled)


def _generate(
    engine: RolloutEngine, prompts: Sequence[Prompt], sampling: Sampling, seeded: Sequence[tuple[int, int]]
) -> list[list[Completion]]:
    """Completions of the prompts of these indices, each with its seed; the engine is not asked for none."""
    if not seeded:
        return []
    return engine.generate([prompts[i].token_ids for i, _ in seeded], sampling, [seed for _, seed in seeded])


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
    stop_token_ids: tuple[int, ...],
    journal: NoJournal | None = None,
) -> tuple[list[PromptRollout], dict[str, StageStats]]:
    """Draw and score one engine's part of a step, stage by stage (paper, section 3); stats by stage.

    ``positions`` are the problems' places in the whole step, over all engines: seeds derive from
    (``seed``, ``step``, stage, position), so what is sampled does not depend on how the problems are
    spread over engines.
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
            journal,
            [(step, stage.name, position) for position in positions],
        )
        if stage is stages[-1]:
            for found, group in zip(sampled, groups, strict=True):
                found.append(StageGroup(stage.name, group))
            break
        prompts = []
        for found, group, position in zip(sampled, groups, positions, strict=True):
            choice_seed = derive_seed(seed, step, stage.name.replace("drafts", "selection"), position)
            chosen = select_draft(rollout.selection, group.rewards, choice_seed)
            prompt, overflowed = renderer.second(group.prompt.problem, group.completions[chosen])
            found.append(StageGroup(stage.name, group, chosen, overflowed))
            prompts.append(prompt)
    return [PromptRollout(tuple(found)) for found in sampled], stats
