"""1 where a completion states the reference answer as a final value. docs/rewards.md has the rule.

What is left to compute is no answer: a policy that restates the problem would otherwise be told that it is
right, because math-verify simplifies ``47 - 60`` to -13 before it compares (shown on SmolLM2,
docs/experiments.md). So the form is judged first, on the text, and equality after it.
"""

import logging
from fractions import Fraction
from functools import lru_cache
from typing import Any

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

from igrpo_mcore.rewards.answer import boxed, plain, stated_answer
from igrpo_mcore.rewards.final_value import (
    computes,
    final_value,
    is_final_form,
    number_of,
    restates,
    same_text,
)
from igrpo_mcore.rewards.form import ResponseForm
from igrpo_mcore.types import Completion, Problem

# It warns that its own timeouts are off; the worker pool has the time limit.
logging.getLogger("math_verify").setLevel(logging.ERROR)

LONGEST = 300
"""Characters of a symbolic answer beyond its reference's length."""


class AccuracyReward:
    """1 or 0 for a completion; ``form`` says where its answer stands."""

    def __init__(self, form: ResponseForm) -> None:
        self._form = form

    def __call__(self, problem: Problem, completion: Completion) -> float:
        """1 where the stated final value equals ``problem.answer``."""
        stated = stated_answer(completion.text, self._form)
        return float(stated is not None and is_right(stated, problem))


def is_right(stated: str, problem: Problem) -> bool:
    """Whether a stated answer (cleaned by ``plain``) is the problem's reference as a final value."""
    reference = reference_text(problem.answer)
    if not reference or len(stated) > LONGEST + len(reference):
        return False
    if same_text(stated, reference):
        return True
    if restates(stated, problem.problem):
        return False
    asked = number_of(reference)
    value = final_value(stated, reference)
    if value is None or (
        not same_text(value, reference) and computes(value) and restates(value, problem.problem)
    ):
        return False
    if asked is not None:
        given = number_of(value)
        return given is not None and _same_number(given, asked, percent="%" in value and "%" not in reference)
    return same_text(value, reference) or (is_final_form(value, reference) and _equal(reference, value))


def reference_text(answer: str) -> str:
    """The reference itself: what the last box of a worked solution holds (MATH), what follows ``####``
    (GSM8K), else the whole."""
    boxes = boxed(answer)
    return plain(boxes[-1] if boxes else answer.rpartition("####")[2])


def _same_number(given: Fraction, asked: Fraction, *, percent: bool) -> bool:
    """Equal, to math-verify's six decimals where a fraction does not end; ``50%`` is 0.5 and, asked for in
    percent, 50."""
    if percent and given * 100 == asked:
        return True
    return given == asked or (abs(given - asked) < Fraction(1, 2_000_000) and asked.denominator != 1)


@lru_cache(maxsize=4096)
def _parsed(text: str) -> tuple[Any, ...]:
    """Candidates of math-verify for a text that is nothing but an answer: as LaTeX, else as an expression.
    Its own extraction would read a bare ``3\\sqrt{2}`` as 3."""
    as_latex = parse(f"${text}$", [LatexExtractionConfig()], parsing_timeout=None)  # type: ignore[arg-type]
    if any(not isinstance(candidate, str) for candidate in as_latex):
        return tuple(as_latex)
    as_expression = parse(text, [ExprExtractionConfig()], parsing_timeout=None)  # type: ignore[arg-type]
    return tuple(as_expression or as_latex)


def _equal(reference: str, value: str) -> bool:
    return bool(verify(list(_parsed(reference)), list(_parsed(value)), timeout_seconds=None))
