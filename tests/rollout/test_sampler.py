"""Step after step of the sampler, on an engine without weights: schedules, lag, refills and resumption."""

from itertools import pairwise

import pytest

from igrpo_mcore.config.schema import Config, DataConfig, ModelConfig, Schedule, Selection
from igrpo_mcore.data.mixture import Mixture
from igrpo_mcore.data.order import ProblemOrder
from igrpo_mcore.rollout.dealing import deal
from igrpo_mcore.rollout.refill import has_spread
from igrpo_mcore.rollout.sampler import Sampler, StepSamples
from igrpo_mcore.rollout.scheduler import Scheduler
from igrpo_mcore.run.journal import Journal, NoJournal
from igrpo_mcore.run.phases import Phases
from igrpo_mcore.types import Completion, Group, Problem, Prompt, SampleKey, Score
from tests.support.simulated import AppendingRenderer, LateScorer, SeededEngine

STEPS, COUNT = 4, 3
PROBLEMS = [Problem(f"p{i}", str(i), str(i)) for i in range(50)]


class KilledError(Exception):
    """Where a test's job ends."""


class OneEngine(SeededEngine):
    """Of one rank; ends its job at a decoding step if asked."""

    index, count, is_first_rank = 0, 1, True
    last_step = 10**9

    def step(self):
        if self.steps >= self.last_step:
            raise KilledError
        return super().step()


def made(journal: NoJournal | None = None, **options: object) -> Sampler:
    config = Config(model=ModelConfig(path="m"), data=DataConfig(path="d"))
    config.train.steps, config.train.prompts_per_step = STEPS, COUNT
    config.rollout.num_drafts, config.rollout.num_refinements = 3, 3
    config.rollout.max_completion_tokens = 12
    for name, value in options.items():
        setattr(config.rollout, name, value)
    sampler = Sampler.__new__(Sampler)
    sampler.engine, sampler._config, sampler._phases = OneEngine(), config, Phases()
    sampler._problems = Mixture([PROBLEMS], [ProblemOrder(len(PROBLEMS), 0, False)], [1.0])
    sampler._stop_token_ids, sampler.journal, sampler._begun = (2,), journal or NoJournal(), {}
    sampler._scheduler = Scheduler(sampler.engine, LateScorer(), AppendingRenderer(), config.rollout)
    return sampler


def run(sampler: Sampler, first: int = 1, drawn: int = 0) -> list[StepSamples]:
    steps = []
    for step in range(first, STEPS + 1):
        steps.append(sampler.sample(step, drawn))
        drawn += steps[-1].drawn
    return steps


def submitted(sampler: Sampler) -> set[SampleKey]:
    return {key for key, *_ in sampler.engine.submissions}


@pytest.mark.parametrize("selection", [Selection.best, Selection.mismatched])
def test_no_schedule_changes_what_a_step_trains_on(selection: Selection):
    """An engine whose weights do not change shows that nothing but their age does."""
    expected = [step.rollouts for step in run(made(schedule=Schedule.barrier, selection=selection))]
    for options in (
        dict(schedule=Schedule.handover),
        dict(schedule=Schedule.ahead),
        dict(schedule=Schedule.handover, lag=1),
        dict(schedule=Schedule.ahead, lag=1),
        dict(schedule=Schedule.handover, eager=True),
    ):
        sampler = made(selection=selection, **options)
        assert [step.rollouts for step in run(sampler)] == expected, options
        assert len(submitted(sampler)) == STEPS * COUNT * 6  # nothing twice, nothing after the last step
    problems = [r.single_shot.prompt.problem.id for rollouts in expected for r in rollouts]
    assert problems == [f"p{i}" for i in range(STEPS * COUNT)]


def test_ahead_samples_the_next_drafts_beside_the_refinements():
    sampler = made(schedule=Schedule.ahead)
    sampler.sample(1, 0)
    assert {(key.step, key.stage) for key in submitted(sampler)} == {
        (1, "drafts"),
        (1, "refinements"),
        (2, "drafts"),
    }
    before = len(sampler.engine.submissions)
    sampler.sample(2, COUNT)
    new = [(key.step, key.stage) for key, *_ in sampler.engine.submissions[before:]]
    assert set(new) == {(2, "refinements"), (3, "drafts")}
    begun = {(key.step, key.stage): step for key, *_, step in sampler.engine.submissions[before:]}
    assert begun[2, "refinements"] == begun[3, "drafts"]  # at the same decoding step


