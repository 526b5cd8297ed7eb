"""95 % intervals of means over problems."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES = 10_000
"""Draws of the bootstrap."""
BLOCK = 2**22
"""Indices drawn at once, so that a suite of 12,000 problems takes tens of MB."""


class Estimate(NamedTuple):
    """A mean over problems with the bounds of its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def estimates(by_problem: Mapping[str, Sequence[float]], seed: int = 0) -> dict[str, Estimate]:
    """Mean and percentile bootstrap interval of each column; problems are resampled with replacement.

    All columns (one value a problem, the same problems in order) see the same draws, so that they can be
    compared, and a column's interval does not depend on which others there are.
    """
    names = list(by_problem)
    values = np.asarray([by_problem[name] for name in names], dtype=np.float64)
    problems = values.shape[1]
    random = np.random.default_rng(seed)
    rows = max(1, BLOCK // problems)
    blocks = []
    for start in range(0, RESAMPLES, rows):
        drawn = random.integers(0, problems, (min(rows, RESAMPLES - start), problems))
        blocks.append(np.stack([column[drawn].mean(axis=1) for column in values]))
    low, high = np.percentile(np.concatenate(blocks, axis=1), [2.5, 97.5], axis=1)
    means = values.mean(axis=1)
    return {name: Estimate(*map(float, (means[i], low[i], high[i]))) for i, name in enumerate(names)}


def interval(by_problem: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """The bounds of ``estimates`` for one column."""
    return estimates({"mean": by_problem}, seed)["mean"][1:]
