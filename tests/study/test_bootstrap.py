"""Intervals against exact enumeration, formulas and simulation."""

import itertools

import numpy as np
import pytest

from igrpo_mcore.study.bootstrap import estimate


def test_over_seeds_it_is_the_distribution_of_all_draws():
    values = [0.1, 0.4, 0.45, 0.9]
    every = sorted(np.mean(draw) for draw in itertools.product(values, repeat=4))
    found = estimate(values)
    assert found.mean == pytest.approx(np.mean(values))
    low, high = np.percentile(every, [2.5, 97.5])
    assert found.low == pytest.approx(low, abs=0.02)
    assert found.high == pytest.approx(high, abs=0.02)


def test_over_seeds_and_problems_both_count():
    """Spread of seeds + spread of problems, as of two crossed random effects without noise."""
    random = np.random.default_rng(1)
    of_seeds, of_problems = random.normal(0, 0.1, 8), random.normal(0, 0.5, 50)
    table = of_seeds[:, None] + of_problems[None, :]
    error = np.sqrt(of_seeds.var() / 8 + of_problems.var() / 50)
    found = estimate(table.tolist())
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.1)
    # a draw of problems for every run on its own would average their share away
    assert (found.high - found.low) / 2 > 1.96 * np.sqrt(
        of_seeds.var() / 8 + of_problems.var() / 50 / 8
    ) * 1.3


def test_one_run_on_some_problems_is_the_bootstrap_over_problems():
    right = [[0.0] * 30 + [1.0] * 70]
    found = estimate(right)
    assert found.seeds == 1
    assert (found.low, found.high) == (pytest.approx(0.61, abs=0.015), pytest.approx(0.79, abs=0.015))


def test_nothing_and_one():
    assert estimate([]) is None
    alone = estimate([0.5])
    assert (alone.mean, alone.low, alone.high) == (0.5, None, None)


def test_few_seeds_cover_less_than_they_say():
    """What docs/study.md warns of: coverage of a normal mean by 3 and by 10 seeds."""
    random = np.random.default_rng(0)
    covered = {}
    for count in (3, 10):
        found = [estimate(random.normal(0, 1, count).tolist(), seed=i) for i in range(200)]
        covered[count] = np.mean([one.low <= 0 <= one.high for one in found])
    assert 0.6 < covered[3] < 0.85
    assert covered[3] < covered[10] < 0.96
