"""Whether an answer only says again what its problem says."""

import re
from functools import lru_cache
from math import gcd

from igrpo_mcore.rewards.latex import canonical
from igrpo_mcore.rewards.value import Value

_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_LOWEST = re.compile(r"-?(\d+)/(\d+)")


@lru_cache(maxsize=256)
def _canonical_problem(problem: str) -> str:
    return canonical(problem)


def repeats_problem(text: str, problem: str) -> bool:
    """Whether ``text`` stands in the problem's text as it is (white space, case and spelling aside)."""
    written = canonical(text)
    if not written:
        return False
    before = r"(?<![\d.])" if written[0].isdigit() else ""
    after = r"(?![\d])" if written[-1].isdigit() else ""
    return re.search(before + re.escape(written) + after, _canonical_problem(problem)) is not None


def is_restated(value: Value, problem: str, reference: str) -> bool:
    """Whether ``value`` is computed in form and taken from the problem.

    That is: an expression of more than one number that the problem holds as it is (``10/5`` for
    "What is 10/5?"), or a fraction, power or root of numbers that are all in the problem and that could
    still be evaluated (``10/5`` for "divide 10 by 5"). Never one number or symbol, and never what
    is written as the reference is.
    """
    if value.is_literal:
        return False
    written = canonical(value.text)
    if written.rstrip("%") == canonical(reference).rstrip("%"):
        return False
    if repeats_problem(value.text, problem):
        return True
    numbers = _NUMBER.findall(written)
    if value.number is None or len(numbers) < 2:
        return False
    fraction = _LOWEST.fullmatch(written)
    if fraction and int(fraction[2]) > 1 and gcd(int(fraction[1]), int(fraction[2])) == 1:
        return False
    return set(numbers) <= set(_NUMBER.findall(_canonical_problem(problem)))
