"""The stages against what the paper says, with a deterministic engine written here."""

import random
from collections.abc import Iterable, Sequence
from itertools import pairwise

import pytest
from torch import Tensor

from igrpo_mcore.config.schema import RolloutConfig, Selection
from igrpo_mcore.rollout.engine import EngineMemory, Sampling
from igrpo_mcore.rollout.selection import dealt
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


def run(
    selection: Selection,
    positions: Sequence[int] = range(6),
    *,
    count: int = 6,
    seed: int = 7,
    step: int = 3,
    rounds: int = 1,
):
    engine, scorer = SeededEngine(), SumScorer()
    rollout = RolloutConfig(
        num_drafts=4,
        draft_rounds=rounds,
        num_refinements=3,
        selection=selection,
        temperature=0.7,
        max_completion_tokens=8,
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
        count=count,
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
        drafts, refinements = rollout.stages
        assert (drafts.name, refinements.name) == ("drafts", "refinements")
        assert drafts.chosen is not None
        assert refinements.chosen is None
        assert (len(drafts.group.completions), len(refinements.group.completions)) == (4, 3)
        assert drafts.group.prompt.token_ids == first_prompts[i] == (i + 100,)
        prompt, overflowed = renderer.second(PROBLEMS[i], drafts.group.completions[drafts.chosen])
        assert refinements.group.prompt == prompt
        assert second_prompts[i] == prompt.token_ids
        assert drafts.overflowed == overflowed
        rewards = drafts.group.rewards
        if selection == Selection.best:
            assert drafts.chosen == rewards.index(max(rewards))
        if selection == Selection.worst:
            assert drafts.chosen == rewards.index(min(rewards))
        for stage in rollout.stages:
            assert stage.group.rewards == [sum(c.token_ids) % 3 for c in stage.group.completions]
    overflowed = [rollout.stages[0].overflowed for rollout in rollouts]
    assert any(overflowed)
    assert not all(overflowed)


def test_plain_grpo_is_one_stage_at_the_same_budget():
    rollouts, stats, engine, _ = run(Selection.none)
    assert len(engine.calls) == 1
    for rollout, problem in zip(rollouts, PROBLEMS, strict=True):
        (stage,) = rollout.stages
        assert (stage.name, stage.chosen) == ("completions", None)
        assert rollout.single_shot is rollout.trained is stage.group
        assert stage.group.prompt == AppendingRenderer().first(problem)
        assert len(stage.group.completions) == 4 + 3
    assert list(stats) == ["completions"]


@pytest.mark.parametrize("selection", [Selection.best, Selection.random])
def test_each_further_round_of_drafts_is_drawn_under_the_draft_chosen_before(selection: Selection):
    rollouts, stats, engine, _ = run(selection, rounds=3)
    assert list(stats) == ["drafts", "drafts_2", "drafts_3", "refinements"]
    assert [sampling.num_samples for _, sampling, _ in engine.calls] == [4, 4, 4, 3]
    seeds = [seed for _, _, of_stage in engine.calls for seed in of_stage]
    assert len(set(seeds)) == len(seeds)
    for i, rollout in enumerate(rollouts):
        for before, after in pairwise(rollout.stages):
            expected, _ = AppendingRenderer().second(PROBLEMS[i], before.group.completions[before.chosen])
            assert after.group.prompt == expected
            if selection == Selection.best:
                assert before.chosen == before.group.rewards.index(max(before.group.rewards))
    assert rollouts[0].stages[:1] == run(selection)[0][0].stages[:1]
    assert len({tuple(stage.chosen for stage in rollout.stages) for rollout in rollouts}) > 1


@pytest.mark.parametrize("selection", list(Selection))
def test_result_does_not_depend_on_the_spread_over_engines(selection: Selection):
    whole, *_ = run(selection)
    spread: dict[int, PromptRollout] = {}
    for engine_index in range(2):
        positions = dealt(selection, 6, 2, engine_index)
        part, *_ = run(selection, positions)
        spread |= dict(zip(positions, part, strict=True))
    assert [spread[i] for i in range(6)] == whole


def test_mismatched_refinements_are_drawn_under_the_best_draft_of_the_other_problem():
    rollouts, *_ = run(Selection.mismatched, rounds=2)
    renderer = AppendingRenderer()
    for i, rollout in enumerate(rollouts):
        other = rollouts[i + 1 if i % 2 == 0 else i - 1]
        for before, after, theirs in zip(rollout.stages, rollout.stages[1:], other.stages, strict=False):
            assert theirs.chosen == theirs.group.rewards.index(max(theirs.group.rewards))
            draft = theirs.group.completions[theirs.chosen]
            assert before.foreign == (draft, theirs.group.scores[theirs.chosen]) == before.given
            assert before.chosen == before.group.rewards.index(max(before.group.rewards))
            expected, overflowed = renderer.second(PROBLEMS[i], draft)
            assert (after.group.prompt, before.overflowed) == (expected, overflowed)
        assert rollout.stages[-1].foreign is None
    assert rollouts[0].stages[0].group == run(Selection.best)[0][0].stages[0].group


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
    for (name, measured), samples in zip(stats.items(), (4, 3), strict=True):
        (groups,) = zip(*([s.group for s in r.stages if s.name == name] for r in rollouts), strict=True)
        assert measured.tokens == sum(len(c.token_ids) for group in groups for c in group.completions)
        assert (measured.seconds, measured.reward_seconds) == (2 * 6 * samples, 0.5 * 6 * samples)
        assert measured.rate == measured.tokens / measured.seconds
