"""What a sentence states: the final value at its end, and nothing where it states none or several."""

import re
from dataclasses import dataclass

from igrpo_mcore.rewards.latex import canonical, spell
from igrpo_mcore.rewards.value import Value, read_value

# what may stand between a sentence's words and its value
_CUE = re.compile(
    r"\b(?:is|are|was|be|equals?(?: to)?|equal to|gives?|get|makes?|has|have|contains?|appears?|occurs?|"
    r"answer|result)\b|(?<=[A-Za-z)]):|[A-Za-z\"']:\s|(?<![<>!:])=|≈|\\approx(?![A-Za-z])"
)
_APPROXIMATELY = re.compile(r"≈|\\approx(?![A-Za-z])")
_HEDGES = (
    r"or|either|neither|nor|maybe|perhaps|possibly|probably|might|could|not|isn't|unless|except|between|least|"
    r"most|more|less|than"
)
_HEDGE = re.compile(rf"\b(?:{_HEDGES})\b", re.IGNORECASE)
_NO_UNIT = re.compile(
    rf"\b(?:{_HEDGES}|plus|minus|times|divided|multiplied|over|mod|squared|cubed)\b", re.IGNORECASE
)
_LEAD = re.compile(
    r"^(?:exactly|simply|just|about|approximately|therefore|thus|so|hence|to)\b[\s,:]*", re.IGNORECASE
)
_UNIT_WORD = (
    r"(?:\\(?:text|mathrm|mbox|textrm)\s*\{[^{}]*\}|[A-Za-z][A-Za-z'./-]+|[mgslLhJNWVKACF](?![A-Za-z]))"
)
_UNITS = re.compile(rf"(?<=[\d}})%])\s*{_UNIT_WORD}(?:\s+{_UNIT_WORD}){{0,3}}\s*(?:\^\s*\{{?[23]\}}?)?$")
_TEXT_COMMAND = re.compile(r"\\(?:text|mathrm|mbox|textrm|textbf)\s*\{([^{}]*)\}")
_ASSIGNMENT = re.compile(r"^\s*\$?\s*[A-Za-z](?:_\{?\w\}?)?\s*=(?!=)\s*(.*)$", re.DOTALL)
_CLAUSES = re.compile(r",\s|;|\s(?:and|or)\s|\\text\{\s*(?:and|or)\s*\}|\$,")
_JOINED = re.compile(r",?\s+(?:and|or)\s+|,?\s*\\(?:text|mathrm|mbox)\{\s*(?:and|or)\s*\}\s*|\s*;\s*")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=\S)|\n+")
_MATH = re.compile(r"\d|[=+*/^\\]|\?")
MAX_STATEMENT = 600


@dataclass(frozen=True)
class Statement:
    """One thing said. ``readings`` are the final values it can be read as (a relation, its last side,
    the same without a unit); ``spoken`` is how the answer is written, canonical.

    ``has_math`` is whether it says anything with numbers or signs at all, ``is_literal`` whether it is
    nothing but one number or symbol.
    """

    text: str
    readings: tuple[Value, ...] = ()
    spoken: tuple[str, ...] = ()
    has_math: bool = True
    is_literal: bool = False


def read_statements(text: str) -> list[Statement]:
    """The statements of a text: one where the whole of it is a value, else one a sentence or line."""
    joined = " ".join(text.split()) if "\\begin" in text else text.strip()
    if not _SENTENCE_END.search(joined):
        whole = read_statement(joined)
        if whole.readings:
            return [whole]
    return [read_statement(part) for part in _SENTENCE_END.split(joined) if part.strip()]


def read_statement(text: str) -> Statement:
    """What one sentence, line or bare answer states."""
    text = text.strip()
    if len(text) > MAX_STATEMENT:
        return Statement(text)
    has_math = bool(_MATH.search(text))
    if "?" in text or "..." in text or _tautology(text):
        return Statement(text, (), (), has_math)
    assigned = _assignments(text)
    if assigned is not None:
        return Statement(text, _values(assigned), (canonical(text),), has_math)
    rest, cue = _after_cue(text)
    whole = _values(text)
    stated = _values_after(text, rest) if cue else ()
    spoken = [canonical(text)]
    if cue and (stated or not has_math) and not _hedges(text, rest):
        spoken.append(canonical(rest))
    literal = any(value.is_literal for value in whole)
    return Statement(text, tuple(dict.fromkeys(whole + stated)), tuple(spoken), has_math, literal)


def _tautology(text: str) -> bool:
    sides = [canonical(side) for side in text.split("=")]
    return len(sides) > 1 and sides[-1] != "" and sides[-1] in sides[:-1]


def _hedges(text: str, rest: str) -> bool:
    """Whether the words before ``rest`` take back what it says."""
    before = _TEXT_COMMAND.sub(r" \1 ", text.removesuffix(rest))
    return _HEDGE.search(before) is not None


def _after_cue(text: str) -> tuple[str, bool]:
    """What follows the last cue ("is", "=", …), and whether there is one."""
    approximate = _APPROXIMATELY.search(text)
    if approximate and _values(text[: approximate.start()].rpartition("=")[2]):
        text = text[: approximate.start()]  # x = 1/3 ≈ 0.33 states 1/3
    last = None
    for match in _CUE.finditer(text):
        last = match
    return (text[last.end() :], True) if last else (text, False)


def _values_after(text: str, rest: str) -> tuple[Value, ...]:
    """The values after a cue, unless the sentence hedges or an earlier side of its equation differs."""
    if _hedges(text, rest):
        return ()
    values = _values(rest)
    for side in text.split("=")[:-1]:
        for value in _values(side):
            if value.number is not None and all(value.number != other.number for other in values):
                return ()  # 1 = 2
    return values


def _values(text: str) -> tuple[Value, ...]:
    """The readings of a text that must be a value, with or without a unit."""
    text = _LEAD.sub("", _bare(text))
    if not text:
        return ()
    joined = _JOINED.sub(", ", text)
    found = [read_value(joined)]
    if "," in joined:
        found.append(read_value(joined, thousands=False))
    without_unit = _UNITS.sub("", joined)
    if without_unit != joined and not _NO_UNIT.search(joined[len(without_unit) :].replace("times", "")):
        found.append(read_value(without_unit))
    return tuple(dict.fromkeys(value for value in found if value is not None))


def _assignments(text: str) -> str | None:
    """The values of ``x = 1, y = 2`` as one list; None where a text is not two assignments or more."""
    clauses = [_ASSIGNMENT.match(_bare(clause)) for clause in _CLAUSES.split(text)]
    found = [match.group(1) for match in clauses if match]
    if len(found) < 2 or clauses[-1] is None:
        return None
    return ", ".join(_bare(value) for value in found)


def _bare(text: str) -> str:
    """Without the marks around an answer: dollars, asterisks, quotes, a full stop."""
    text = spell(text).strip(" \n\t\"'")
    text = text.rstrip(".!,;: ") if not text.endswith("\\") else text
    return text.lstrip(",;: ").strip()
