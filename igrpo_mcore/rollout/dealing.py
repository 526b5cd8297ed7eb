"""Which engine takes which problem."""

from collections.abc import Sequence
from statistics import fmean

from igrpo_mcore.config.schema import Config, Selection
from igrpo_mcore.rollout.course import Course
from igrpo_mcore.rollout.selection import dealt


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


def deal_courses(courses: Sequence[Course], engines: int, config: Config) -> list[list[int]]:
    """Indices of courses by engine. Where drafts are known they are dealt by the tokens of these, so that
    all engines end together; new ones (of unknown length) go round."""
    selection = config.rollout.selection
    known = [course for course in courses if course.found]
    if known and selection != Selection.mismatched:
        lengths = {id(course): _mean_length(course) for course in known}
        usual = fmean(lengths.values())
        return deal([lengths.get(id(c), usual) * (c.goal - len(c.found)) for c in courses], engines)
    whole = config.train.prompts_per_step
    return [
        [
            first + place
            for first in range(0, len(courses), whole)
            for place in dealt(selection, min(whole, len(courses) - first), engines, engine)
        ]
        for engine in range(engines)
    ]


def _mean_length(course: Course) -> float:
    return fmean(len(c.token_ids) for c in course.found[-1].group.completions)
