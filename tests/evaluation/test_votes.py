"""Majority vote by hand: equal values vote together, silence does not vote."""

from dataclasses import replace

import pytest

from igrpo_mcore.config.reward_choices import AccuracyFrom
from igrpo_mcore.evaluation import votes
from igrpo_mcore.evaluation.ballot import WITHOUT_ANSWER, winner
from igrpo_mcore.rewards.options import RewardOptions
from igrpo_mcore.types import Problem
from tests.evaluation.lines import answered

BOXED = RewardOptions(AccuracyFrom.boxed)
PROBLEM = Problem("1", "Which number?", "1/2")


def boxed(*answers: str | None) -> list[str]:
    return ["no answer" if answer is None else f"So \\boxed{{{answer}}}." for answer in answers]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (["3", "4", "4"], 1),
        (["4", "3", "3", "4"], 0),  # a tie: the class that was sampled first
        ([None, None, None, "7"], 3),  # silence does not vote
        ([None, None], WITHOUT_ANSWER),
        (["3", "0.5", "\\frac{1}{2}", "\\frac12", "3"], 1),  # one value, three spellings
        (["1", "2\\sqrt{2}", "\\sqrt{8}", "1", "\\sqrt{8}"], 1),
        (["5", "x+1", "1+x", "5", "x + 1"], 1),
        (["1,234", "7", "1234", "7", "1234"], 0),
        (["\\text{blue}", "red", "red"], 1),
        (["B", "(A)", "A", "B", "A"], 1),
        (["3", "(1,2)", "(1, 2)"], 1),
        (["3", "(1,2)", "(2,1)", "3"], 0),
    ],
)
def test_the_winner(answers, expected):
    assert winner(PROBLEM, boxed(*answers), BOXED) == expected


def test_alike_is_what_is_written_alike():
    answers = boxed("1", "\\{1,2\\}", "\\{2,1\\}", "1", "\\{1,2\\}")
    assert winner(PROBLEM, answers, BOXED) == 1  # two sets are equal by math-verify alone
    assert winner(PROBLEM, answers, BOXED, alike=True) == 0
    assert winner(PROBLEM, boxed("3", "0.5", "\\frac{1}{2}"), BOXED, alike=True) == 1


def line(*answers: str | None):
    return replace(answered(1, [0] * len(answers)), problem=PROBLEM, texts=tuple(boxed(*answers)))


def test_votes_are_counted_in_workers():
    lines = [line("1", "2\\sqrt{2}", "\\sqrt{8}"), line(None, None, None), line("5", "5", "6")]
    assert votes.winners(lines, BOXED, workers=1) == [1, None, 0]


def test_a_vote_that_does_not_end_is_counted_by_what_is_written(monkeypatch):
    monkeypatch.setattr(votes.ballot, "__name__", "tests.evaluation.endless_ballot")
    monkeypatch.setattr(votes, "TIME_LIMIT_S", 0.5)
    assert votes.winners([line("7", "0.5", "\\frac12")], BOXED, workers=1) == [1]


def test_answers_are_read_where_the_prompt_asks_for_them():
    texts = ("<answer>4</answer>", "\\boxed{5}", "<answer>5</answer>", "\\boxed{5}")
    assert winner(PROBLEM, texts, RewardOptions(AccuracyFrom.answer_tag)) == 0
    assert winner(PROBLEM, texts, BOXED) == 1
    thinking = RewardOptions(AccuracyFrom.boxed, opens_thinking=True)
    assert winner(PROBLEM, ("\\boxed{1}</think>\\boxed{2}", "\\boxed{1}"), thinking) == 0
