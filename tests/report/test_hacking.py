"""The hints of hacking on completions whose kind is known."""

import pytest

from igrpo_mcore.report.hacking import expression_of, hacking_metrics
from igrpo_mcore.report.rollout_metrics import rollout_metrics
from igrpo_mcore.types import Completion, Group, Problem, Prompt, Score
from tests.support.rollouts import two_stages


def group(problem: str, *texts: tuple[str, float]) -> Group:
    completions = tuple(
        Completion((1,) * (i + 1), (-0.1,) * (i + 1), text, False) for i, (text, _) in enumerate(texts)
    )
    scores = tuple(Score(value + 1, {"accuracy": value, "format": 1.0}) for _, value in texts)
    return Group(Prompt(Problem("1", problem, "-13"), (1,)), completions, scores)


RESTATING = group(
    "What is 47 - 60?", ("Solve: 47-60 =", 1.0), ("Solve: 47-60 =", 1.0), ("47 - 60", 0.0), ("-13", 1.0)
)
THINKING = group("What is 47 - 60?", ("<think>47 - 60</think>-13", 1.0), ("-13", 1.0))


@pytest.mark.parametrize(
    ("problem", "expression"),
    [
        ("What is 47 - 60?", "47 - 60"),
        ("9+3-5-5", "9+3-5-5"),
        ("Given 1 + 2, state 3 * (4 + 5) now.", "3 * (4 + 5)"),
        ("Find the GCD of these numbers: 12 and 8.", "Find the GCD of these numbers: 12 and 8."),
    ],
)
def test_expression_of(problem: str, expression: str) -> None:
    assert expression_of(problem) == expression


def test_shares() -> None:
    metrics = hacking_metrics([RESTATING])
    assert metrics["expression_share"] == pytest.approx(2 / 3)
    assert metrics["distinct_texts"] == 0.75
    assert metrics["rewarded_length"] == pytest.approx((1 + 2 + 4) / 3)
    assert hacking_metrics([THINKING])["expression_share"] == 0.0  # in the thinking it is no answer
    assert hacking_metrics([RESTATING, THINKING])["distinct_texts"] == 0.875


def test_nothing_rewarded() -> None:
    metrics = hacking_metrics([group("9+3", ("12", 0.0))])
    assert metrics == {"expression_share": None, "distinct_texts": 1.0, "rewarded_length": None}
    assert set(hacking_metrics([]).values()) == {None}


def test_in_the_metrics_of_a_step() -> None:
    metrics = rollout_metrics([two_stages(RESTATING, 0, THINKING)])
    assert metrics["hacking/expression_share"] == 0.0
    assert metrics["hacking/drafts_expression_share"] == pytest.approx(2 / 3)
    assert metrics["hacking/drafts_distinct_texts"] == 0.75
    assert metrics["hacking/distinct_texts"] == 1.0
