"""Which engine takes which problem."""

from collections.abc import Sequence
from statistics import fmean

from igrpo_mcore.rollout.course import Course


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


def deal_courses(courses: Sequence[Course], engines: int) -> list[list[int]]:
    """Courses by engine. Those whose drafts are known are dealt by the tokens of these, the others go round
    from the engine that has least."""
    known = [course for course in courses if course.found]
    if not known:
        return [list(range(engine, len(courses), engines)) for engine in range(engines)]
    lengths = {id(course): _mean_length(course) for course in known}
    unknown = fmean(lengths.values())
    costs = [lengths.get(id(c), unknown) * (c.goal - len(c.found)) for c in courses]
    return deal(costs, engines)


def _mean_length(course: Course) -> float:
    return fmean(len(c.token_ids) for c in course.found[-1].group.completions)
