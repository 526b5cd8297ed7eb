"""Expressions that math-verify must not be shown: evaluating them would take a machine's time or memory.

What a completion states is a final value and bounded by its grammar (``value.py``). A reference that is an
expression itself goes to math-verify as it is, and sympy evaluates powers and factorials of numbers at once.
"""

import re
from math import comb

MAX_CHARACTERS = 400
MAX_DIGITS = 100
MAX_EXPONENTS = 1000
"""Product of numeric exponents upon each other: ``(2^{30})^{30}`` has 900."""
MAX_TERMS = 20_000
"""Terms of a power of a sum, multiplied out: ``(a+b+c)^{64}`` has 2,145."""
MAX_FACTORIAL = 500
MAX_DEPTH = 8
"""Brackets within brackets: math-verify's parser takes 0.4 s for 8 of them and over 3 s for 60."""
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_CHAIN = re.compile(r"\^\s*(?:[^\s{}\\]|\{[^{}]*\})\s*\^")
_FACTORIAL = re.compile(r"(\S?)\s*!(?!=)")
_SERIES = re.compile(r"\\(?:sum|prod|int|lim|Gamma|mod|bmod|pmod)(?![A-Za-z])")
_BINOMIAL = re.compile(r"\\(?:[dt]?binom|choose)(?![A-Za-z])")


def may_explode(text: str) -> bool:
    """Whether ``text`` (spelled as ``latex.spell`` does) is too large to be evaluated, or could become so.

    Too long or deep, numbers over ``MAX_DIGITS`` digits, powers upon powers over ``MAX_EXPONENTS``,
    powers and factorials in an exponent, factorials of anything but a number up to ``MAX_FACTORIAL``, and
    sums, products, integrals and binomials over numbers of more than two digits or over powers.
    """
    if len(text) > MAX_CHARACTERS or any(len(number) > MAX_DIGITS for number in _NUMBER.findall(text)):
        return True
    if _depth(text) > MAX_DEPTH or _CHAIN.search(text) or text.count("\\exp") > 1 or _large_factorial(text):
        return True
    if _BINOMIAL.search(text) and ("^" in text or "!" in text):
        return True
    if (_SERIES.search(text) or _BINOMIAL.search(text)) and any(
        len(number) > 2 for number in _NUMBER.findall(text)
    ):
        return True
    return _large_power(text)


def _large_power(text: str) -> bool:
    """Whether powers multiply to too much: by level of brackets, the largest power and the signs inside."""
    inside, before = [(1.0, 0)], (1.0, 0)
    for i, character in enumerate(text):
        power, signs = inside[-1]
        if character in "([{":
            inside.append((1.0, 0))
        elif character in ")]}" and len(inside) > 1:
            before = inside.pop()
            inside[-1] = (max(inside[-1][0], before[0]), inside[-1][1] + before[1])
        elif character == "^":
            exponent = _exponent(text[i + 1 :].lstrip())
            numbers = [float(number) for number in _NUMBER.findall(exponent)]
            if "!" in exponent or ("^" in exponent and len(numbers) > 1):
                return True
            times = max([1.0, *numbers])
            of_group = text[:i].rstrip()[-1:] in tuple(")]}")
            base, terms = before if of_group else (1.0, 0)
            if base * times > MAX_EXPONENTS or comb(int(times) + terms, terms) > MAX_TERMS:
                return True
            inside[-1] = (max(power, base * times), signs)
        elif character in "+-":
            inside[-1] = (power, signs + 1)
    return False


def _exponent(rest: str) -> str:
    """What an exponent is: a group, or the number or sign there."""
    if rest.startswith("{"):
        return _group(rest)
    number = re.match(r"[({\[-]*\s*\d+(?:\.\d+)?", rest)
    return number.group() if number else rest[:1]


def _depth(text: str) -> int:
    level = deepest = 0
    for character in text:
        level += (character in "([{") - (character in ")]}")
        deepest = max(deepest, level)
    return deepest


def _group(text: str) -> str:
    level = 0
    for i, character in enumerate(text):
        level += (character == "{") - (character == "}")
        if level == 0:
            return text[1:i]
    return text


def _large_factorial(text: str) -> bool:
    for match in _FACTORIAL.finditer(text):
        number = re.search(r"(?<![\d.^])(\d{1,3})\s*$", text[: match.end() - 1])
        if number is None or int(number[1]) > MAX_FACTORIAL:
            return True
    return False
