"""The completions that a stage is planned with, without any chance: their lengths, and which are right."""

import math
from functools import lru_cache

from igrpo_mcore.planning.difficulty import chance_right, length_quantile

# irrational strides: fractions of their multiples fill (0, 1) evenly and have nothing to do with each other
_GOLDEN, _LUCK, _REWARD, _TURN = (math.sqrt(5) - 1) / 2, math.sqrt(2), math.sqrt(3), math.sqrt(7)


def completion_lengths(sequences: int, mean: int, cap: int) -> list[int]:
    """Lengths with the given mean and up to the cap: cap · u^(cap / mean - 1) at even quantiles u.

    In an order that has nothing to do with length (the golden ratio's sequence), as requests come.
    """
    power = max(cap, mean) / mean - 1
    return [max(1, round(cap * ((i + 0.5) * _GOLDEN % 1.0) ** power)) for i in range(sequences)]


def mean_within(mean: int, cap: int, budget: int) -> int:
    """The mean of such lengths where they end at ``budget``."""
    power = max(cap, mean) / mean - 1
    if budget >= cap or not power:
        return min(mean, budget)
    whole = (budget / cap) ** (1 / power)  # share of those that are not ended
    return max(1, round(cap * whole ** (power + 1) / (power + 1) + budget * (1 - whole)))


@lru_cache(maxsize=1024)
def outcomes(
    prompts: int, samples: int, mean: int, cap: int, budget: int, draw: int = 0
) -> tuple[tuple[tuple[int, bool], ...], ...]:
    """(length, whether it earns the greatest reward) of each completion, by prompt.

    The lengths are ``completion_lengths``, dealt to problems of even difficulties, and end at ``budget``;
    another ``draw`` deals them otherwise.
    """
    count = prompts * samples
    lengths = sorted(completion_lengths(count, mean, cap))
    difficulty = [(i + 0.5) * _GOLDEN % 1.0 for i in range(prompts)]
    luck = [((k + 0.5) * _LUCK + draw * _TURN) % 1.0 for k in range(count)]
    places = [length_quantile(difficulty[k // samples], luck[k]) for k in range(count)]
    found = [(0, False)] * count
    for length, k in zip(lengths, sorted(range(count), key=places.__getitem__), strict=True):
        kept = min(length, budget)
        chance = chance_right(difficulty[k // samples], kept, budget)
        found[k] = kept, ((k + 0.5) * _REWARD + draw * _TURN) % 1.0 < chance
    return tuple(tuple(found[i * samples : (i + 1) * samples]) for i in range(prompts))
