"""The table of red_team.py, and the same claims for random arithmetic."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from igrpo_mcore.config.reward_choices import AccuracyFrom
from igrpo_mcore.rewards.accuracy import accuracy_reward
from igrpo_mcore.rewards.options import RewardOptions
from igrpo_mcore.types import Completion, Problem
from tests.rewards.red_team import ACCEPTED, CASES, REFUSED, Case


def score(problem: str, reference: str, text: str, where: str) -> float:
    options = RewardOptions(accuracy_from=AccuracyFrom(where))
    return accuracy_reward(Problem("1", problem, reference), Completion((), (), text, False), options=options)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.why}: {case.completion[:60]!r}")
def test_red_team(case: Case) -> None:
    assert score(case.problem, case.reference, case.completion, case.where) == case.score, case.why


def test_the_table_is_large_and_has_both_kinds() -> None:
    assert len(REFUSED) >= 150
    assert len(ACCEPTED) >= 100
    assert len(set(CASES)) == len(CASES)


WRAPPINGS = [
    "{}",
    "{} =",
    "{} = ?",
    "{}?",
    "= {}",
    "Solve: {} =",
    "What is {}?",
    "The answer is {}.",
    "Answer: {}",
    "{} = {}",
    "{}\n{}",
    "x = {}",
    "$ {} $",
    "\\boxed{{{}}}",
    "({})",
    "{} is the answer",
    "**{}**",
    "The result of {} is {}.",
    "Solve: {} =\n\n{} =",
    "{} apples",
    "So {}, that is {}",
]
PLACES = [
    "{}",
    "<answer>{}</answer>",
    "<think>{}</think><answer>\n{}\n</answer>",
    "\\boxed{{{}}}",
    "<answer>\\boxed{{{}}}</answer>",
    "<answer>{}",
    "{}</think><answer>{}</answer>",
]
numbers = st.integers(0, 120)


@st.composite
def arithmetic(draw: st.DrawFn) -> tuple[str, int]:
    """A chain of two to four terms or an exact quotient, as text, with its value."""
    space = draw(st.sampled_from(["", " "]))
    if draw(st.booleans()) and draw(st.booleans()):
        quotient, divisor = draw(st.integers(0, 40)), draw(st.integers(1, 40))
        return f"{quotient * divisor}{space}/{space}{divisor}", quotient
    text = str(draw(numbers))
    for _ in range(draw(st.integers(1, 3))):
        text += f"{space}{draw(st.sampled_from('+-*'))}{space}{draw(numbers)}"
    return text, eval(text)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(arithmetic(), st.sampled_from(WRAPPINGS), st.sampled_from(PLACES), st.sampled_from(list(AccuracyFrom)))
def test_the_problems_own_text_never_scores(
    task: tuple[str, int], wrapping: str, place: str, where: AccuracyFrom
) -> None:
    expression, value = task
    said = wrapping.replace("{}", expression).replace("{{", "{").replace("}}", "}")
    text = place.replace("{}", said).replace("{{", "{").replace("}}", "}")
    for problem in (expression, f"What is {expression}?", f"Solve: {expression} ="):
        assert score(problem, str(value), text, where) == 0.0


HONEST = [
    "{v}",
    "{v}.",
    "x = {v}",
    "The answer is {v}.",
    "{p} = {v}",
    "$ {v} $",
    "\\boxed{{{v}}}",
    "{v}.0",
    "The answer is {v}",
]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(arithmetic(), st.sampled_from(HONEST), st.sampled_from(list(AccuracyFrom)), st.integers(-3, 3))
def test_honest_final_values_score_and_only_right_ones(
    task: tuple[str, int], saying: str, where: AccuracyFrom, error: int
) -> None:
    expression, value = task
    said = saying.format(v=value + error, p=expression)
    shell = {
        "answer_tag": "<think>{}</think><answer>{}</answer>",
        "boxed": "\\boxed{{{}}}",
        "anywhere": "{1}",
    }
    if where is AccuracyFrom.boxed and "boxed" in said:
        said = str(value + error)
    text = shell[where].format(expression if where is AccuracyFrom.answer_tag else said, said)
    assert score(f"What is {expression}?", str(value), text, where) == float(error == 0)
