"""Tokens to a scalar by recursive descent; what it may not contain, ``scalar`` refuses."""

import sympy

from igrpo_mcore.rewards.latex import Token
from igrpo_mcore.rewards.scalar import NotAValueError, Scalar, power, product, quotient, signed, total

MAX_DIGITS = 100
MAX_DEPTH = 12
_FUNCTIONS = {"\\" + name: getattr(sympy, name) for name in ("sin", "cos", "tan", "cot", "sec", "csc", "exp")}
_CONSTANTS = {"\\pi": sympy.pi, "\\infty": sympy.oo}
_CLOSING = {"(": ")", "{": "}", "[": "]", "|": "|"}
_GREEK = {
    "alpha",
    "beta",
    "gamma",
    "delta",
    "epsilon",
    "theta",
    "lambda",
    "mu",
    "nu",
    "phi",
    "varphi",
    "psi",
    "rho",
    "sigma",
    "tau",
    "omega",
    "ell",
}


def read_scalar(found: list[Token]) -> Scalar:
    """The scalar that all of ``found`` writes. Raises ``NotAValueError``."""
    reader = _Reader(found)
    scalar = reader.sum(0)
    if reader.position != len(found):
        raise NotAValueError
    if scalar.value.has(sympy.nan, sympy.zoo):
        raise NotAValueError
    return scalar


