"""The stages of a rollout against what the paper says, and its schedules, with a deterministic engine."""

import contextlib
from collections.abc import Sequence
from itertools import pairwise

import pytest

from igrpo_mcore.config.schema import RolloutConfig, Schedule, Selection
from igrpo_mcore.rollout.courses import training_course
from igrpo_mcore.rollout.engine import Sampling
from igrpo_mcore.rollout.scheduler import Scheduler
from igrpo_mcore.rollout.seeds import derive_seed
from igrpo_mcore.rollout.selection import dealt
from igrpo_mcore.run.journal import Journal, NoJournal
from igrpo_mcore.types import Problem, PromptRollout, SampleKey
from tests.support.simulated import AppendingRenderer, LateScorer, SeededEngine

STOP = (2,)
PROBLEMS = [Problem(id=f"p{i}", problem=str(i), answer=str(i)) for i in range(6)]
SCHEDULES = [Schedule.barrier, Schedule.handover]


def courses_of(rollout: RolloutConfig, positions: Sequence[int] = range(6), seed: int = 7, step: int = 3):
    return [training_course(PROBLEMS[i], step, i, 6, rollout, seed, STOP) for i in positions]


def run(
    selection: Selection = Selection.best,
    positions: Sequence[int] = range(6),
    *,
    seed: int = 7,
    step: int = 3,
    rounds: int = 1,
    journal: NoJournal | None = None,
    scorer: LateScorer | None = None,
    engine: SeededEngine | None = None,
    **options: object,
):
    engine, scorer = engine or SeededEngine(), scorer or LateScorer()
    rollout = RolloutConfig(
        num_drafts=4,
        draft_rounds=rounds,
        num_refinements=3,
        selection=selection,
        temperature=0.7,
        **({"max_completion_tokens": 8} | options),
    )
    courses = courses_of(rollout, positions, seed, step)
    scheduler = Scheduler(engine, scorer, AppendingRenderer(), rollout, greatest=2.0)
    stats = scheduler.run(courses, journal)
    assert not scorer.submitted
    assert not engine.busy
    return [course.rollout() for course in courses], stats, engine, scorer


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("selection", [Selection.best, Selection.worst, Selection.random])
def test_refinements_are_drawn_under_the_chosen_draft(selection: Selection, schedule: Schedule):
    rollouts, _, engine, scorer = run(selection, schedule=schedule)
    renderer = AppendingRenderer()
    asked = {key: (prompt, sampling) for key, prompt, sampling, _, _ in engine.submissions}
    assert len(asked) == len(scorer.pairs) == 6 * (4 + 3)
    for i, rollout in enumerate(rollouts):
        drafts, refinements = rollout.stages
        assert (drafts.name, refinements.name) == ("drafts", "refinements")
        assert drafts.chosen is not None
        assert refinements.chosen is None
        assert (len(drafts.group.completions), len(refinements.group.completions)) == (4, 3)
        assert asked[SampleKey(3, "drafts", i, 0)] == ((i + 100,), Sampling(4, 0.7, 8, STOP))
        prompt, overflowed = renderer.second(PROBLEMS[i], drafts.group.completions[drafts.chosen])
        assert refinements.group.prompt == prompt
        assert asked[SampleKey(3, "refinements", i, 2)] == (prompt.token_ids, Sampling(3, 0.7, 8, STOP))
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
    assert {step for *_, step in engine.submissions} == {0}
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
    seeds = [seed for *_, seed, _ in engine.submissions]
    assert len(set(seeds)) == len(seeds) == 6 * (3 * 4 + 3)
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


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_mismatched_refinements_are_drawn_under_the_best_draft_of_the_other_problem(schedule: Schedule):
    rollouts, *_ = run(Selection.mismatched, rounds=2, schedule=schedule)
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


