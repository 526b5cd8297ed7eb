"""Final values that are numbers: which texts are one number written out, and nothing left to compute."""

import re
from fractions import Fraction

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+"
_NUMBER = rf"(?:{_DIGITS})"
_SIGN = r"[+-]?\s*"
_LATEX_FRACTION = (
    r"\\[dt]?frac\s*(?:\{\s*(?P<top>SIGNNUMBER)\s*\}\s*\{\s*(?P<bottom>NUMBER)\s*\}"
    r"|\s*(?P<tens>\d)\s*(?P<ones>\d))"
)
_PATTERN = re.compile(
    (
        rf"(?P<sign>{_SIGN})(?:"
        rf"(?P<mixed>\d+)\s+(?P<part>\d+)\s*/\s*(?P<whole>\d+)"
        rf"|(?P<lead>\d*)\s*{_LATEX_FRACTION}"
        rf"|(?P<over>NUMBER)\s*/\s*(?P<under>SIGNNUMBER)"
        rf"|(?P<mantissa>NUMBER)\s*(?:[eE](?P<exponent>[+-]?\d{{1,3}})"
        rf"|(?:\*|\\times|\\cdot)\s*10\s*\^\s*(?:\{{\s*(?P<braced>-?\d{{1,3}})\s*\}}|(?P<bare>-?\d{{1,3}})))"
        rf"|(?P<plain>NUMBER))"
        rf"\s*(?P<percent>\\?%)?"
    )
    .replace("SIGNNUMBER", _SIGN + _NUMBER)
    .replace("NUMBER", _NUMBER)
)
LONGEST = 200
"""Characters; a longer text is no number that anybody asked for."""


def read_numeral(text: str) -> Fraction | None:
    """The exact value of a text that is one written number: an integer, a decimal, a fraction of two such, a
    mixed number, scientific notation, each with a sign, thousands commas or a percent sign; else None.

    Sums, products, powers and roots are none: nothing may be left to compute but one fraction bar.
    """
    if len(text) > LONGEST:
        return None
    found = _PATTERN.fullmatch(text.strip())
    if found is None:
        return None
    value = _value(found)
    if value is None:
        return None
    value = -value if "-" in found["sign"] else value
    return value / 100 if found["percent"] else value


def _value(found: re.Match[str]) -> Fraction | None:
    if found["plain"]:
        return _number(found["plain"])
    if found["mantissa"]:
        exponent = found["exponent"] or found["braced"] or found["bare"]
        return _number(found["mantissa"]) * Fraction(10) ** int(exponent)
    if found["over"]:
        return _ratio(_number(found["over"]), _number(found["under"]))
    if found["mixed"]:
        part = _ratio(Fraction(found["part"]), Fraction(found["whole"]))
        return None if part is None else Fraction(found["mixed"]) + part
    part = _ratio(_number(found["top"] or found["tens"]), _number(found["bottom"] or found["ones"]))
    return None if part is None else Fraction(found["lead"] or 0) + part


def _number(text: str) -> Fraction:
    return Fraction(re.sub(r"[,\s+]", "", text))


def _ratio(over: Fraction, under: Fraction) -> Fraction | None:
    return over / under if under else None
