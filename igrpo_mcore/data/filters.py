"""Which problems of a set are trained on."""

import re
from collections.abc import Iterable, Iterator, Sequence

from igrpo_mcore.config.schema import DataConfig
from igrpo_mcore.errors import UserError
from igrpo_mcore.types import Problem


def filtered(problems: Sequence[Problem], config: DataConfig) -> list[Problem]:
    """Those that ``data``'s filters keep, in order, at most ``data.limit``.

    Raises:
        UserError: none is left.
    """
    found = [problem for problem in problems if _kept(problem, config)]
    if config.drop_duplicates:
        found = list(first_of_each(found))
    found = found[: config.limit]
    if not found:
        raise UserError(
            f"of the {len(problems)} problems of {config.path} the filters of data leave none; loosen "
            "data.answer_pattern, data.max_problem_characters or the window of pass rates"
        )
    return found


def same_text(problem: Problem) -> str:
    """What problems with the same text have in common: white space and case aside."""
    return " ".join(problem.problem.split()).casefold()


def first_of_each(problems: Iterable[Problem]) -> Iterator[Problem]:
    """Without those whose text was there before."""
    seen: set[str] = set()
    for problem in problems:
        text = same_text(problem)
        if text not in seen:
            seen.add(text)
            yield problem


def _kept(problem: Problem, config: DataConfig) -> bool:
    longest, pattern, rate = config.max_problem_characters, config.answer_pattern, problem.pass_rate
    return (
        (longest is None or len(problem.problem) <= longest)
        and (pattern is None or re.search(pattern, problem.answer) is not None)
        and (rate is None or config.min_pass_rate <= rate <= config.max_pass_rate)
    )
