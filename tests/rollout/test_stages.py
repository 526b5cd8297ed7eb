"""The two stages against what the paper says, with a deterministic engine written here."""

import random
from collections.abc import Iterable, Sequence

import pytest
from torch import Tensor

from igrpo_mcore.config.schema import RolloutConfig, Selection
from igrpo_mcore.rollout.engine import EngineMemory, Sampling
from igrpo_mcore.rollout.stages import derive_seed, sample
from igrpo_mcore.types import Completion, Problem, Prompt, PromptRollout, Score

STOP = (2,)
PROBLEMS = [Problem(id=f"p{i}", problem=str(i), answer=str(i)) for i in range(6)]


class SeededEngine:
    """Tokens drawn from the prompt and the seed alone; remembers its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[tuple[int, ...]], Sampling, list[int]]] = []

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int]
    ) -> list[list[Completion]]:
        self.calls.append(([tuple(ids) for ids in prompts], sampling, list(seeds)))
        groups = []
        for ids, seed in zip(prompts, seeds, strict=True):
            rng = random.Random(f"{tuple(ids)}/{seed}")
            lengths = [rng.randrange(1, sampling.max_tokens + 1) for _ in range(sampling.num_samples)]
            tokens = [tuple(rng.randrange(3, 50) for _ in range(length)) for length in lengths]
            groups.append([Completion(t, tuple(-0.1 for _ in t), str(sum(t)), False) for t in tokens])
        return groups

    def load_weights(self, named_tensors: Iterable[tuple[str, Tensor]]) -> None: ...
    def sleep(self, *, keep_weights: bool = False) -> None: ...
    def wake(self, what: EngineMemory) -> None: ...
    def close(self) -> None: ...


class AppendingRenderer:
    """q is the problem's number; q' appends the draft's tokens, at most four of them."""

    def first(self, problem: Problem) -> Prompt:
        return Prompt(problem, (int(problem.problem) + 100,))

    def second(self, problem: Problem, draft: Completion) -> tuple[Prompt, bool]:
        kept = draft.token_ids[-4:]
        return Prompt(problem, (*self.first(problem).token_ids, *kept)), len(draft.token_ids) > 4


class SumScorer:
    """The reward is the sum of the tokens modulo 3 (ties happen); counts its pairs."""

    def __init__(self) -> None:
        self.pairs: list[tuple[Problem, Completion]] = []

    def score(self, problems: Sequence[Problem], completions: Sequence[Completion]) -> list[Score]:
        self.pairs += zip(problems, completions, strict=True)
        return [Score(float(sum(c.token_ids) % 3)) for c in completions]


def run(selection: Selection, positions: Sequence[int] = range(6), *, seed: int = 7, step: int = 3):
    engine, scorer = SeededEngine(), SumScorer()
    rollout = RolloutConfig(
        num_drafts=4, num_refinements=3, selection=selection, temperature=0.7, max_completion_tokens=8
    )
    rollouts, stats = sample(
        [PROBLEMS[i] for i in positions],
        engine,
        AppendingRenderer(),
        scorer,
        rollout,
        seed=seed,
        step=step,
        positions=list(positions),
        stop_token_ids=STOP,
    )
    return rollouts, stats, engine, scorer


