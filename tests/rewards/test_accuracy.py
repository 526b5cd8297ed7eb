"""The accuracy reward on answers whose equality is known."""

import pytest

from igrpo_mcore.config.reward_choices import AccuracyFrom
from igrpo_mcore.rewards.accuracy import accuracy_reward, same_answer
from igrpo_mcore.rewards.options import RewardOptions
from igrpo_mcore.tiny.task import Split, demonstration, problems
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
        ("1/3", "0.333333"),
        ("\\sqrt{2}", "1.4142136"),
        ("2 \\times 10^{-34}", "20 \\times 10^{-35}"),
        ("x+1", "1+x"),
        ("5", "x = 5"),
        ("5", "The answer is 5."),
        ("5", "The answer is $5$"),
        ("(1,2)", "(1, 2)"),
        ("\\{1,2\\}", "\\{2,1\\}"),
        ("(\\frac{1}{3}, 0.00000001)", "(0.333333, 10^{-8})"),
        ("\\{0.00000001, 0.00000003\\}", "\\{0.00000003, 0.00000001\\}"),
        ("[0, 0.00000001)", "[0, 10^{-8})"),
        ("(0,1) \\cup (2,3)", "(2,3) \\cup (0,1)"),
        ("1 \\pm \\sqrt{2}", "1 \\pm \\sqrt{2}"),
        ("1 \\pm \\sqrt{2}", "1+\\sqrt{2}, 1-\\sqrt{2}"),
        ("(x, 50\\%)", "(x, 50\\%)"),
        ("2^3 \\cdot 5 \\cdot 10^{-9}", "0.00000004"),
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
        ("1/3", "0.33333"),
        ("0.00000001", "0.00000002"),
        ("6.63 \\times 10^{-34}", "1.05 \\times 10^{-34}"),  # equal in six decimals
        ("\\frac{\\sqrt{2}}{10000000}", "\\frac{\\sqrt{3}}{10000000}"),
        ("0.00000001", "0"),
        ("(1, 0.00000001)", "(1, 0.00000002)"),
        ("\\{0.00000001, 0.00000003\\}", "\\{0.00000003, 0.00000002\\}"),
        ("\\{0.00000001\\}", "0.00000002"),
        ("0.00000001, 3", "3, 0.00000002"),
        ("[0, 0.00000001)", "[0, 0.00000002)"),
        ("(0,1) \\cup (2, 2.0000000001)", "(0,1) \\cup (2, 2.0001)"),
        ("\\begin{pmatrix}1 & 0.00000001\\end{pmatrix}", "\\begin{pmatrix} 1 & 0.00000002 \\end{pmatrix}"),
        ("2^3 \\cdot 5 \\cdot 10^{-9}", "0.00000005"),  # the reference is an expression
        ("x+1", "x-1"),
        ("(1,2)", "(2,1)"),
        ("5", "I do not know"),
        ("Friday", "Monday"),
    ],
)
def test_different_answers(answer: str, given: str) -> None:
    assert reward(answer, f"<answer>{given}</answer>") == 0.0


def test_answer_tags_that_differ_are_no_answer_and_the_thinking_does_not_count() -> None:
    assert reward("5", "<answer>4</answer> no: <answer>5</answer>") == 0.0
    assert reward("5", "<answer>5.0</answer> yes: <answer>5</answer>") == 1.0
    assert reward("5", "<think><answer>4</answer></think><answer>5</answer>") == 1.0
    assert reward("5", "<think>5</think><answer>4</answer>") == 0.0


TEXTS = [
    ("2+3 makes 6, no: the final answer is $5$. I hope it is correct.", 1.0),
    ("so we get \\boxed{5}", 1.0),
    ("so we get \\boxed{6}", 0.0),
    ("<answer>\n5", 1.0),  # never closed
    ("", 0.0),
]


@pytest.mark.parametrize(("text", "value"), TEXTS)
def test_only_anywhere_searches_the_whole_text(text: str, value: float) -> None:
    problem, completion = Problem("1", "q", "5"), Completion((), (), text, False)
    anywhere = RewardOptions(accuracy_from=AccuracyFrom.anywhere)
    assert accuracy_reward(problem, completion, options=anywhere) == value
    assert accuracy_reward(problem, completion) == 0.0


@pytest.mark.parametrize(
    ("a", "b", "value"),
    [
        ("<answer>5</answer>", "<answer>10/2</answer>", True),
        ("<answer>5</answer>", "<answer>6</answer>", False),
        ("<answer>Friday</answer>", "<answer>friday.</answer>", True),
        ("<answer>47 - 60</answer>", "<answer>47 - 60</answer>", False),  # neither is an answer
        ("5", "5", False),
    ],
)
def test_same_answer(a: str, b: str, value: bool) -> None:
    assert same_answer(a, b, RewardOptions()) is value
    assert same_answer(b, a, RewardOptions()) is value


@pytest.mark.parametrize(
    "problem", [p for split in Split for p in problems(20, 0, split)], ids=lambda p: p.id
)
def test_the_tiny_task_as_demonstrated_and_as_restated(problem: Problem) -> None:
    right = demonstration(problem)
    assert reward(problem.answer, right) == 1.0
    assert reward(str(int(problem.answer) + 1), right) == 0.0
    assert (
        reward(problem.answer, right.replace(f"<answer>\n{problem.answer}", f"<answer>\n{problem.problem}"))
        == 0.0
    )
