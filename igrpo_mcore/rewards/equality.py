"""Whether two final values are equal: integers exactly, all else by math-verify and within ``CLOSE``."""

import logging
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import sympy
from math_verify import LatexExtractionConfig, parse, verify

from igrpo_mcore.rewards.explosive import may_explode
from igrpo_mcore.rewards.latex import spell
from igrpo_mcore.rewards.scalar import Scalar
from igrpo_mcore.rewards.value import MAX_CHARACTERS, Kind, Value

# It warns that its own timeouts are off; the worker pool has the time limit.
logging.getLogger("math_verify").setLevel(logging.ERROR)

CLOSE = 1e-5
"""Relative difference of two numbers that may be equal. math-verify compares the first six decimals, which
makes 6.63e-34 equal to 1.05e-34."""
_ALIKE = [
    {Kind.list, Kind.set},
    {Kind.interval, Kind.tuple, Kind.union, Kind.relation},
]
_IN_ORDER = {Kind.interval, Kind.tuple, Kind.matrix}
_IN_ANY_ORDER = {Kind.list, Kind.set, Kind.union}
_SIZED = {Kind.list, Kind.set, Kind.tuple, Kind.matrix}


def equal_values(reference: Value, given: Value) -> bool:
    """Whether ``given`` is of the reference's kind and equal to it.

    A letter that the reference lacks makes them different (``x/x`` is not 1); a percentage counts
    as itself and as its number (``50%`` for 0.5 and for 50).
    """
    if not _same_kind(reference, given):
        return False
    bound = Kind.relation in (reference.kind, given.kind) and reference.kind is not given.kind
    if not bound and not given.symbols <= reference.symbols:  # bound: x < 3 for (-\infty, 3)
        return False
    if reference.scalar and given.scalar:
        decided = _by_value(reference.scalar, given.scalar)
        if decided is not None:
            return decided
    if may_explode(reference.text) or may_explode(given.text):
        return False
    one, other = list(_parse(reference.text)), list(_parse(given.text))
    if not one or not other:
        return False
    # math-verify takes an inequality for an interval in one order only
    symmetric = Kind.relation in (reference.kind, given.kind)
    equal = _verify(one, other) or (symmetric and _verify(other, one))
    return equal and not _elements_apart(reference, given)


def equals_expression(reference: str, given: Value) -> bool:
    """Whether a scalar equals a reference that is an unevaluated expression (``2^3\\cdot 5``)."""
    has_number = any(character.isdigit() for character in reference)
    if given.kind is not Kind.scalar or given.symbols or not has_number or len(reference) > MAX_CHARACTERS:
        return False
    spelled = spell(reference)
    if not equal_texts(spelled, given.text):
        return False
    assert given.scalar
    numbers = [Scalar(found) for found in _parse(spelled) if isinstance(found, sympy.Expr)]
    return not any(_apart(number, given.scalar) for number in numbers)


def equal_texts(reference: str, given: str) -> bool:
    """By math-verify alone, both read as LaTeX; never where either may explode."""
    if may_explode(reference) or may_explode(given):
        return False
    return _verify(list(_parse(reference)), list(_parse(given)))


def _by_value(a: Scalar, b: Scalar) -> bool | None:
    """What the values themselves decide; None where it is left to math-verify."""
    if a.value == b.value:
        return True
    if a.number is not None and b.number is not None:
        if a.percent != b.percent and a.number in (b.number * 100, b.number / 100):
            return True
        if a.number.is_Integer and b.number.is_Integer:
            return False
    return False if _apart(a, b) else None


def _elements_apart(a: Value, b: Value) -> bool:
    """Whether some number in one has none in the other's place that is within ``CLOSE`` of it; of relations,
    and of what is not alike, nothing is known."""
    if a.scalar and b.scalar:
        return _apart(a.scalar, b.scalar)
    ours, theirs = (value.elements or (value,) * bool(value.scalar) for value in (a, b))
    if len(ours) != len(theirs):
        return False
    if {a.kind, b.kind} <= _IN_ORDER:
        return any(map(_elements_apart, ours, theirs))
    if {a.kind, b.kind} <= _IN_ANY_ORDER | {Kind.scalar}:
        return _one_is_alone(ours, theirs) or _one_is_alone(theirs, ours)
    return False


def _one_is_alone(ours: Sequence[Value], theirs: Sequence[Value]) -> bool:
    return any(all(_elements_apart(one, other) for other in theirs) for one in ours)


def _apart(a: Scalar, b: Scalar) -> bool:
    """Whether both are real numbers, or both percentages, whose relative difference is over ``CLOSE``."""
    if not a.constant or not b.constant or a.percent != b.percent:
        return False
    x, y = sympy.N(a.value), sympy.N(b.value)
    if not (x.is_Float or x.is_zero) or not (y.is_Float or y.is_zero):
        return False
    return bool(abs(x - y) > CLOSE * max(abs(x), abs(y)))


def _verify(one: list[Any], other: list[Any]) -> bool:
    return bool(verify(one, other, timeout_seconds=None))


def _same_kind(reference: Value, given: Value) -> bool:
    if reference.kind in _SIZED and given.kind in _SIZED and reference.size != given.size:
        return False
    if reference.kind is Kind.set and reference.size == 1 and given.kind is Kind.scalar:
        return True  # 2 for \{2\}
    return reference.kind == given.kind or any({reference.kind, given.kind} <= alike for alike in _ALIKE)


@lru_cache(maxsize=4096)
def _parse(text: str) -> tuple[Any, ...]:
    """sympy objects, the text itself left out: two texts are not equal for being the same."""
    found = parse(f"${text}$", [LatexExtractionConfig()], parsing_timeout=None)  # type: ignore[arg-type]
    return tuple(candidate for candidate in found if not isinstance(candidate, str))
