"""pass@k against brute force over subsets, and against sampling without replacement."""

import random
from fractions import Fraction
from itertools import combinations

import pytest

from igrpo_mcore.evaluation.estimators import budgets, pass_at_k


@pytest.mark.parametrize("samples", range(1, 11))
def test_pass_at_k_is_the_share_of_subsets_with_a_right_one(samples: int):
    for right in range(samples + 1):
        outcomes = [True] * right + [False] * (samples - right)
        for k in range(1, samples + 1):
            subsets = [any(subset) for subset in combinations(outcomes, k)]
            assert pass_at_k(samples, right, k) == float(Fraction(sum(subsets), len(subsets)))


def test_it_is_unbiased():
    """Mean over many draws of n completions of a problem with a known chance p: 1 - (1 - p)^k."""
    rng, p, samples = random.Random(0), 0.2, 12
    draws = [sum(rng.random() < p for _ in range(samples)) for _ in range(20_000)]
    for k in (1, 2, 4, 8):
        found = sum(pass_at_k(samples, right, k) for right in draws) / len(draws)
        assert found == pytest.approx(1 - (1 - p) ** k, abs=0.01)


def test_large_numbers_are_exact():
    assert pass_at_k(1024, 1, 256) == 0.25
    assert pass_at_k(256, 256, 1) == 1
    assert pass_at_k(300, 45, 256) == 1  # every subset of 256 has a right one: only 255 are wrong
    assert pass_at_k(100_000, 1, 1) == 1e-5


@pytest.mark.parametrize("arguments", [(4, 5, 1), (4, -1, 1), (4, 2, 5), (4, 2, 0)])
def test_what_has_no_pass_at_k(arguments):
    with pytest.raises(ValueError, match="no pass@"):
        pass_at_k(*arguments)


def test_budgets():
    assert budgets(1) == [1]
    assert budgets(12) == [1, 2, 4, 8]
    assert budgets(64) == [1, 2, 4, 8, 16, 32, 64]
    assert budgets(1000) == [1, 2, 4, 8, 16, 32, 64, 128, 256]