class _Reader:
    def __init__(self, found: list[Token]) -> None:
        self.found = found
        self.position = 0

    def peek(self) -> str:
        return self.found[self.position][1] if self.position < len(self.found) else ""

    def kind(self) -> str:
        return self.found[self.position][0] if self.position < len(self.found) else ""

    def take(self, *expected: str) -> str:
        text = self.peek()
        if not text or (expected and text not in expected):
            raise NotAValueError
        self.position += 1
        return text

    def sum(self, depth: int) -> Scalar:
        if depth > MAX_DEPTH:
            raise NotAValueError
        parts: list[Scalar] = []
        while True:
            sign = 1
            if self.peek() in ("+", "-"):
                sign = -1 if self.take() == "-" else 1
            elif parts:
                break
            part = self.product(depth)
            parts.append(signed(part, sign) if sign < 0 else part)
            if self.peek() not in ("+", "-"):
                break
        if len(parts) == 1:
            return parts[0]
        return total(parts)

    def product(self, depth: int) -> Scalar:
        factors = [self.power(depth)]
        while True:
            following = self.peek()
            if following == "/" or following == "\\div":
                self.take()
                bottom = self.power(depth)
                factors = [quotient(product(factors), bottom)]
            elif following in ("*", "\\times", "\\cdot"):
                self.take()
                if self._times_power_of_ten(factors):
                    return self._scientific(factors[0])
                factors.append(self.power(depth))
            elif self._starts_factor():
                mixed = self._mixed(factors, depth)
                if mixed is not None:
                    factors = [mixed]
                elif self.kind() == "number":
                    raise NotAValueError  # two numbers side by side
                else:
                    factors.append(self.power(depth))
            else:
                break
        return product(factors)

    def _starts_factor(self) -> bool:
        return self.kind() in ("number", "word", "text") or (
            self.peek() in ("(", "{", "\\frac", "\\sqrt", "\\log", "\\ln", *_FUNCTIONS, *_CONSTANTS)
        )

    def _mixed(self, factors: list[Scalar], depth: int) -> Scalar | None:
        r"""``1\frac{1}{2}`` or ``1 1/2``: a whole number followed by a proper fraction."""
        whole = factors[-1]
        if len(factors) > 1 or not (whole.is_literal and whole.value.is_Integer):
            return None
        start = self.position
        if self.peek() == "\\frac":
            part = self.power(depth)
        elif [kind for kind, _ in self.found[start : start + 3]] == ["number", "char", "number"] and (
            self.found[start + 1][1] == "/"
        ):
            top = self.power(depth)
            self.take("/")
            part = quotient(top, self.power(depth))
        else:
            return None
        if not (part.quotient and part.number is not None and 0 < part.number < 1):
            self.position = start
            return None
        return Scalar(whole.value + part.value, quotient=True)

    def _times_power_of_ten(self, factors: list[Scalar]) -> bool:
        return (
            len(factors) == 1
            and factors[0].is_literal
            and factors[0].number is not None
            and self.peek() == "10"
            and self.found[self.position + 1 : self.position + 2] == [("char", "^")]
        )

    def _scientific(self, digits: Scalar) -> Scalar:
        power = self.power(0)
        if power.number is None or self._starts_factor() or self.peek() in ("*", "/", "\\times", "\\cdot"):
            raise NotAValueError
        return Scalar(digits.value * power.value, power=True)

    def power(self, depth: int) -> Scalar:
        base = self.atom(depth)
        if self.peek() == "^":
            self.take()
            if self.peek() == "\\circ":
                self.take()  # degrees
            elif self.peek() == "{" and self.found[self.position + 1 : self.position + 3] == [
                ("command", "\\circ"),
                ("char", "}"),
            ]:
                self.position += 3
            else:
                base = power(base, self.exponent(depth))
        if self.peek() == "%":
            self.take()
            if base.number is None:
                raise NotAValueError
            base = Scalar(base.value / 100, percent=True)
        return base

    def exponent(self, depth: int) -> Scalar:
        if self.peek() == "-":
            self.take()
            return signed(self.atom(depth + 1), -1)
        return self.atom(depth + 1)

    def group(self, depth: int) -> Scalar:
        closing = _CLOSING[self.take("(", "{", "[")]
        inside = self.sum(depth + 1)
        self.take(closing)
        return inside

    def atom(self, depth: int) -> Scalar:
        if depth > MAX_DEPTH:
            raise NotAValueError
        kind, text = self.kind(), self.peek()
        if kind == "number":
            self.take()
            return self._number(text)
        if text in ("(", "{"):
            return self.group(depth)
        if kind in ("word", "text"):
            return self._letters(kind, text)
        self.take()
        if text in _CONSTANTS:
            return Scalar(_CONSTANTS[text], is_literal=True)
        if text == "\\frac":
            top = self.group(depth)
            return quotient(top, self.group(depth))
        if text == "\\sqrt":
            index = self.group(depth).value if self.peek() == "[" else sympy.Integer(2)
            inside = self.group(depth)
            if (
                inside.quotient is False
                and inside.constant
                and not (inside.is_literal or inside.number is None)
            ):
                raise NotAValueError
            if not (index.is_Integer and 2 <= index <= 12):
                raise NotAValueError
            return Scalar(sympy.root(inside.value, index), power=inside.constant)
        if text in ("\\log", "\\ln", *_FUNCTIONS):
            return self._function(text, depth)
        if text.startswith("\\") and kind == "command" and text[1:] in _GREEK:
            return Scalar(sympy.Symbol(text[1:]), is_literal=True)
        if text == "|":
            inside = self.sum(depth + 1)
            self.take("|")
            if inside.constant:
                raise NotAValueError
            return Scalar(sympy.Abs(inside.value))
        raise NotAValueError

    def _number(self, text: str) -> Scalar:
        digits, _, exponent = text.lower().partition("e")
        if len(digits) > MAX_DIGITS or len(exponent) > 4:
            raise NotAValueError
        if self.peek() == "_":  # 1010_2: the base is part of the number's name
            self.take()
            base = self.take("{") and self.take() if self.peek() == "{" else self.take()
            if self.peek() == "}":
                self.take()
            return Scalar(sympy.Symbol(f"{digits}_{base}"), is_literal=True)
        return Scalar(
            sympy.Rational(digits.rstrip(".") if digits != "." else "nan")
            * (sympy.Integer(10) ** int(exponent) if exponent else 1),
            is_literal=True,
        )

    def _letters(self, kind: str, text: str) -> Scalar:
        """A symbol, or a product of one-letter symbols; a letter may have a subscript."""
        if kind == "text":
            text = text[text.index("{") + 1 : -1].strip().strip("()")
            if len(text) != 1:
                raise NotAValueError
        self.take()
        if len(text) > 4:
            raise NotAValueError  # a word
        symbols = [sympy.Symbol(letter) for letter in text]
        if self.peek() == "_":
            self.take()
            if self.peek() == "{":
                self.take()
                symbols[-1] = sympy.Symbol(f"{text[-1]}_{self.take()}")
                self.take("}")
            else:
                symbols[-1] = sympy.Symbol(f"{text[-1]}_{self.take()}")
        if self.peek() == "^" and len(symbols) > 1:
            self.take()
            last = power(Scalar(symbols[-1]), self.exponent(0)).value
            return Scalar(sympy.Mul(*symbols[:-1], last))
        return Scalar(sympy.Mul(*symbols), is_literal=len(symbols) == 1)

    def _function(self, text: str, depth: int) -> Scalar:
        base = None
        if self.peek() == "_":
            self.take()
            base = self.atom(depth + 1).value
        exponent = None
        if self.peek() == "^":
            self.take()
            exponent = self.exponent(depth)
        argument = self.group(depth) if self.peek() in ("(", "{") else self._argument(depth)
        if text in _FUNCTIONS:
            if text == "\\exp":
                return power(Scalar(sympy.Symbol("e"), is_literal=True), argument)
            value = _FUNCTIONS[text](argument.value)
        elif base is not None:
            value = sympy.log(argument.value, base)
        else:
            value = sympy.log(argument.value)
        if value.is_number and not value.has(sympy.log, *_FUNCTIONS.values()):
            raise NotAValueError  # \log_2 8, \sin 0: it can be evaluated
        result = Scalar(value)
        return power(result, exponent) if exponent is not None else result

    def _argument(self, depth: int) -> Scalar:
        factors = [self.power(depth + 1)]
        while self.kind() == "word":
            factors.append(self.power(depth + 1))
        return product(factors)
