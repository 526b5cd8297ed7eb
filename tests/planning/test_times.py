"""The parts of the time model: collectives, the engine's schedule, assumptions that can be set."""

import json

import pytest

from igrpo_mcore.errors import UserError
from igrpo_mcore.planning import planned_step, run_plan
from igrpo_mcore.planning.collectives import reduce_seconds
from igrpo_mcore.planning.decoding import completion_lengths
from igrpo_mcore.planning.efficiency import Efficiency
from igrpo_mcore.planning.engine import state_bytes
from igrpo_mcore.planning.plan import changed
from igrpo_mcore.planning.search import NEAR, SLACK, gpu_seconds, search
from tests.planning.test_plan import RECIPES, SHIPPED, shipped


@pytest.mark.parametrize(
    ("size", "ranks", "measured"),
    [(1 << 20, 2, 26.6), (1 << 20, 4, 40.2), (1 << 20, 8, 45.0), (1 << 19, 2, 17.7), (1 << 19, 4, 26.9)],
)
def test_small_all_reduces_as_measured(size, ranks, measured):
    """vLLM's all-reduce on H100, microseconds (table of sgl-project/sglang#2904)."""
    assert 1e6 * reduce_seconds(size, ranks, 450e9, Efficiency()) == pytest.approx(measured, rel=0.2)


def test_lengths_have_their_mean_and_stay_under_the_cap():
    lengths = completion_lengths(512, 1000, 4096)
    assert sum(lengths) / 512 == pytest.approx(1000, rel=0.02)
    assert 4000 < max(lengths) <= 4096


def test_tensor_parallelism_is_not_free():
    config = changed(shipped("igrpo_14b.yaml"), {"parallel.sp": True})
    four, eight = (
        planned_step(changed(config, {"parallel.tp": tp}), gpu="h100-80g", world=16) for tp in (4, 8)
    )
    assert eight.time.update > 1.1 * four.time.update


@pytest.mark.parametrize("name", SHIPPED)
def test_search_prefers_what_the_recipe_says(name):
    step = planned_step(shipped(name), gpu="h100-80g", world=SHIPPED[name])
    best = search(step, count=1)[0].step
    mine, theirs = step.config, best.config
    assert (best.layout, theirs.model.recompute) == (step.layout, mine.model.recompute)
    assert gpu_seconds(step) <= (1 + NEAR) * gpu_seconds(best)
    assert theirs.rollout.memory_fraction <= mine.rollout.memory_fraction
    assert step.memory.margin >= SLACK * step.memory.capacity


def test_the_engines_share_is_the_smallest_that_costs_nothing():
    step = planned_step(shipped("igrpo_14b.yaml"), gpu="h100-80g", world=16)
    best = search(step, count=1)[0].step
    share = best.config.rollout.memory_fraction

    def with_share(value):
        changes = {"rollout.memory_fraction": value}
        return planned_step(changed(best.config, changes), gpu="h100-80g", world=16, exact_refit=False)

    assert with_share(share + 0.1).time.step >= 0.998 * best.time.step
    below = with_share(round(share - 0.05, 2))
    assert below.memory.problem or below.time.step > 1.001 * best.time.step


def test_nemotron_h_keeps_its_state_in_fp32():
    """Nemotron-H-8B by hand: 24 Mamba layers, 128 x 64 x 128 states of 4 bytes, a window of 3 x 10,240."""
    step = planned_step(shipped("igrpo_nemotron_h_8b.yaml"), gpu="h100-80g", world=8)
    assert state_bytes(step.model.architecture, 1) == 24 * (128 * 64 * 128 * 4 + 3 * 10240 * 2)


def test_what_is_assumed_can_be_set(capsys):
    recipe = RECIPES / "igrpo_14b.yaml"

    def plan(**options):
        run_plan(recipe, as_json=True, **options)
        return json.loads(capsys.readouterr().out)

    usual = plan()
    assert usual["epoch"]["problems"] == 7500
    hours = usual["epoch"]["hours"]
    assert usual["epoch"]["gpu_hours"] == pytest.approx(16 * hours)
    assert plan(problems=15000)["epoch"]["hours"] == pytest.approx(2 * hours, rel=0.05)
    longer = plan(completion_tokens=4000)
    assert longer["lengths"]["completion"] == 4000
    assert longer["seconds"]["update"] > 1.5 * usual["seconds"]["update"]
    slower = plan(efficiency=usual["efficiency"]["update_flops"] / 2)
    assert 1.5 * usual["seconds"]["update"] < slower["seconds"]["update"] < 2 * usual["seconds"]["update"]
    run_plan(recipe)
    text = capsys.readouterr().out
    assert "GPU-hours" in text
    assert "completions of 2048 on average" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"completion_tokens": 5000}, "--completion-tokens 5000"),
        ({"efficiency": 1.5}, "--efficiency 1.5"),
        ({"problems": 0}, "--problems 0"),
    ],
)
def test_assumptions_out_of_range_are_user_errors(options, message):
    with pytest.raises(UserError, match=message):
        run_plan(RECIPES / "igrpo_14b.yaml", **options)
