"""Which engine takes which problem."""

from collections.abc import Sequence


def deal(costs: Sequence[float], engines: int, loads: Sequence[float] | None = None) -> list[list[int]]:
    """Indices by engine, so that the engines' sums of ``costs`` and of what they have already (``loads``)
    are nearly equal: the costliest first, each to the engine that has least (greedy LPT). Equal costs go
    round. The same on every rank."""
    totals = list(loads) if loads is not None else [0.0] * engines
    dealt: list[list[int]] = [[] for _ in range(engines)]
    for index in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        engine = totals.index(min(totals))
        totals[engine] += costs[index]
        dealt[engine].append(index)
    return [sorted(part) for part in dealt]
