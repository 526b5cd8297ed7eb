"""The two stages of one step: drafts under q, then refinements under q' = Concat(q, draft)."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from igrpo_mcore.config.schema import RolloutConfig, Selection
from igrpo_mcore.rollout.engine import RolloutEngine, Sampling
from igrpo_mcore.rollout.selection import select_draft
from igrpo_mcore.types import Completion, Group, Problem, Prompt, PromptRollout, Score


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
class PhaseStats:
    """Completion tokens that a phase sampled or scored, and the seconds it took."""

    tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class RolloutStats:
    """The phases of one engine's part of a step; the draft phases are empty under plain GRPO."""

    refinements: PhaseStats
    refinement_rewards: PhaseStats
    drafts: PhaseStats = PhaseStats()
    draft_rewards: PhaseStats = PhaseStats()


def derive_seed(*parts: int | str) -> int:
    """A 48-bit seed that depends on every part (leaves room for the engine's + sample index)."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big")


def sample_groups(
    prompts: Sequence[Prompt],
    engine: RolloutEngine,
    scorer: Scorer,
    sampling: Sampling,
    seeds: Sequence[int],
) -> tuple[list[Group], PhaseStats, PhaseStats]:
    """``sampling.num_samples`` scored completions after each prompt; what sampling and scoring took.

    Training and evaluation both sample by this call.
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
    return groups, PhaseStats(tokens, sampled - start), PhaseStats(tokens, scored - sampled)


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
) -> tuple[list[PromptRollout], RolloutStats]:
    """Draw and score one engine's part of a step (paper, section 3, both stages).

    ``positions`` are the problems' places in the whole step, over all engines: seeds derive from
    (``seed``, ``step``, stage, position), so what is sampled does not depend on how the problems are
    spread over engines. With ``selection=none`` there is one group of N + G completions under q.
    """
    if len(positions) != len(problems):
        raise ValueError(f"{len(problems)} problems but {len(positions)} positions")

    def draw(
        prompts: list[Prompt], num_samples: int, stage: str
    ) -> tuple[list[Group], PhaseStats, PhaseStats]:
        seeds = [derive_seed(seed, step, stage, position) for position in positions]
        sampling = Sampling(num_samples, rollout.temperature, rollout.max_completion_tokens, stop_token_ids)
        return sample_groups(prompts, engine, scorer, sampling, seeds)

    first_prompts = [renderer.first(problem) for problem in problems]
    if rollout.selection == Selection.none:
        budget = rollout.num_drafts + rollout.num_refinements
        groups, generation, rewards = draw(first_prompts, budget, "only")
        return [PromptRollout(None, None, group) for group in groups], RolloutStats(generation, rewards)

    drafts, draft_generation, draft_rewards = draw(first_prompts, rollout.num_drafts, "drafts")
    chosen = [
        select_draft(rollout.selection, group.rewards, derive_seed(seed, step, "selection", position))
        for group, position in zip(drafts, positions, strict=True)
    ]
    second = [
        renderer.second(problem, group.completions[index])
        for problem, group, index in zip(problems, drafts, chosen, strict=True)
    ]
    refinements, generation, rewards = draw(
        [prompt for prompt, _ in second], rollout.num_refinements, "refinements"
    )
    rollouts = [
        PromptRollout(draft_group, index, group, overflowed)
        for draft_group, index, group, (_, overflowed) in zip(
            drafts, chosen, refinements, second, strict=True
        )
    ]
    return rollouts, RolloutStats(generation, rewards, draft_generation, draft_rewards)
