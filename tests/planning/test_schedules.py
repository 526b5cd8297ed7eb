"""The plan of each schedule against the real scheduler, replayed over simulated engines at true sizes.

The two share the seconds of a decoding step and the distribution of lengths; batching, the cache, prefill,
the order of everything, the scores and what is drawn are each its own.
"""

from statistics import fmean

import pytest

from benchmarks.schedules import replay, replayed
from igrpo_mcore.config.schema import Schedule
from igrpo_mcore.planning import planned_step
from igrpo_mcore.planning.comparison import GRPO, SCHEDULES, compared
from igrpo_mcore.planning.limits import replanned
from igrpo_mcore.planning.plan import changed
from tests.planning.test_plan import shipped

KINDS = {"GRPO": GRPO, **SCHEDULES}


@pytest.fixture(scope="module")
def recipe():
    """The 14B recipe on 16 H100."""
    return planned_step(shipped("igrpo_14b.yaml"), gpu="h100-80g", world=16)


def seconds(step) -> float:
    return step.time.drafts + step.time.refinements


@pytest.mark.parametrize("kind", KINDS)
def test_plan_and_replay_of_the_14b_recipe(recipe, kind):
    step = replanned(recipe, KINDS[kind])
    found = replayed(step, seeds=2)
    assert seconds(step) == pytest.approx(fmean(r.seconds for r in found), rel=0.1)


@pytest.mark.parametrize("kind", ["GRPO", "handover", "ahead, early exit"])
def test_plan_and_replay_where_the_cache_is_full(recipe, kind):
    """An engine's share that holds a ninth of the sequences: here the slowest engine is up to a fifth slower
    than the mean one, which is what a plan is of."""
    step = replanned(recipe, KINDS[kind] | {"rollout.memory_fraction": 0.15})
    found = replayed(step, seeds=1)
    assert sum(r.preempted for r in found) > 0
    assert seconds(step) == pytest.approx(fmean(r.mean_seconds for r in found), rel=0.1)


def test_no_schedule_is_slower_than_the_one_before_it(recipe):
    """By what each does away with: the barrier, the second tail, tokens that decide nothing."""
    grpo, *rows = compared(recipe)
    by_name = {row.name: row for row in rows}
    assert grpo.rollout < by_name["ahead"].rollout < by_name["handover"].rollout <= by_name["barrier"].rollout
    for schedule in Schedule:
        assert by_name[f"{schedule}, early exit"].rollout < 0.97 * by_name[schedule].rollout
    for row in rows:  # all else of a step is the same
        assert row.step - row.rollout == pytest.approx(rows[0].step - rows[0].rollout)


def test_a_recipe_is_planned_with_its_own_schedule(recipe):
    own = changed(recipe.config, {"rollout.schedule": Schedule.ahead, "rollout.draft_early_exit": True})
    step = planned_step(own, gpu="h100-80g", world=16)
    assert seconds(step) == pytest.approx({t.name: t.rollout for t in compared(recipe)}["ahead, early exit"])


def test_shorter_drafts_are_sooner_done(recipe):
    """Half the budget of drafts: the tail of a draft is half as long, and q' shorter."""
    halved = replanned(recipe, {"rollout.schedule": Schedule.barrier, "rollout.max_draft_tokens": 2048})
    whole = replanned(recipe, {"rollout.schedule": Schedule.barrier})
    assert 0.4 < halved.time.drafts / whole.time.drafts < 0.6
    assert halved.time.refinements < whole.time.refinements


def test_a_replay_is_the_same_again(recipe):
    step = replanned(recipe, KINDS["ahead, early exit"])
    assert replay(step, "even", 2, 0) == replay(step, "even", 2, 0)
