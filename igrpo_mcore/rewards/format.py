"""1 where a completion has the asked shape, 0 otherwise."""

import re

from igrpo_mcore.config.completion_form import FormatStyle
from igrpo_mcore.rewards.form import ResponseForm
from igrpo_mcore.types import Completion, Problem

PATTERNS = {
    # what the published prompt asks for word by word
    FormatStyle.paper: re.compile(r"\s*<think>(.*?)</think>\s*<answer>(.*?)</answer>\s*", re.DOTALL),
    # open-r1's format reward, with its newlines
    FormatStyle.open_r1: re.compile(r"<think>\n.*?\n</think>\n<answer>\n.*?\n</answer>", re.DOTALL),
}
_TAG = re.compile(r"</?(?:think|answer)>")


class FormatReward:
    """1 or 0 for a completion. Its text holds no end-of-sequence token; the problem is not looked at."""

    def __init__(self, form: ResponseForm) -> None:
        self._form = form

    def __call__(self, problem: Problem, completion: Completion) -> float:
        """1 for ``<think>…</think><answer>…</answer>`` from the first character to the last, in the form's
        style; where the prompt opened the thinking its tag is not asked for again. In the paper's style
        each tag stands once and both parts say something."""
        text = self._form.whole(completion.text)
        found = PATTERNS[self._form.format_style].fullmatch(text)
        if found is None:
            return 0.0
        parts = [part.strip() for part in found.groups()]
        return float(all(parts) and (not parts or len(_TAG.findall(text)) == 4))