def test_with_a_lag_what_is_fresh_is_the_next_step():
    sampler = made(schedule=Schedule.handover, lag=1)
    steps = run(sampler)
    for now, later in pairwise(steps):
        assert now.fresh == later.rollouts != now.rollouts
    assert steps[-1].fresh == []
    plain = run(made(schedule=Schedule.handover))
    assert all(step.fresh is step.rollouts for step in plain)


def test_groups_without_spread_are_replaced_by_the_next_problems():
    class Easy(LateScorer):
        """Problems of an even number are always right."""

        def __init__(self) -> None:
            super().__init__(self.of)

        @staticmethod
        def of(problem: Problem, completion: Completion) -> Score:
            right = int(problem.problem) % 2 == 0 or sum(completion.token_ids) % 2 == 0
            return Score(right - 0.01 * len(completion.token_ids), {"accuracy": float(right)})

    def refilling(rounds: int) -> list[StepSamples]:
        sampler = made(schedule=Schedule.handover, max_refills=rounds)
        sampler._scheduler = Scheduler(sampler.engine, Easy(), AppendingRenderer(), sampler._config.rollout)
        return run(sampler)

    kept, once, many = (refilling(rounds) for rounds in (0, 1, 9))
    assert all(step.drawn == COUNT and not step.refilled for step in kept)
    for step in once:
        assert step.drawn == COUNT + step.refilled
        assert step.refilled > 0
    for step in many:
        assert all(has_spread(rollout.trained) for rollout in step.rollouts)
        assert len(step.rollouts) == COUNT
    ids = [r.single_shot.prompt.problem.id for step in many for r in step.rollouts]
    assert len(set(ids)) == len(ids)
    assert sum(step.drawn for step in many) > sum(step.drawn for step in once)


@pytest.mark.parametrize(
    ("parts", "spread"), [([1.0, 1.0], False), ([1.0, 0.0], True), ([None, None], True)], ids=str
)
def test_spread_is_of_the_raw_accuracy_where_there_is_one(parts: list, spread: bool):
    scores = tuple(
        Score(float(i), {} if part is None else {"accuracy": part}) for i, part in enumerate(parts)
    )
    completion = Completion((1,), (0.0,), "", False)
    assert has_spread(Group(Prompt(PROBLEMS[0], (1,)), (completion,) * 2, scores)) == spread


@pytest.mark.parametrize("lag", [0, 1])
@pytest.mark.parametrize("last_step", [1, 7, 12, 18, 25, 33])
def test_a_kill_while_drafts_ahead_are_in_flight_loses_and_doubles_nothing(tmp_path, last_step, lag):
    options = dict(schedule=Schedule.ahead, lag=lag)
    undisturbed = made(**options)
    expected = run(undisturbed)
    killed = made(Journal(tmp_path, {}), **options)
    killed.engine.last_step = last_step
    done: list[StepSamples] = []
    try:
        for step in range(1, STEPS + 1):
            done.append(killed.sample(step, (step - 1) * COUNT))
    except KilledError:
        pass
    assert len(done) < STEPS
    assert [step.rollouts for step in done] == [step.rollouts for step in expected[: len(done)]]

    # the checkpoint of the last whole step is there, nothing of memory
    first = len(done) + 1
    journal = Journal(tmp_path, {}, first_step=first)
    kept = {key for key in submitted(undisturbed) if journal.sampled(key)}
    assert len(kept) > 0 or last_step == 1
    resumed = made(journal, **options)
    again = run(resumed, first, len(done) * COUNT)
    assert [step.rollouts for step in again] == [step.rollouts for step in expected[len(done) :]]
    assert not kept & submitted(resumed)
    needed = {key for key in submitted(undisturbed) if key.step >= first}
    assert kept | submitted(resumed) == needed


def test_dealing_evens_out_what_engines_have_left():
    costs = [9.0, 1.0, 1.0, 7.0, 2.0, 2.0]
    dealt = deal(costs, 2)
    assert sorted(i for part in dealt for i in part) == list(range(6))
    assert [sum(costs[i] for i in part) for part in dealt] == [11.0, 11.0]
    assert deal([1.0] * 5, 2) == [[0, 2, 4], [1, 3]]
    assert deal([1.0, 1.0], 2, loads=[5.0, 0.0]) == [[], [0, 1]]
