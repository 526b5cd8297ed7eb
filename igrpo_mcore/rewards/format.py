"""1 where a completion has the asked shape, 0 otherwise."""

from igrpo_mcore.config.reward_choices import FormatStyle
from igrpo_mcore.rewards.options import RewardOptions
from igrpo_mcore.types import Completion, Problem

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
DEFAULT = RewardOptions()


def format_reward(problem: Problem, completion: Completion, *, options: RewardOptions = DEFAULT) -> float:
    """1 for thinking and then an answer in their tags and nothing else; ``problem`` is not looked at.

    ``paper``: ``<think>…</think><answer>…</answer>`` as the paper's prompt writes it, with any white
    space around and between the parts, each tag once, neither part empty. ``open_r1``: open-r1's
    pattern ``<think>⏎…⏎</think>⏎<answer>⏎…⏎</answer>`` to the letter, first character to last. Where
    ``options.opens_thinking``, the prompt holds the opening tag (with its line end) and the completion
    must not repeat it. The completion's text holds no end-of-sequence token.
    """
    text = completion.text
    if options.format_style is FormatStyle.open_r1:
        return float(_open_r1("<think>\n" + text if options.opens_thinking else text))
    return float(_paper("<think>" + text if options.opens_thinking else text))


def _paper(text: str) -> bool:
    text = text.strip()
    if any(text.count(tag) != 1 for tag in TAGS) or not text.startswith("<think>"):
        return False
    thinking, _, rest = text.removeprefix("<think>").partition("</think>")
    between, _, rest = rest.partition("<answer>")
    answer, _, after = rest.partition("</answer>")
    return bool(thinking.strip() and answer.strip()) and not between.strip() and not after


def _open_r1(text: str) -> bool:
    """``^<think>\\n.*?\\n</think>\\n<answer>\\n.*?\\n</answer>$`` in time linear in the text."""
    start, end = "<think>\n", "\n</answer>"
    inside = text[len(start) : -len(end)]
    return text.startswith(start) and text.endswith(end) and "\n</think>\n<answer>\n" in inside
