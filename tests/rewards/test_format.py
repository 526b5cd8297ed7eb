"""The format reward against open-r1's pattern, written here a second time."""

import re

import pytest

from igrpo_mcore.rewards.format import format_reward
from igrpo_mcore.types import Completion, Problem

OPEN_R1 = r"^<think>\n.*?\n</think>\n<answer>\n.*?\n</answer>$"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("<think>\na\n</think>\n<answer>\n5\n</answer>", 1.0),
        ("<think>\na\nb\n\n</think>\n<answer>\n5\n6\n</answer>", 1.0),
        ("<think>a</think><answer>5</answer>", 0.0),
        ("<think>\na\n</think>\n<answer>\n5\n</answer> bye", 0.0),
        (" <think>\na\n</think>\n<answer>\n5\n</answer>", 0.0),
        ("<think>\na\n</think>\n<answer>\n5", 0.0),
        ("", 0.0),
    ],
)
def test_format(text: str, value: float) -> None:
    assert format_reward(Problem("1", "q", "5"), Completion((), (), text, False)) == value
    assert float(bool(re.match(OPEN_R1, text, re.DOTALL))) == value