@pytest.mark.parametrize("selection", [Selection.best, Selection.worst, Selection.random])
def test_refinements_are_drawn_under_the_chosen_draft(selection: Selection):
    rollouts, _, engine, scorer = run(selection)
    renderer = AppendingRenderer()
    (first_prompts, first_sampling, _), (second_prompts, second_sampling, _) = engine.calls
    assert first_sampling == Sampling(4, 0.7, 8, STOP)
    assert second_sampling == Sampling(3, 0.7, 8, STOP)
    assert len(scorer.pairs) == 6 * (4 + 3)
    for i, rollout in enumerate(rollouts):
        assert rollout.drafts is not None
        assert rollout.chosen is not None
        assert (len(rollout.drafts.completions), len(rollout.refinements.completions)) == (4, 3)
        assert rollout.drafts.prompt.token_ids == first_prompts[i] == (i + 100,)
        prompt, overflowed = renderer.second(PROBLEMS[i], rollout.drafts.completions[rollout.chosen])
        assert rollout.refinements.prompt == prompt
        assert second_prompts[i] == prompt.token_ids
        assert rollout.draft_overflowed == overflowed
        rewards = rollout.drafts.rewards
        if selection == Selection.best:
            assert rollout.chosen == rewards.index(max(rewards))
        if selection == Selection.worst:
            assert rollout.chosen == rewards.index(min(rewards))
        for group in (rollout.drafts, rollout.refinements):
            assert group.rewards == [sum(c.token_ids) % 3 for c in group.completions]
    assert any(r.draft_overflowed for r in rollouts)
    assert not all(r.draft_overflowed for r in rollouts)


def test_plain_grpo_has_one_group_at_the_same_budget():
    rollouts, stats, engine, _ = run(Selection.none)
    assert len(engine.calls) == 1
    for rollout, problem in zip(rollouts, PROBLEMS, strict=True):
        assert rollout.drafts is None
        assert rollout.chosen is None
        assert rollout.refinements.prompt == AppendingRenderer().first(problem)
        assert len(rollout.refinements.completions) == 4 + 3
    assert stats.drafts.tokens == stats.draft_rewards.tokens == 0


@pytest.mark.parametrize("selection", list(Selection))
def test_result_does_not_depend_on_the_spread_over_engines(selection: Selection):
    whole, *_ = run(selection)
    spread: dict[int, PromptRollout] = {}
    for engine_index in range(2):
        positions = list(range(engine_index, 6, 2))
        part, *_ = run(selection, positions)
        spread |= dict(zip(positions, part, strict=True))
    assert [spread[i] for i in range(6)] == whole


def test_seeds_differ_by_stage_step_run_and_position():
    def seeds(**kwargs: int) -> list[int]:
        _, _, engine, _ = run(Selection.best, **kwargs)
        return [seed for _, _, seeds in engine.calls for seed in seeds]

    every = seeds() + seeds(step=4) + seeds(seed=8)
    assert len(set(every)) == len(every) == 3 * 2 * 6
    assert seeds() == seeds()
    assert derive_seed(1, 23) != derive_seed(12, 3)
    assert all(0 <= seed < 2**48 for seed in every)


def test_stats_count_completion_tokens_and_seconds_of_each_phase(monkeypatch: pytest.MonkeyPatch):
    """A clock that only sampling (2 s a prompt and sample) and scoring (0.5 s a completion) move."""
    clock = [100.0]
    generate, score = SeededEngine.generate, SumScorer.score

    def slow_generate(self, prompts, sampling, seeds):
        clock[0] += 2 * len(prompts) * sampling.num_samples
        return generate(self, prompts, sampling, seeds)

    def slow_score(self, problems, completions):
        clock[0] += 0.5 * len(completions)
        return score(self, problems, completions)

    monkeypatch.setattr(SeededEngine, "generate", slow_generate)
    monkeypatch.setattr(SumScorer, "score", slow_score)
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    rollouts, stats, _, _ = run(Selection.best)
    drafted = sum(len(c.token_ids) for r in rollouts if r.drafts for c in r.drafts.completions)
    refined = sum(len(c.token_ids) for r in rollouts for c in r.refinements.completions)
    assert stats.drafts.tokens == stats.draft_rewards.tokens == drafted
    assert stats.refinements.tokens == stats.refinement_rewards.tokens == refined
    assert (stats.drafts.seconds, stats.refinements.seconds) == (2 * 6 * 4, 2 * 6 * 3)
    assert (stats.draft_rewards.seconds, stats.refinement_rewards.seconds) == (0.5 * 6 * 4, 0.5 * 6 * 3)
