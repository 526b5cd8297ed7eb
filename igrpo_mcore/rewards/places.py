"""Where in a completion the answer stands; every scan is linear in the text."""

from igrpo_mcore.config.reward_choices import THINK_CLOSE, THINK_OPEN, AccuracyFrom
from igrpo_mcore.rewards.options import RewardOptions

ANSWER_OPEN, ANSWER_CLOSE = "<answer>", "</answer>"
MAX_ANSWER = 2000
"""Characters of an answer; a longer one is none."""
MAX_TAIL = 4000
"""Characters at the end of a text that ``anywhere`` reads."""
MAX_PLACES = 16


def visible(text: str, opens_thinking: bool) -> str:
    """What follows the thinking: after the last ``</think>``. Of thinking that was never closed nothing
    follows, also where the chat template opened it (``opens_thinking``)."""
    _, closed, after = text.rpartition(THINK_CLOSE)
    if closed:
        return after
    return "" if opens_thinking else text.partition(THINK_OPEN)[0]


def answer_texts(text: str, options: RewardOptions) -> list[str]:
    """The texts in the asked place, in order; more than one where a text answers several times.

    With ``answer_tag`` the closed tags, with ``boxed`` the contents of ``\\boxed{}``, with ``anywhere``
    the end of the text. Empty where the place is missing or holds too much.
    """
    where, shown = options.accuracy_from, visible(text, options.opens_thinking)
    if where is AccuracyFrom.boxed:
        found = boxed(shown)
    elif where is AccuracyFrom.answer_tag:
        found = _tags(shown)
    else:
        return [shown.replace(ANSWER_OPEN, "\n").replace(ANSWER_CLOSE, "\n")[-MAX_TAIL:]]
    if len(found) > MAX_PLACES or any(len(content) > MAX_ANSWER for content in found):
        return []
    return found


def boxed(text: str) -> list[str]:
    """The contents of each outermost closed ``\\boxed{}`` or ``\\fbox{}``."""
    found: list[str] = []
    for piece in text.replace("\\fbox", "\\boxed").split("\\boxed")[1:]:
        content = _braced(piece.lstrip()[: MAX_ANSWER + 2])
        if content is not None:
            found.append(content)
    return found


def _tags(text: str) -> list[str]:
    found = []
    for piece in text.split(ANSWER_OPEN)[1:]:
        content, closed, _ = piece.partition(ANSWER_CLOSE)
        if closed:
            found.append(content)
    return found


def _braced(text: str) -> str | None:
    """The content of the group that ``text`` begins with."""
    level = 0
    for i, character in enumerate(text):
        if i > 0 and text[i - 1] == "\\":
            continue
        level += (character == "{") - (character == "}")
        if level == 0:
            return text[1:i] if character == "}" else None
    return None
