"""The format reward against regular expressions written here a second time."""

import re

import pytest

from igrpo_mcore.config.reward_choices import FormatStyle
from igrpo_mcore.rewards.format import format_reward
from igrpo_mcore.rewards.options import RewardOptions
from igrpo_mcore.types import Completion, Problem

OPEN_R1 = r"^<think>\n.*?\n</think>\n<answer>\n.*?\n</answer>$"
PAPER = r"\s*<think>\s*[^<\s][^<]*</think>\s*<answer>\s*[^<\s][^<]*</answer>\s*"
# text, paper, open_r1
CASES = [
    ("<think>\na\n</think>\n<answer>\n5\n</answer>", 1.0, 1.0),
    ("<think>\na\nb\n\n</think>\n<answer>\n5\n6\n</answer>", 1.0, 1.0),
    ("<think>a</think><answer>5</answer>", 1.0, 0.0),  # what the paper's prompt writes
    ("<think>a</think>\n\n<answer> 5 </answer>\n ", 1.0, 0.0),
    (" <think>\na\n</think>\n<answer>\n5\n</answer>", 1.0, 0.0),
    ("<think>\na\n</think>\n<answer>\n5\n</answer> bye", 0.0, 0.0),
    ("so <think>a</think><answer>5</answer>", 0.0, 0.0),
    ("<think>a</think> so <answer>5</answer>", 0.0, 0.0),
    ("<think>a<think>b</think><answer>5</answer>", 0.0, 0.0),
    ("<think>a</think><answer>5</answer><answer>5</answer>", 0.0, 0.0),
    ("<answer>5</answer><think>a</think>", 0.0, 0.0),
    ("<think></think><answer>5</answer>", 0.0, 0.0),
    ("<think>a</think><answer> </answer>", 0.0, 0.0),
    ("<think>\na\n</think>\n<answer>\n5", 0.0, 0.0),
    ("<answer>5</answer>", 0.0, 0.0),
    ("<think>\n</think>\n<answer>\n</answer>", 0.0, 0.0),
    ("", 0.0, 0.0),
]


def score(text: str, style: FormatStyle, opens_thinking: bool = False) -> float:
    options = RewardOptions(format_style=style, opens_thinking=opens_thinking)
    return format_reward(Problem("1", "q", "5"), Completion((), (), text, False), options=options)


@pytest.mark.parametrize(("text", "paper", "open_r1"), CASES)
def test_format(text: str, paper: float, open_r1: float) -> None:
    assert score(text, FormatStyle.paper) == paper == float(bool(re.fullmatch(PAPER, text)))
    assert score(text, FormatStyle.open_r1) == open_r1 == float(bool(re.match(OPEN_R1, text, re.DOTALL)))


@pytest.mark.parametrize(
    ("text", "paper", "open_r1"), [case for case in CASES if case[0].startswith("<think>")]
)
def test_a_completion_that_begins_inside_the_thinking(text: str, paper: float, open_r1: float) -> None:
    rest = text.removeprefix("<think>\n").removeprefix("<think>")
    if text.startswith("<think>\n"):
        assert score(rest, FormatStyle.open_r1, opens_thinking=True) == open_r1
    assert score(rest, FormatStyle.paper, opens_thinking=True) == paper
    assert score(rest, FormatStyle.paper) == 0.0  # the missing tag is not forgiven elsewhere
    assert score(text, FormatStyle.paper, opens_thinking=True) == 0.0  # opened twice


def test_a_megabyte_of_tags() -> None:
    for style in FormatStyle:
        assert score("<think>\n" + "\n</think>\n<answer>\n" * 60_000, style) == 0.0
