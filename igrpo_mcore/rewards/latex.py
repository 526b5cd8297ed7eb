"""The text of an answer in one spelling, and its tokens: the subset of LaTeX that final values use."""

import re

Token = tuple[str, str]
"""Kind and text."""

_UNICODE = str.maketrans(
    {
        "−": "-", "–": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": r"\div ", "√": r"\sqrt ",
        "π": r"\pi ", "∞": r"\infty ", "°": r"^\circ ", "²": "^2", "³": "^3", "½": r"\frac{1}{2}",
        "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "∪": r"\cup ", "±": r"\pm ",
        "∅": r"\emptyset ", "’": "'", "\u00a0": " ",
    }
)  # fmt: skip
_REWRITES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in [
        (r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|textstyle|limits)(?![A-Za-z])\.?", ""),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\{,\}|,\\!", ","),
        (r"(?<!\\)\\!", ""),
        (r"(?<!\\)\\(?:[,;: ]|quad(?![A-Za-z])|qquad(?![A-Za-z]))|~", " "),
        (r"(?<!\\)\\[()\[\]]|(?<!\\)\$|\\\$|[€£]", ""),
        (r"\\%", "%"),
        (r"\\leq(?![A-Za-z])|<=", r"\\le "),
        (r"\\geq(?![A-Za-z])|>=", r"\\ge "),
        (r"\\neq(?![A-Za-z])|!=", r"\\ne "),
        (r"(?<=[\w)}])\*\*(?=[\w({-])", "^"),
        (r"\*\*|`", ""),
        (r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}"),
        (r"\\frac\s*(\d)\s*(?=\{)", r"\\frac{\1}"),
        (r"\\frac(\{[^{}]*\})\s*(\d)", r"\\frac\1{\2}"),
        (r"\\sqrt\s*(\d+|[A-Za-z](?![A-Za-z]))", r"\\sqrt{\1}"),
        (r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"(?<![A-Za-z\\])sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"(?<![A-Za-z\\])(pi|infty|sin|cos|tan|cot|sec|csc|log|ln|exp)(?![A-Za-z])", r"\\\1 "),
        (r"(?<![A-Za-z\\])(?:infinity|oo|inf)(?![A-Za-z])", r"\\infty "),
        (r"\s+", " "),
    ]
]
_TOKEN = re.compile(
    r"(?P<space>\s+)"
    r"|(?P<text>\\(?:text|textbf|textit|mathrm|mathbf|mbox|operatorname|textrm)\s*\{[^{}]*\})"
    r"|(?P<env>\\(?:begin|end)\{[A-Za-z]+\*?\})"
    r"|(?P<set>\\mathbb\s*\{?[A-Z]\}?)"
    r"|(?P<command>\\(?:[A-Za-z]+|\\|[{}]))"
    r"|(?P<thousands>\d{1,3}(?:,\d{3})+(?![\d,])(?:\.\d+)?)"
    r"|(?P<number>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+)"
    r"|(?P<word>[A-Za-z]+)"
    r"|(?P<char>.)",
    re.DOTALL,
)


def spell(text: str) -> str:
    """``text`` with one spelling for what LaTeX, Unicode and plain notation write differently."""
    text = text.translate(_UNICODE)
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    return text.strip()


def tokens(spelled: str, *, thousands: bool) -> list[Token]:
    """(kind, text) of each token; ``thousands`` reads ``1,234`` as one number."""
    found: list[Token] = []
    position = 0
    while position < len(spelled):
        match = _TOKEN.match(spelled, position)
        assert match is not None  # the last alternative takes anything
        kind, text = str(match.lastgroup), match.group()
        if kind == "thousands" and not thousands:
            text = text.partition(",")[0]
            kind = "number"
        position += len(text)
        if kind == "thousands":
            kind, text = "number", text.replace(",", "")
        if kind != "space":
            found.append((kind, text))
    return found


def canonical(text: str) -> str:
    """``text`` without what does not change its meaning: to compare answers as they are written."""
    text = spell(text)
    text = re.sub(
        r"\\(?:text|textbf|textit|mathrm|mathbf|mbox|operatorname|textrm)\s*\{([^{}]*)\}", r"\1", text
    )
    text = re.sub(r"\\frac\{([^{}]*)\}\{([^{}]*)\}", r"\1/\2", text)
    text = re.sub(r"\\(?:times|cdot)(?![A-Za-z])", "*", text)
    text = re.sub(r"\\div(?![A-Za-z])", "/", text)
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    text = re.sub(r"(?<=\d)[\s{}]+(?=\d)", "_", text)  # 1 2 is not 12
    text = re.sub(r"[\s{}]", "", text)
    return text.rstrip(".!,;").lower()
