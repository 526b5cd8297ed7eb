"""1 where a completion has the asked shape, 0 otherwise."""

import re

from igrpo_mcore.types import Completion, Problem

# open-r1's format reward, the one that the paper's prompt asks for (shared by arXiv 2602.09000's set-up).
PATTERN = re.compile(r"<think>\n.*?\n</think>\n<answer>\n.*?\n</answer>", re.DOTALL)


def format_reward(problem: Problem, completion: Completion) -> float:
    """1 for ``<think>⏎…⏎</think>⏎<answer>⏎…⏎</answer>`` from the first character to the last.

    The completion's text holds no end-of-sequence token. ``problem`` is not looked at.
    """
    return float(PATTERN.fullmatch(completion.text) is not None)
