"""The generated task of the tiny checkpoint: chains of one-digit sums and differences, worked line by line.

A problem is ``a±b±c±d``. The demonstrated completion works through it from left to right, one
equation a line, so that an error in one line carries into the answer and a draft can be wrong in
one line only.
"""

import hashlib
import random
import re
from dataclasses import dataclass
from enum import StrEnum

from igrpo_mcore.errors import UserError
from igrpo_mcore.types import Problem

TERMS = 4
OPERANDS = range(1, 10)
OPERATORS = "+-"
RESULTS = range(0, 21)
"""The running result of every line lies in here."""
HELD_OUT_SHARE = 8
"""One problem in so many is held out, by a hash of its text."""
_TERM = re.compile(rf"([{OPERATORS}])(\d+)")


class Split(StrEnum):
    train = "train"
    held_out = "held_out"


@dataclass(frozen=True)
class Line:
    """One line of working, ``left operator right = result``."""

    left: int
    operator: str
    right: int
    result: int

    def __str__(self) -> str:
        return f"{self.left}{self.operator}{self.right}={self.result}"


def working(problem: str, error: tuple[int, int] | None = None) -> list[Line]:
    """The lines of working of an expression.

    ``error`` is (line, amount): that line's result is off by the amount and the next lines go on
    from it. Raises ValueError where ``problem`` is not an expression of this task.
    """
    if not re.fullmatch(rf"\d+([{OPERATORS}]\d+)+", problem):
        raise ValueError(f"{problem!r} is not a chain of sums and differences")
    terms = _TERM.findall(problem)
    left = int(re.split(rf"[{OPERATORS}]", problem, maxsplit=1)[0])
    lines = []
    for i, (operator, number) in enumerate(terms):
        right = int(number)
        result = left + right if operator == "+" else left - right
        if error is not None and error[0] == i:
            result += error[1]
        lines.append(Line(left, operator, right, result))
        left = result
    return lines


def completion(lines: list[Line]) -> str:
    """The text that carries ``lines``, in the format that the format reward asks for."""
    thinking = "\n".join(map(str, lines))
    return f"<think>\n{thinking}\n</think>\n<answer>\n{lines[-1].result}\n</answer>"


def demonstration(problem: Problem) -> str:
    """The right completion of ``problem``."""
    return completion(working(problem.problem))


def wrong_draft(problem: Problem, rng: random.Random) -> str:
    """A completion in the right format with a slip in one line, and so with a wrong answer.

    The slip is ±1, ±2 or ±10; what follows is right given it; no result falls below 0.
    """
    count = len(working(problem.problem))
    while True:
        lines = working(problem.problem, (rng.randrange(count), rng.choice((-10, -2, -1, 1, 2, 10))))
        if all(line.result >= 0 for line in lines):
            return completion(lines)


def split_of(problem: str) -> Split:
    """The split that an expression belongs to, whatever the seed."""
    held_out = hashlib.sha256(problem.encode()).digest()[0] % HELD_OUT_SHARE == 0
    return Split.held_out if held_out else Split.train


def problems(count: int, seed: int, split: Split = Split.train) -> list[Problem]:
    """``count`` distinct problems of ``split``, the same for the same seed.

    Raises UserError where ``count`` is more than the split is sure to hold.
    """
    limit = 10_000 if split is Split.train else 1_000
    if count > limit:
        raise UserError(
            f"The {split} split of the tiny task gives at most {limit} problems: ask for fewer than {count}."
        )
    rng = random.Random(f"{split.value}-{seed}")
    found: dict[str, Problem] = {}
    while len(found) < count:
        operands = [str(rng.choice(OPERANDS)) for _ in range(TERMS)]
        text = operands[0] + "".join(rng.choice(OPERATORS) + operand for operand in operands[1:])
        lines = working(text)
        if split_of(text) is split and all(line.result in RESULTS for line in lines):
            found.setdefault(text, Problem(id=text, problem=text, answer=str(lines[-1].result)))
    return list(found.values())
