"""A scalar that is a final value, and how scalars combine to one: never where arithmetic is left to do."""

from dataclasses import dataclass
from functools import reduce

import sympy
from sympy.core.parameters import distribute

MAX_POWER_BITS = 4096
"""Size that a power of numbers may have; ``9^9^9`` is refused before it is computed."""
MAX_SYMBOLIC_EXPONENT = 64


class NotAValueError(Exception):
    """The text is no final value."""


@dataclass(frozen=True)
class Scalar:
    """``value`` as sympy evaluates it; letters (e and i among them) are plain symbols.

    ``is_literal``: one number or symbol with at most a sign. ``quotient``, ``power``: the outermost
    form, of numbers. ``percent``: written with %.
    """

    value: sympy.Expr
    is_literal: bool = False
    quotient: bool = False
    power: bool = False
    percent: bool = False
    terms: tuple[sympy.Expr, ...] = ()

    @property
    def number(self) -> sympy.Rational | None:
        return self.value if isinstance(self.value, sympy.Rational) else None

    @property
    def symbols(self) -> frozenset[str]:
        names = {symbol.name for symbol in self.value.free_symbols}
        return frozenset(names | ({"pi"} if self.value.has(sympy.pi) else set()))

    @property
    def constant(self) -> bool:
        return not self.value.free_symbols


def total(parts: list[Scalar]) -> Scalar:
    """A sum of which no terms combine. Raises ``NotAValueError``."""
    terms = tuple(term for part in parts for term in (part.terms or (part.value,)))
    value = sympy.Add(*terms)
    if not value.is_Add or len(value.args) < len(terms):
        raise NotAValueError  # 47-60, x+x, \\sqrt{4}+1
    return Scalar(value, terms=terms)


def signed(part: Scalar, sign: int) -> Scalar:
    """``part`` with a sign; two signs in a row are arithmetic."""
    if sign > 0:
        return part
    if part.number is not None and part.number < 0:
        raise NotAValueError  # --5, -(-5)
    terms = tuple(-term for term in part.terms)
    return Scalar(-part.value, part.is_literal, part.quotient, part.power, part.percent, terms)


def product(factors: list[Scalar]) -> Scalar:
    """At most one number, no factor twice, no factors that combine. Raises ``NotAValueError``."""
    if len(factors) == 1:
        return factors[0]
    numbers = [f for f in factors if f.constant and abs(f.value.as_coeff_Mul()[0]) != 1]
    ones = [f for f in factors if f.number is not None and abs(f.number) == 1]
    signed = [f for f in factors[1:] if f.constant and f.value.is_negative]
    letters = [f.value for f in factors if f.is_literal and not f.constant]
    if len(numbers) > 1 or ones or signed or any(f.percent for f in factors):
        raise NotAValueError  # 2*3, 1*x
    if len(set(letters)) < len(letters):
        raise NotAValueError  # x*x
    constants = [f.value for f in factors if f.constant]
    with distribute(False):
        if len(constants) > 1 and len(sympy.Mul.make_args(sympy.Mul(*constants))) < len(constants):
            raise NotAValueError  # \sqrt{2}\sqrt{2}
        return Scalar(
            reduce(sympy.Mul, [f.value for f in factors]),
            quotient=any(f.quotient and f.constant for f in factors),
        )


def quotient(top: Scalar, bottom: Scalar) -> Scalar:
    """One fraction of literals, or of expressions that are final themselves. Raises ``NotAValueError``."""
    nested = [part for part in (top, bottom) if part.constant and part.quotient]
    if nested or bottom.value == 0 or top.percent or bottom.percent:
        raise NotAValueError  # 1/2/3
    numbers = top.number is not None and bottom.number is not None
    if numbers and not (top.is_literal and bottom.is_literal):
        raise NotAValueError  # a fraction of a power
    if not top.constant and bottom.value in (1, top.value):
        raise NotAValueError  # x/x
    with distribute(False):
        return Scalar(top.value / bottom.value, quotient=top.constant and bottom.constant)


def power(base: Scalar, exponent: Scalar) -> Scalar:
    """One power of literals of a bounded size, or of something symbolic. Raises ``NotAValueError``."""
    if base.constant and exponent.constant:
        plain = base.is_literal or base.quotient
        if not plain or not (exponent.is_literal or exponent.quotient) or exponent.number is None:
            raise NotAValueError  # (2^3)^2, \sqrt{2}^2
        if base.number is not None:
            bits = max(base.number.p.bit_length(), base.number.q.bit_length())
            if bits * abs(exponent.number) > MAX_POWER_BITS or exponent.number.q > 12:
                raise NotAValueError
        return Scalar(base.value**exponent.value, power=True)
    if exponent.number is not None and abs(exponent.number) > MAX_SYMBOLIC_EXPONENT:
        raise NotAValueError
    if exponent.number in (0, 1):
        raise NotAValueError  # x^0, x^1
    return Scalar(base.value**exponent.value)
