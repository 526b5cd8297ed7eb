"""Completions drawn by seed for a simulated engine, where a plan takes even quantiles."""

import math
from collections.abc import Callable, Sequence
from random import Random
from statistics import NormalDist

from igrpo_mcore.planning.difficulty import chance_right, length_quantile

RIGHT, WRONG = "right", "wrong"
SPREAD = math.sqrt(1.3**2 / 12 + 0.55**2)
"""Standard deviation of the logarithm of log-normal lengths: e^1.3 between the easiest and the hardest
problem, 0.55 among one's completions. Assumed."""

Quantile = Callable[[float], float]
_NORMAL = NormalDist()


def even_lengths(mean: int, cap: int) -> Quantile:
    """The distribution that a plan takes (``decoding.completion_lengths``)."""
    return lambda place: cap * place ** (max(cap, mean) / mean - 1)


def log_normal_lengths(mean: int, cap: int) -> Quantile:
    """Log-normal lengths of which those beyond ``cap`` end there; the mean is that of what is left."""

    def mean_within(mu: float) -> float:
        beyond = (math.log(cap) - mu) / SPREAD
        whole = math.exp(mu + SPREAD**2 / 2) * _NORMAL.cdf(beyond - SPREAD)
        return whole + cap * (1 - _NORMAL.cdf(beyond))

    low, high = 0.0, math.log(cap) + 8 * SPREAD
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if mean_within(middle) < mean else (low, middle)
    return lambda place: min(cap, math.exp(low + SPREAD * _NORMAL.inv_cdf(place)))


class DrawnCompletions:
    """A model's completions: the first token of a prompt is its problem's number, which sets its difficulty.

    Called with prompt, seed and budget it gives the length and the text ``RIGHT`` or ``WRONG``.
    """

    def __init__(self, quantile: Quantile, seed: int = 0) -> None:
        self._quantile, self._seed = quantile, seed

    def __call__(self, prompt: Sequence[int], seed: int, max_tokens: int) -> tuple[int, str]:
        difficulty = _inside(Random(f"{self._seed}/{prompt[0]}"))
        own = Random(f"{self._seed}/{seed}")
        place = length_quantile(difficulty, _inside(own))
        length = min(max_tokens, max(1, round(self._quantile(place))))
        right = own.random() < chance_right(difficulty, length, max_tokens)
        return length, RIGHT if right else WRONG


def _inside(random: Random) -> float:
    """Uniform, neither 0 nor 1."""
    return min(max(random.random(), 1e-12), 1 - 1e-12)