def test_the_schedule_changes_when_and_not_what_is_sampled():
    barrier, _, at_once, _ = run(schedule=Schedule.barrier, engine=SeededEngine(slots=5))
    handed, _, engine, _ = run(schedule=Schedule.handover, engine=SeededEngine(slots=5))
    assert handed == barrier
    assert engine.steps < at_once.steps  # nothing waits for the last draft of all

    def refinements_wait_for(engine: SeededEngine, position: int) -> tuple[int, int]:
        drafts = max(
            step for key, step in engine.ended.items() if (key.stage, key.position) == ("drafts", position)
        )
        begun = [
            s for key, *_, s in engine.submissions if (key.stage, key.position) == ("refinements", position)
        ]
        return drafts, begun[0]

    last = max(step for key, step in at_once.ended.items() if key.stage == "drafts")
    for position in range(6):
        drafts, begun = refinements_wait_for(engine, position)
        assert drafts <= begun <= drafts + RolloutConfig().score_steps
        assert refinements_wait_for(at_once, position)[1] >= last


def test_scores_that_come_in_time_are_not_waited_for():
    *_, hidden = run(scorer=LateScorer(delay=3), score_steps=4, schedule=Schedule.handover)
    *_, waited = run(scorer=LateScorer(delay=9), score_steps=4, schedule=Schedule.handover)
    # an engine that has nothing else to do waits at once
    assert 0 < len(hidden.waited_for) < len(waited.waited_for)


def test_an_eager_order_changes_no_sample():
    assert run(eager=True)[0] == run()[0] == run(eager=True, scorer=LateScorer(delay=0))[0]


def test_seeds_differ_by_stage_step_run_and_position():
    def seeds(**kwargs: int) -> set[int]:
        _, _, engine, _ = run(Selection.best, **kwargs)
        return {seed - key.sample for key, _, _, seed, _ in engine.submissions}

    every = seeds() | seeds(step=4) | seeds(seed=8)
    assert len(every) == 3 * 2 * 6
    assert seeds() == seeds()
    assert derive_seed(1, 23) != derive_seed(12, 3)
    assert all(0 <= seed < 2**48 for seed in every)


def test_a_best_draft_ends_the_other_drafts_of_its_prompt():
    plain, *_ = run(max_completion_tokens=30)
    rollouts, _, engine, scorer = run(max_completion_tokens=30, draft_early_exit=True, whole_prompts=0.0)
    ended_early = 0
    for one, other in zip(rollouts, plain, strict=True):
        drafts, whole = one.stages[0], other.stages[0]
        kept = drafts.group.completions
        assert drafts.censored == 4 - len(kept)
        assert set(kept) <= set(whole.group.completions)  # no token of those that are left differs
        assert drafts.group.rewards[drafts.chosen] == max(whole.group.rewards)
        assert len(one.stages[1].group.completions) == 3
        ended_early += drafts.censored
    assert ended_early == len(engine.aborted) + len(scorer.dropped) > 0
    assert all(key.stage == "drafts" for key in engine.aborted)
    assert run(max_completion_tokens=30, draft_early_exit=True, whole_prompts=0.0)[0] == rollouts


def test_prompts_left_whole_are_drawn_by_seed_alone():
    options = dict(max_completion_tokens=30, draft_early_exit=True, whole_prompts=0.5)
    rollouts, *_ = run(**options)
    whole = [rollout.stages[0].censored is None for rollout in rollouts]
    assert 0 < sum(whole) < 6
    plain, *_ = run(max_completion_tokens=30)
    assert [r for r, w in zip(rollouts, whole, strict=True) if w] == [
        p for p, w in zip(plain, whole, strict=True) if w
    ]


