"""Which texts are final values: nothing is left to compute, one value is stated, the problem is not restated.

Judged on the text alone; docs/rewards.md has the rule.
"""

import re
from fractions import Fraction

from igrpo_mcore.rewards.answer import plain, stated_answer
from igrpo_mcore.rewards.form import ResponseForm
from igrpo_mcore.rewards.numeral import read_numeral

_LEAD = re.compile(
    r"^(?:(?:so|thus|therefore|hence|then|now|and|solve|answer|final|result|the|our|my|a|is|of|to|be|are|was|"
    r"equals?|value|solution|sum|product|difference|quotient|total|correct|simplify|compute|evaluate|find|"
    r"calculate)\b|[:,=]|\s)+",
    re.IGNORECASE,
)
_SAYS = re.compile(
    r"=|≈|:(?=\s|$)|\\approx\b|\b(?:is|are|was|were|be|equals?(?: to)?|equal to|gives|get|makes|has|have)\b"
    r"|\b(?:so|thus|therefore)\b",
    re.IGNORECASE,
)
_UNIT = re.compile(
    r"\s*(?:\\(?:text|mathrm|mbox|textbf)\s*\{[^{}]*\}|\^?\s*\{?\\(?:circ|degree)\}?|°|[A-Za-z][A-Za-z'²³/^]*\.?\d?)"
)
_NOT_A_UNIT = re.compile(
    r"\b(?:or|and|plus|minus|times|over|to|divided|multiplied|by|mod|e)\b", re.IGNORECASE
)
_CURRENCY = re.compile(r"^([+-]?)\s*(?:\\\$|\$|€|£)\s*")
_UNEVALUATED = re.compile(
    r"(?<![\w^{_.])-?\d+(?:\.\d+)?\s*(?:[+*/-]|\\times|\\cdot|\\div)\s*\(?\s*-?\d+(?:\.\d+)?(?!\d|\.\d|\s*[A-Za-z\\({])"
)
_POWER = re.compile(r"\^\s*\{?\s*-?\d{4,}|\^[^+*/=()]{0,20}\^|\d{60,}|!{2}|\d{4,}\s*!")
_OPERATION = re.compile(r"[+*/^=!-]|\\(?:times|cdot|div|[dt]?frac|sqrt|binom|log|ln|sin|cos|tan|pi|sum|int)")
_ONE_NUMBER = re.compile(r"[+-]?[\d.,]+")
_OPEN, _CLOSE = "([{", ")]}"


def answer_key(completion: str, form: ResponseForm) -> str | None:
    """A stated answer in a form that is the same for the same number or text; None where none is stated.

    Cheap and safe in the trainer's process: two symbolic answers of unlike text count as different.
    """
    stated = stated_answer(completion, form)
    if stated is None:
        return None
    value = final_value(stated, "")
    number = None if value is None else number_of(value)
    return str(number) if number is not None else _letters(stated)


def final_value(stated: str, reference: str) -> str | None:
    """What a statement ends in: the last side of an equation, what follows "the answer is"; the whole of it
    where it says nothing of that kind. None for an empty side and for a tautology (x = x).

    An equation stays whole where the reference is one, and so does a ratio.
    """
    if ":" in reference and ":" in stated:
        return stated
    if "=" in reference and "=" in stated:
        sides = [_letters(side) for side in stated.split("=")]
        return None if len(set(sides)) < len(sides) or not all(sides) else stated
    sides = _SAYS.split(stated)
    value = plain(sides[-1])
    if not value or (len(sides) > 1 and _letters(sides[-2]) == _letters(value)):
        return None
    return value


def number_of(text: str) -> Fraction | None:
    """The number that a final value is, its unit or currency aside; None where it is none.

    ``5 apples``, ``\\$5``, ``90^\\circ`` and ``12\\text{ cm}`` are numbers; ``1 or 2`` is not.
    """
    text = _CURRENCY.sub(r"\1", text)
    while text.startswith("{") and text.endswith("}") and "{" not in text[1:]:
        text = text[1:-1]
    number = read_numeral(text)
    if number is not None or _NOT_A_UNIT.search(text):
        return number
    head = re.match(r"[+-]?\s*(?:\\[dt]?frac\s*(?:\{[^{}]*\}\s*\{[^{}]*\}|\d\d)|[\d.,/]*\d\.?)", text)
    if head is None:
        return None
    unit = text[head.end() :]
    words = _UNIT.findall(unit)
    return read_numeral(head[0]) if len(words) <= 4 and not _UNIT.sub("", unit).strip() else None


def restates(text: str, problem: str) -> bool:
    """Whether ``text``, leading words aside, is a part of the problem; one bare number is not."""
    said = _letters(_LEAD.sub("", text).rstrip("=? "))
    return bool(said) and not _ONE_NUMBER.fullmatch(said) and said in _letters(plain(problem))


def same_text(one: str, other: str) -> bool:
    """Whether two texts differ in white space, case and LaTeX's text commands only."""
    return _letters(one) == _letters(other)


def is_final_form(value: str, reference: str) -> bool:
    """Whether a symbolic value has the kind of its reference and little more to compute than it."""
    if re.search(r"\b(?:or|and)\b|\\(?:text|mathrm)\{\s*(?:or|and)\s*\}", value) and not re.search(
        r"or|and", reference
    ):
        return False
    if _POWER.search(value) or _parts(value) != _parts(reference):
        return False
    if _UNEVALUATED.search(value) and not _UNEVALUATED.search(reference):
        return False
    return len(_OPERATION.findall(value)) <= 2 * len(_OPERATION.findall(reference)) + 2


def _parts(text: str) -> int:
    """Members of a list, set, tuple, interval: top-level commas, or those inside one pair of brackets."""
    text = re.sub(r"\\[{}]", lambda found: found[0][1], text).strip()
    if text[:1] in tuple(_OPEN) and text[-1:] in tuple(_CLOSE):
        text = text[1:-1]
    depth, commas = 0, 0
    for index, character in enumerate(text):
        depth += (character in _OPEN) - (character in _CLOSE)
        thousands = re.match(r",\d{3}(?!\d)", text[index:]) and text[index - 1 : index].isdigit()
        commas += character in ",;" and depth == 0 and not thousands
    return commas + 1


def computes(value: str) -> bool:
    return _OPERATION.search(value.lstrip("+- ")) is not None


def _letters(text: str) -> str:
    text = re.sub(r"\\(?:text|mathrm|mbox|textbf|operatorname)\s*\{([^{}]*)\}", r"\1", text)
    return "".join(text.casefold().split()).rstrip(".")
