"""The accuracy reward cannot be talked into yes: a table of completions, and properties of random ones."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from igrpo_mcore.config.completion_form import AnswerPlace
from igrpo_mcore.rewards.accuracy import AccuracyReward
from igrpo_mcore.rewards.form import ResponseForm
from igrpo_mcore.types import Completion, Problem
from tests.rewards.red_team import ROWS


def score(problem: str, reference: str, place: AnswerPlace, text: str, **form: bool) -> float:
    reward = AccuracyReward(ResponseForm(place, **form))
    return reward(Problem("1", problem, reference), Completion((), (), text, False))


def test_the_table_is_large_and_has_both_sides():
    assert len(ROWS) >= 150
    assert 40 <= sum(row[4] for row in ROWS) <= len(ROWS) - 80


@pytest.mark.parametrize(
    ("problem", "reference", "place", "text", "expected", "why"),
    ROWS,
    ids=[f"{i}-{row[2]}-{row[5]}" for i, row in enumerate(ROWS)],
)
def test_red_team(problem, reference, place, text, expected, why):
    started = time.process_time()
    assert score(problem, reference, place, text) == expected, f"{text[:200]!r}: {why}"
    assert time.process_time() - started < 5, "bounded work, whatever the answer"


operands = st.integers(0, 99)
operators = st.sampled_from(["+", "-", "*"])
asks = st.sampled_from(
    ["{}", "What is {}?", "Calculate {}.", "Solve: {} =", "{} = ?", "Compute the value of {}"]
)
wrappings = st.sampled_from(
    (
        *(
            "{}",
            "{} =",
            "{} = ?",
            "Solve: {}",
            "Solve: {} =",
            "The answer is {}",
            "The answer is {}.",
            "So {}",
        ),
        *("({})", "${}$", "**{}**", "{} {}", "{}\n{}", "= {}", "{} = {}", "Answer: {}", "\\text{{}}"),
        *("{} or {}", "{}, {}"),
    )
)
places = {
    AnswerPlace.answer_tag: "<think>hm</think><answer>{}</answer>",
    AnswerPlace.boxed: "\\boxed{{{}}}",
    AnswerPlace.anywhere: "{}",
}


@st.composite
def expressions(draw) -> tuple[str, int]:
    text = str(draw(operands))
    for _ in range(draw(st.integers(1, 3))):
        space = draw(st.sampled_from(["", " "]))
        text += f"{space}{draw(operators)}{space}{draw(operands)}"
    return text, eval(text)  # made of integers and three operators just above


@settings(max_examples=600, derandomize=True, deadline=None)
@given(expressions(), asks, wrappings, st.sampled_from(list(places)), st.booleans())
def test_the_problems_own_text_never_scores(expression, ask, wrapping, place, whole):
    text, value = expression
    problem = ask.format(text)
    said = problem if whole else text
    completion = places[place].format(wrapping.replace("{}", said))
    assert score(problem, str(value), place, completion) == 0.0, completion


@settings(max_examples=300, derandomize=True, deadline=None)
@given(
    expressions(),
    asks,
    st.sampled_from(list(places)),
    st.sampled_from(["{}", "{}.", "x = {}", "The answer is {}"]),
)
def test_an_honest_final_value_scores(expression, ask, place, wrapping):
    text, value = expression
    completion = places[place].format(wrapping.format(value))
    assert score(ask.format(text), str(value), place, completion) == 1.0, completion
    assert score(ask.format(text), str(value), place, places[place].format(f"{text} = {value}")) == 1.0
    assert score(ask.format(text), str(value), place, places[place].format(wrapping.format(value + 1))) == 0.0


def test_a_prompt_that_opens_the_thinking():
    where = ("What is 47 - 60?", "-13")
    inside = "it is -13 <answer>-13</answer>"
    assert score(*where, AnswerPlace.anywhere, "it is -13", thinking_opened=True) == 0.0
    assert score(*where, AnswerPlace.answer_tag, inside, thinking_opened=True) == 0.0
    assert score(*where, AnswerPlace.answer_tag, "hm</think>" + inside, thinking_opened=True) == 1.0
