"""Draft choice: ties, extremes, seeded randomness."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from igrpo_mcore.config.schema import Selection
from igrpo_mcore.rollout.selection import choose, dealt, select_draft, source_of
from igrpo_mcore.types import Completion, Group, Problem, Prompt, Score

REWARDS = st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0]), min_size=1, max_size=8)


@given(REWARDS)
def test_best_and_worst_are_the_first_extremes(rewards: list[float]):
    best = select_draft(Selection.best, rewards, seed=0)
    worst = select_draft(Selection.worst, rewards, seed=0)
    assert best == rewards.index(max(rewards))
    assert worst == rewards.index(min(rewards))


def test_random_ignores_rewards_and_repeats_by_seed():
    picks = [select_draft(Selection.random, [9.0, 0.0, 0.0, 0.0], seed) for seed in range(400)]
    assert picks == [select_draft(Selection.random, [0.0, 0.0, 0.0, 9.0], seed) for seed in range(400)]
    counts = Counter(picks)
    # 400 draws over 4: mean 100, standard deviation 8.7
    assert set(counts) == {0, 1, 2, 3}
    assert all(60 < count < 140 for count in counts.values())


def test_none_has_nothing_to_choose():
    with pytest.raises(ValueError, match="none"):
        select_draft(Selection.none, [1.0], seed=0)


@given(REWARDS, st.data())
def test_worst_formatted_is_the_first_worst_of_the_well_formed(rewards: list[float], data: st.DataObject):
    formed = data.draw(st.lists(st.booleans(), min_size=len(rewards), max_size=len(rewards)))
    chosen = select_draft(Selection.worst_formatted, rewards, 0, formed)
    if any(formed):
        assert formed[chosen]
        assert rewards[chosen] == min(r for r, well in zip(rewards, formed, strict=True) if well)
    else:
        assert chosen == rewards.index(min(rewards))


def test_well_formed_is_what_the_format_reward_says():
    prompt = Prompt(Problem("1", "p", "a"), (1,))
    scores = (
        Score(0.0, {"accuracy": 0.0, "format": 0.0}),
        Score(2.0, {"accuracy": 1.0, "format": 1.0}),
        Score(1.0, {"accuracy": 0.0, "format": 1.0}),
    )
    group = Group(prompt, (Completion((1,), (-0.1,), "", False),) * 3, scores)
    assert choose(Selection.worst_formatted, group, seed=0) == 2
    assert choose(Selection.worst, group, seed=0) == 0


@given(st.integers(2, 40), st.integers(1, 12))
def test_mismatched_drafts_come_from_another_problem_of_the_same_engine(count: int, engines: int):
    sources = [source_of(Selection.mismatched, position, count) for position in range(count)]
    assert sorted(sources) == list(range(count))  # every chosen draft is shown once
    assert all(source != position for position, source in enumerate(sources))
    parts = [dealt(Selection.mismatched, count, engines, engine) for engine in range(engines)]
    assert sorted(position for part in parts for position in part) == list(range(count))
    for part in parts:
        assert {sources[position] for position in part} == set(part)
    sizes = sorted(map(len, parts))
    assert sizes[-1] - sizes[0] <= 3


@given(
    st.sampled_from([s for s in Selection if s != Selection.mismatched]),
    st.integers(1, 40),
    st.integers(1, 9),
)
def test_other_policies_deal_one_problem_after_another(selection: Selection, count: int, engines: int):
    assert [dealt(selection, count, engines, e) for e in range(engines)] == [
        list(range(e, count, engines)) for e in range(engines)
    ]
    assert [source_of(selection, p, count) for p in range(count)] == list(range(count))
