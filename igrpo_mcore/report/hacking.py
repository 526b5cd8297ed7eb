"""Hints that a policy answers the reward and not the problem, from what its completions share."""

import re
import statistics
from collections.abc import Sequence

from igrpo_mcore.types import Group

ACCURACY = "accuracy"
_ARITHMETIC = re.compile(r"[\d(][\d\s().,+\-*/^×·÷−]*[\d)]")
_OPERATOR = re.compile(r"[\d)]\s*[-+*/^×·÷−]\s*[\d(]")


def hacking_metrics(groups: Sequence[Group]) -> dict[str, float | None]:
    """``expression_share``, ``distinct_texts`` and ``rewarded_length`` over all completions of ``groups``.

    ``expression_share``: of the completions whose accuracy is above 0 (whose total is, where no reward is
    called accuracy), the share that contain the problem's expression after their last ``</think>``: the
    longest arithmetic expression of the problem, or the whole text of a problem without one, white space
    and case ignored. High is no proof (``47 - 60 = -13`` repeats it honestly): read the samples.
    ``distinct_texts``: mean over groups of distinct texts / completions, 1 where all differ.
    ``rewarded_length``: mean tokens of the rewarded completions.
    None where there is nothing to take a share of.
    """
    rewarded = [
        (group.prompt.problem.problem, completion)
        for group in groups
        for completion, score in zip(group.completions, group.scores, strict=True)
        if score.parts.get(ACCURACY, score.total) > 0
    ]
    repeated = [
        expression in _squeezed(completion.text.rpartition("</think>")[2])
        for problem, completion in rewarded
        if (expression := _squeezed(expression_of(problem)))
    ]
    distinct = [len({c.text for c in g.completions}) / len(g.completions) for g in groups if g.completions]
    return {
        "expression_share": statistics.fmean(repeated) if repeated else None,
        "distinct_texts": statistics.fmean(distinct) if distinct else None,
        "rewarded_length": statistics.fmean(len(c.token_ids) for _, c in rewarded) if rewarded else None,
    }


def expression_of(problem: str) -> str:
    """The longest arithmetic expression in a problem's text, or the whole text where there is none."""
    found = [match.group() for match in _ARITHMETIC.finditer(problem) if _OPERATOR.search(match.group())]
    return max(found, key=len, default=problem)


def _squeezed(text: str) -> str:
    return "".join(text.split()).lower()
