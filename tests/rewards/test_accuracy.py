"""The accuracy reward on answers whose equality is known."""

import pytest

from igrpo_mcore.config.completion_form import AnswerPlace
from igrpo_mcore.rewards.accuracy import AccuracyReward
from igrpo_mcore.rewards.form import ResponseForm
from igrpo_mcore.types import Completion, Problem


def reward(answer: str, text: str, place: AnswerPlace = AnswerPlace.answer_tag) -> float:
    return AccuracyReward(ResponseForm(place))(Problem("1", "q", answer), Completion((), (), text, False))


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


def test_two_answers_are_guesses_and_the_thinking_does_not_count() -> None:
    assert reward("5", "<answer>4</answer> no: <answer>5</answer>") == 0.0
    assert reward("5", "<answer>5</answer> yes: <answer>5</answer>") == 1.0
    assert reward("5", "<think>5</think><answer>4</answer>") == 0.0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2+3 makes 6, no: the final answer is $5$. I hope it is correct.", 1.0),
        ("so we get \\boxed{5}", 1.0),
        ("so we get \\boxed{6}", 0.0),
        ("<answer>\n5", 1.0),  # never closed: the last sentence with a number
        ("", 0.0),
    ],
)
def test_without_tags_the_last_statement_counts_where_that_is_asked_for(text: str, value: float) -> None:
    assert reward("5", text, AnswerPlace.anywhere) == value
    assert reward("5", text) == 0.0


@pytest.mark.parametrize(
    ("answer", "given"),
    [
        ("\\boxed{5}", "5"),
        ("We see that $x=5$, so \\boxed{\\frac{1}{2}}.", "0.5"),
        ("2 + 3 = 5\n#### 5", "5"),
    ],
)
def test_references_of_worked_solutions(answer: str, given: str) -> None:
    assert reward(answer, f"<answer>{given}</answer>") == 1.0
    assert reward(answer, "<answer>7</answer>") == 0.0


PAIRS = {  # reference, answer: where the rule of a final value and math-verify alone disagree, and why
    ("-13", "47 - 60"): "left to compute",
    ("2", "9+3-5-5"): "left to compute",
    ("6", "2*3"): "left to compute",
    ("4", "2^2"): "left to compute",
    ("2x+1", "(x+1)^2-x^2+0*7"): "left to compute",
}
AGREED = [
    ("5", "5"),
    ("5", "6"),
    ("\\frac12", "0.5"),
    ("x+1", "1+x"),
    ("(1,2)", "(1, 2)"),
    ("(1,2)", "(2,1)"),
]
AGREED += [
    ("3\\sqrt{2}", "\\sqrt{18}"),
    ("\\{1,2\\}", "\\{2,1\\}"),
    ("1234", "1,234"),
    ("10", "12"),
    ("2", "10/5"),
]


def test_disagreements_with_math_verify_alone_are_these() -> None:
    from math_verify import parse, verify

    def alone(reference: str, given: str) -> float:
        parsed = [parse(f"${text}$", parsing_timeout=None) for text in (reference, given)]
        return float(verify(*parsed, timeout_seconds=None))

    for reference, given in AGREED:
        assert reward(reference, f"<answer>{given}</answer>") == alone(reference, given), (reference, given)
    for (reference, given), why in PAIRS.items():
        assert (reward(reference, f"<answer>{given}</answer>"), alone(reference, given)) == (0.0, 1.0), why