def test_drafts_ahead_are_the_drafts_of_their_own_step():
    """Step 4's drafts beside step 3's refinements; its refinements a step later."""
    rollout = RolloutConfig(
        num_drafts=4, num_refinements=3, temperature=0.7, max_completion_tokens=8, schedule=Schedule.ahead
    )
    engine = SeededEngine()
    scheduler = Scheduler(engine, LateScorer(), AppendingRenderer(), rollout)
    now, later = courses_of(rollout, step=3), courses_of(rollout, step=4)
    for course in later:
        course.goal = 1
    scheduler.run([*now, *later])
    assert [course.complete for course in now] == [True] * 6
    assert [len(course.found) for course in later] == [1] * 6
    begun = {(key.step, key.stage): step for key, *_, step in reversed(engine.submissions)}
    assert begun[4, "drafts"] == begun[3, "drafts"] == 0
    assert (4, "refinements") not in begun
    for course in later:
        course.goal, course.prompt = 2, None  # as it comes from another engine
    scheduler.run(later)
    assert [c.rollout() for c in now] == run(step=3)[0]
    assert [c.rollout() for c in later] == run(step=4)[0]


class KilledError(Exception):
    """Where a test's job ends."""


class MortalEngine(SeededEngine):
    """Ends its job at a decoding step."""

    def __init__(self, last_step: int) -> None:
        super().__init__()
        self.last_step = last_step

    def step(self):
        if self.steps == self.last_step:
            raise KilledError
        return super().step()


@pytest.mark.parametrize("early_exit", [False, True])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("last_step", [0, 2, 5, 9, 14, 20, 27, 35])
def test_what_the_journal_has_is_not_sampled_again(
    tmp_path, last_step: int, schedule: Schedule, early_exit: bool
):
    options = dict(schedule=schedule, max_completion_tokens=20)
    options |= dict(draft_early_exit=early_exit, whole_prompts=0.3)
    undisturbed, _, engine, _ = run(**options)
    with contextlib.suppress(KilledError):
        run(journal=Journal(tmp_path, {}), engine=MortalEngine(last_step), **options)
    left = Journal(tmp_path, {})
    had = {key for key, *_ in engine.submissions if left.sampled(key)}
    again, _, resumed, scorer = run(journal=left, **options)
    assert not had & {key for key, *_ in resumed.submissions}
    if not early_exit:
        assert again == undisturbed
        assert len(had) + len(resumed.submissions) == len(engine.submissions)
    for position, (one, other) in enumerate(zip(again, undisturbed, strict=True)):
        if left.choice(3, "drafts", position):
            assert one == other
    left.close()
    third, _, idle, scorer = run(journal=Journal(tmp_path, {}), **options)
    assert third == again
    assert (idle.submissions, scorer.pairs) == ([], [])


def test_stats_count_tokens_and_share_seconds(monkeypatch: pytest.MonkeyPatch):
    """A clock that only decoding (2 s a step) and waiting for scores (5 s a call) move."""
    clock = [100.0]
    step, take = SeededEngine.step, LateScorer.take

    def slow_step(self):
        clock[0] += 2
        return step(self)

    def slow_take(self, keys):
        clock[0] += 5
        return take(self, keys)

    monkeypatch.setattr(SeededEngine, "step", slow_step)
    monkeypatch.setattr(LateScorer, "take", slow_take)
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    for schedule in SCHEDULES:
        begun = clock[0]
        rollouts, stats, engine, _ = run(schedule=schedule)
        for name, measured in stats.items():
            (groups,) = zip(*([s.group for s in r.stages if s.name == name] for r in rollouts), strict=True)
            assert measured.tokens == sum(len(c.token_ids) for group in groups for c in group.completions)
            assert measured.rate == measured.tokens / measured.seconds
        assert sum(s.seconds for s in stats.values()) == pytest.approx(2 * engine.steps)
        waited = sum(s.reward_seconds for s in stats.values())
        assert waited + 2 * engine.steps == pytest.approx(clock[0] - begun)
        if schedule == Schedule.barrier:
            last = max(step for key, step in engine.ended.items() if key.stage == "drafts")
            assert stats["drafts"].seconds == 2 * last
