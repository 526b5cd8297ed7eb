"""The format reward against open-r1's pattern, written here a second time."""

import re

import pytest

from igrpo_mcore.config.completion_form import FormatStyle
from igrpo_mcore.rewards.form import ResponseForm
from igrpo_mcore.rewards.format import FormatReward
from igrpo_mcore.types import Completion, Problem

OPEN_R1 = r"^<think>\n.*?\n</think>\n<answer>\n.*?\n</answer>$"


def score(text: str, style: FormatStyle, thinking_opened: bool = False) -> float:
    reward = FormatReward(ResponseForm(format_style=style, thinking_opened=thinking_opened))
    return reward(Problem("1", "q", "5"), Completion((), (), text, False))


@pytest.mark.parametrize(
    ("text", "strict", "paper"),
    [
        ("<think>\na\n</think>\n<answer>\n5\n</answer>", 1.0, 1.0),
        ("<think>\na\nb\n\n</think>\n<answer>\n5\n6\n</answer>", 1.0, 1.0),
        ("<think>a</think><answer>5</answer>", 0.0, 1.0),
        ("<think>a</think>\n\n<answer>5</answer>\n", 0.0, 1.0),
        (" <think>\na\n</think>\n<answer>\n5\n</answer>", 0.0, 1.0),
        ("<think></think><answer>5</answer>", 0.0, 0.0),
        ("<think>a</think><answer> </answer>", 0.0, 0.0),
        ("<think>a</think><think>b</think><answer>5</answer>", 0.0, 0.0),
        ("<think>a</think><answer>5</answer><answer>6</answer>", 0.0, 0.0),
        ("<think>a</think>so<answer>5</answer>", 0.0, 0.0),
        ("<think>\na\n</think>\n<answer>\n5\n</answer> bye", 0.0, 0.0),
        ("<think>\na\n</think>\n<answer>\n5", 0.0, 0.0),
        ("a</think><answer>5</answer>", 0.0, 0.0),
        ("", 0.0, 0.0),
    ],
)
def test_format(text: str, strict: float, paper: float) -> None:
    assert score(text, FormatStyle.open_r1) == strict
    assert score(text, FormatStyle.paper) == paper
    assert float(bool(re.match(OPEN_R1, text, re.DOTALL))) == strict


def test_a_prompt_that_opens_the_thinking() -> None:
    assert score("a</think><answer>5</answer>", FormatStyle.paper, thinking_opened=True) == 1.0
    assert score("\na\n</think>\n<answer>\n5\n</answer>", FormatStyle.open_r1, thinking_opened=True) == 1.0
    assert score("<think>a</think><answer>5</answer>", FormatStyle.paper, thinking_opened=True) == 0.0
