"""Draft choice: ties, extremes, seeded randomness."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from igrpo_mcore.config.schema import Selection
from igrpo_mcore.rollout.selection import select_draft

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
