"""What a final value is: a grammar that refuses whatever arithmetic could still be done on.

Accepted, and only in small sizes: a number (decimal, thousands, percentage, mixed, scientific); one
fraction, power or root of numbers; sums whose terms do not combine and products with at most one number
in them (``3\\sqrt{2}``, ``x+1``, ``2+3i``); tuples, sets, lists, intervals, unions, matrices and
relations of such. Refused: ``47-60``, ``2\\cdot3``, ``\\sqrt{4}+1``, ``\\frac{10+2}{3}``, ``1/2/3``,
``5!``, ``\\log_2 8``. docs/rewards.md gives the reasons.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache

import sympy

from igrpo_mcore.rewards.latex import Token, spell, tokens
from igrpo_mcore.rewards.scalar import NotAValueError, Scalar
from igrpo_mcore.rewards.scalar_reader import read_scalar

MAX_CHARACTERS = 400
"""Longer answers are no value: what is parsed stays small, whatever a policy writes."""
MAX_TOKENS = 160
MAX_DEPTH = 8
_OPEN, _CLOSE = {"(", "[", "{", "\\{"}, {")", "]", "}", "\\}"}
_RELATIONS = {"=", "<", ">", "\\le", "\\ge", "\\ne"}
_MATRICES = {"pmatrix", "bmatrix", "vmatrix", "matrix", "Bmatrix"}
_NAMED_SETS = {"\\emptyset", "\\varnothing"}


class Kind(StrEnum):
    scalar = "scalar"
    list = "list"
    set = "set"
    tuple = "tuple"
    interval = "interval"
    union = "union"
    matrix = "matrix"
    relation = "relation"


@dataclass(frozen=True)
class Value:
    """A final value. ``text`` is its spelling for math-verify; ``scalar`` is there for scalars only.

    ``symbols`` are the letters in it, the constants π, e and i among them; ``size`` is the number of
    elements (of rows, for a matrix), ``elements`` what it consists of, a matrix row by row; none for a
    pair written with \\pm.
    """

    kind: Kind
    text: str
    symbols: frozenset[str]
    size: int = 1
    scalar: Scalar | None = None
    elements: tuple["Value", ...] = ()

    @property
    def number(self) -> sympy.Rational | None:
        """The exact value where it is a rational number."""
        return self.scalar.number if self.scalar else None

    @property
    def is_literal(self) -> bool:
        """Whether it is one number or one symbol, nothing that could have been computed."""
        return self.scalar is not None and self.scalar.is_literal


@lru_cache(maxsize=4096)
def read_value(text: str, *, thousands: bool = True) -> Value | None:
    """The final value that the whole of ``text`` writes, or None where it is none.

    Takes a bounded time whatever the text.
    """
    if len(text) > MAX_CHARACTERS:
        return None
    spelled = spell(text)
    try:
        found = tokens(spelled, thousands=thousands)
        if len(found) > MAX_TOKENS:
            return None
        return _read(found, MAX_DEPTH)
    except (NotAValueError, ArithmeticError, ValueError, TypeError, RecursionError, AttributeError):
        return None  # sympy raises these for what has no value, 1/0 for example


def _read(found: list[Token], depth: int) -> Value:
    if not found or depth == 0:
        raise NotAValueError
    parts = _split(found, {","})
    if len(parts) > 1:
        return _collection(Kind.list, found, parts, depth)
    parts = _split(found, {"\\cup"})
    if len(parts) > 1:
        return _collection(Kind.union, found, parts, depth)
    if len(found) == 1 and (found[0][0] == "set" or found[0][1] in _NAMED_SETS):
        return Value(Kind.set, found[0][1], frozenset(), 0)
    if len(found) > 2 and found[1][1] == "\\in" and found[0][0] == "word":
        return _read(found[2:], depth - 1)
    sides = _split(found, _RELATIONS)
    if len(sides) > 1:
        operators = {text for _, text in found} & _RELATIONS
        if operators == {"="} and len(sides) > 2:
            raise NotAValueError
        return _collection(Kind.relation, found, sides, depth)
    if found[0][0] == "env":
        return _matrix(found, depth)
    if found[0][1] in _OPEN and _closing(found, 0) == len(found) - 1:
        opening, closing = found[0][1], found[-1][1]
        inside = found[1:-1]
        if opening in ("{", "\\{") and not inside:
            return Value(Kind.set, "\\emptyset", frozenset(), 0)
        elements = _split(inside, {","})
        if opening in ("{", "\\{") and (len(elements) > 1 or opening == "\\{"):
            inner = _collection(Kind.set, inside, elements, depth)
            return replace(inner, text=f"\\{{{inner.text}\\}}")
        if len(elements) > 1:
            mixed = opening == "[" or closing == "]"
            kind = Kind.interval if mixed and len(elements) == 2 else Kind.tuple
            inner = _collection(kind, inside, elements, depth)
            return replace(inner, text=f"{opening}{inner.text}{closing}")
    if any(text == "\\pm" for _, text in found):
        # both readings must be final values; the pair is a list of two
        plus = [("char", "+") if text == "\\pm" else (kind, text) for kind, text in found]
        scalar = read_scalar(plus[1:] if found[0][1] == "\\pm" else plus)
        return Value(Kind.list, _join(found), scalar.symbols, 2)
    scalar = read_scalar(found)
    return Value(Kind.scalar, _join(found), scalar.symbols, scalar=scalar)


def _collection(kind: Kind, found: list[Token], parts: list[list[Token]], depth: int) -> Value:
    """Every element must be a final value itself; a relation's sides must be scalars."""
    elements = [_read(part, depth - 1) for part in parts]
    if kind is Kind.relation and any(element.kind is not Kind.scalar for element in elements):
        raise NotAValueError
    size = sum(element.size if element.kind is Kind.list else 1 for element in elements)
    symbols = frozenset().union(*(element.symbols for element in elements))
    return Value(kind, _join(found), symbols, size, elements=tuple(elements))


def _matrix(found: list[Token], depth: int) -> Value:
    name = found[0][1][len("\\begin{") : -1]
    if name not in _MATRICES or found[-1][1] != f"\\end{{{name}}}":
        raise NotAValueError
    body = found[1:-1]
    while body and body[-1][1] == "\\\\":
        body = body[:-1]
    rows = _split(body, {"\\\\"})
    entries = tuple(_read(entry, depth - 1) for row in rows for entry in _split(row, {"&"}))
    if any(entry.kind is not Kind.scalar for entry in entries):
        raise NotAValueError
    symbols = frozenset().union(*(entry.symbols for entry in entries))
    return Value(Kind.matrix, _join(found), symbols, len(rows), elements=entries)


def _split(found: list[Token], separators: set[str]) -> list[list[Token]]:
    """The parts between ``separators`` outside of all brackets."""
    parts: list[list[Token]] = [[]]
    level = 0
    for token in found:
        text = token[1]
        level += (text in _OPEN or text.startswith("\\begin")) - (text in _CLOSE or text.startswith("\\end"))
        if level == 0 and text in separators:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def _closing(found: list[Token], start: int) -> int:
    """Index of the bracket that closes the one at ``start``; -1 where there is none."""
    level = 0
    for i in range(start, len(found)):
        level += (found[i][1] in _OPEN) - (found[i][1] in _CLOSE)
        if level == 0:
            return i
    return -1


def _join(found: list[Token]) -> str:
    return " ".join(text for _, text in found)
