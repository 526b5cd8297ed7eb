"""The accuracy reward on answers whose equality is known."""

import pytest

from igrpo_mcore.rewards.accuracy import accuracy_reward
from igrpo_mcore.types import Completion, Problem


def reward(answer: str, text: str) -> float:
    return accuracy_reward(Problem("1", "q", answer), Completion((), (), text, False))


@pytest.mark.parametrize(
    ("answer", "given"),
    [
        ("5", "5"),
        ("5", " 5.0 "),
        ("-7", "-7"),
        ("1234", "1,234"),
        ("1/2", "\\frac{1}{2}"),
        ("\\frac12", "0.5"),
        ("50%", "0.5"),
        ("3\\sqrt{2}", "\\sqrt{18}"),
        ("3\\sqrt{2}", "$3\\sqrt 2$"),
        ("$\\frac{\\pi}{2}$", "\\boxed{\\pi/2}"),
        ("x+1", "1+x"),
        ("5", "x = 5"),
        ("5", "The answer is 5."),
        ("5", "The answer is $5$"),
        ("(1,2)", "(1, 2)"),
        ("\\{1,2\\}", "\\{2,1\\}"),
        ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}"),
        ("\\text{Friday}", "\\text{Friday}"),
        ("Friday the 13th", "Friday the 13th"),
    ],
)
def test_equal_answers(answer: str, given: str) -> None:
    assert reward(answer, f"<think>\nperhaps 99\n</think>\n<answer>\n{given}\n</answer>") == 1.0


@pytest.mark.parametrize(
    ("answer", "given"),
    [
        ("5", "6"),
        ("5", ""),
        ("3\\sqrt{2}", "3"),  # what extraction from bare LaTeX would give
        ("3", "3\\sqrt{2}"),
        ("1/2", "1/3"),
        ("x+1", "x-1"),
        ("(1,2)", "(2,1)"),
        ("5", "I do not know"),
        ("Friday", "Monday"),
    ],
)
def test_different_answers(answer: str, given: str) -> None:
    assert reward(answer, f"<answer>{given}</answer>") == 0.0


def test_the_last_answer_tag_counts_and_the_thinking_does_not() -> None:
    assert reward("5", "<answer>4</answer> no: <answer>5</answer>") == 1.0
    assert reward("4", "<answer>4</answer> no: <answer>5</answer>") == 0.0
    assert reward("5", "<think>5</think><answer>4</answer>") == 0.0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2+3 makes 6, no: the final answer is $5$. I hope it is correct.", 1.0),
        ("so we get \\boxed{5}", 1.0),
        ("so we get \\boxed{6}", 0.0),
        ("<answer>\n5", 1.0),  # never closed: the whole text is searched
        ("", 0.0),
    ],
)
def test_without_tags_the_whole_text_is_searched(text: str, value: float) -> None:
    assert reward("5", text) == value
