"""Hints that a reward is being hacked: what is paid for repeats the problem, or everything reads alike."""

import re
from collections.abc import Sequence
from statistics import fmean

from igrpo_mcore.types import Group

_EXPRESSION = re.compile(r"\d[\d\s.,()]*(?:[-+*/×÷^=][\d\s.,()]*)+")


def expression_of(problem: str) -> str:
    """The longest arithmetic expression of a problem's text, or the whole text where it has none; white
    space and case do not count."""
    found = [_bare(text) for text in _EXPRESSION.findall(problem)]
    return max(found, key=len, default="") or _bare(problem)


def expression_share(groups: Sequence[Group]) -> float | None:
    """Share of the completions with an accuracy (without that reward: a total) above 0 that contain their
    problem's expression. High by itself in a task whose worked answers write it down;
    a rise without one is the hint. None where nothing is rewarded."""
    rewarded = [
        expression_of(group.prompt.problem.problem) in _bare(completion.text)
        for group in groups
        for completion, score in zip(group.completions, group.scores, strict=True)
        if score.parts.get("accuracy", score.total) > 0
    ]
    return fmean(rewarded) if rewarded else None


def distinct_texts(groups: Sequence[Group]) -> float:
    """Distinct completion texts of a group, as a share of its completions; mean over the groups."""
    return fmean(len({_bare(c.text) for c in group.completions}) / len(group.completions) for group in groups)


def _bare(text: str) -> str:
    return "".join(text.casefold().split()).rstrip("=?")
