"""Where a completion states its answer, and what the stated text is."""

import re

from igrpo_mcore.config.completion_form import AnswerPlace
from igrpo_mcore.rewards.form import ResponseForm

LONGEST = 20_000
"""Characters of a completion, from its end, that are searched."""
_TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_BOX = re.compile(r"\\f?box(?:ed)?\s*\{")
_INVISIBLE = re.compile(r"\\(?:left|right|displaystyle|[!,;:])(?![A-Za-z])|\\[()\[\]]|\*\*|`|~")
_DOLLARS = re.compile(r"(?<!\\)\$([^$]*)(?<!\\)\$")
_SIGNS = str.maketrans({"−": "-", "–": "-", "×": "*", "·": "*", "÷": "/", "∗": "*", "\u00a0": " "})
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")


def stated_answer(completion: str, form: ResponseForm) -> str | None:
    """The text that stands where ``form`` asks for the answer, cleaned by ``plain``; None where none does.

    Several places that state different things are guesses: None. ``anywhere`` takes answer tags where there
    are any, else boxes, else the last sentence that has a digit or asks something.
    """
    text = form.after_thinking(completion[-LONGEST:])
    place = form.answer_place
    tags = [plain(found) for found in _TAG.findall(text)]
    if place == AnswerPlace.answer_tag or (place == AnswerPlace.anywhere and tags):
        answer = _only(tags)
        if answer is None:
            return None
        boxes = [plain(box) for box in boxed(_TAG.findall(text)[-1])]
        return _only(boxes) if boxes else answer
    boxes = [plain(box) for box in boxed(text)]
    if place == AnswerPlace.boxed or boxes:
        return _only(boxes)
    return _last_sentence(text)


def boxed(text: str) -> list[str]:
    """What stands in each ``\\boxed{…}``, in order; an unclosed one is left out."""
    found = []
    for start in _BOX.finditer(text):
        depth = 1
        for index in range(start.end(), len(text)):
            depth += {"{": 1, "}": -1}.get(text[index], 0)
            if depth == 0:
                found.append(text[start.end() : index])
                break
    return found


def plain(text: str) -> str:
    """Without marks that only change how a value looks: LaTeX delimiters, bold, Unicode signs, a full stop.
    A single dollar is a currency and stays."""
    text = " ".join(_INVISIBLE.sub("", _DOLLARS.sub(r"\1", text.translate(_SIGNS))).split())
    return text.rstrip(".;, ") if not text.endswith("...") else text


def _only(found: list[str]) -> str | None:
    return found[-1] if len(set(found)) == 1 and found[-1] else None


def _last_sentence(text: str) -> str | None:
    for sentence in reversed(_SENTENCE_END.split(text)):
        if "?" in sentence:
            return None
        if re.search(r"\d", sentence):
            return plain(sentence)
    return None
