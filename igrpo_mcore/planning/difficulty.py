"""How long a prompt's completions get and which of them are right: what schedules of a rollout differ by.

Assumed, in the shape that reasoning models show: a hard problem's completions are all longer and seldomer
right, and of one problem's the longer are wrong more often. Nothing here is fitted to a run.
"""

import math
from statistics import NormalDist

SHARED = 0.32
"""Share of the variance of a completion's length (of its normal score) that is its problem's."""
RIGHT_EASIEST, RIGHT_HARDEST = 0.95, 0.10
"""Chance that a short completion of the easiest and of the hardest problem earns the greatest reward."""
LOST_BY_LENGTH = 0.4
"""Share of that chance that is gone at the token budget."""

_NORMAL = NormalDist()


def length_quantile(difficulty: float, luck: float) -> float:
    """Where a completion's length stands among all, in (0, 1): a Gaussian copula of two uniform numbers,
    its problem's ``difficulty`` and its own ``luck``. Uniform itself, so lengths keep their distribution."""
    score = math.sqrt(SHARED) * _NORMAL.inv_cdf(difficulty) + math.sqrt(1 - SHARED) * _NORMAL.inv_cdf(luck)
    return _NORMAL.cdf(score)


def chance_right(difficulty: float, length: int, budget: int) -> float:
    """That a completion of ``length`` tokens earns the greatest reward; none that the budget ended does."""
    if length >= budget:
        return 0.0
    chance = RIGHT_EASIEST + (RIGHT_HARDEST - RIGHT_EASIEST) * difficulty
    return chance * (1 - LOST_BY_LENGTH * length / budget)
