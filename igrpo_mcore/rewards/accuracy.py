"""1 where a completion's answer equals the reference answer, by math-verify."""

import logging
import re
from functools import lru_cache
from typing import Any

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

from igrpo_mcore.types import Completion, Problem

# It warns that its own timeouts are off; the worker pool has the time limit.
logging.getLogger("math_verify").setLevel(logging.ERROR)

ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
LATEX_DELIMITER = re.compile(r"(?<!\\)\$|\\boxed|\\fbox|\\\(|\\\[")
LATEX_COMMAND = re.compile(r"\\(begin|end|text|mathrm|mbox|operatorname)\s*\{[^}]*\}|\\[A-Za-z]+")
WORD = re.compile(r"[A-Za-z]{2,}")


def accuracy_reward(problem: Problem, completion: Completion) -> float:
    """1 where the last ``<answer>…</answer>`` (or, without one, the whole text) gives ``problem.answer``.

    The same text counts as equal; otherwise both are parsed, see ``parse_answer``, and compared by
    ``math_verify.verify``.
    """
    answers = ANSWER.findall(completion.text)
    reference = problem.answer.strip()
    if not answers:
        return _equal(reference, _extract(completion.text))
    given = answers[-1].strip()
    if given == reference:
        return 1.0
    return _equal(reference, _extract(given) if _is_prose(given) else parse_answer(given))


@lru_cache(maxsize=4096)
def parse_answer(text: str) -> tuple[Any, ...]:
    """Candidates (sympy objects, the matched text last) for a text that is nothing but an answer.

    With LaTeX delimiters or ``\\boxed`` in it, math-verify extracts from it; otherwise the whole of it
    is read as LaTeX, and where that gives no expression as a plain one. Extraction alone would read
    a bare ``3\\sqrt{2}`` as 3.
    """
    if LATEX_DELIMITER.search(text):
        return _extract(text)
    as_latex = parse(f"${text}$", [LatexExtractionConfig()], parsing_timeout=None)  # type: ignore[arg-type]
    if any(not isinstance(candidate, str) for candidate in as_latex):
        return tuple(as_latex)
    as_expression = parse(text, [ExprExtractionConfig()], parsing_timeout=None)  # type: ignore[arg-type]
    return tuple(as_expression or as_latex)


def _extract(text: str) -> tuple[Any, ...]:
    return tuple(parse(text, parsing_timeout=None))  # type: ignore[arg-type]


def _equal(reference: str, candidates: tuple[Any, ...]) -> float:
    return float(verify(list(parse_answer(reference)), list(candidates), timeout_seconds=None))


def _is_prose(text: str) -> bool:
    """Whether an answer is a sentence ("The answer is 5") rather than an expression."""
    return len(WORD.findall(LATEX_COMMAND.sub(" ", text))) >= 2
