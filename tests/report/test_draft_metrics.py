"""Refinements against their chosen draft, on cases counted by hand."""

from dataclasses import replace
from itertools import product

import pytest

from igrpo_mcore.config.reward_choices import AccuracyFrom
from igrpo_mcore.report.draft_metrics import draft_metrics, is_right
from igrpo_mcore.rewards.accuracy import final_answer_of, same_as_written
from igrpo_mcore.rewards.options import RewardOptions
from igrpo_mcore.types import Completion, Group, Prompt, PromptRollout, Score
from tests.support.rollouts import PROBLEM, random_rollouts, two_stages

ANYWHERE = RewardOptions(AccuracyFrom.anywhere)


def group(*members: tuple[float, float, str]) -> Group:
    """(accuracy, format, text) of each completion."""
    return Group(
        Prompt(PROBLEM, (1,)),
        tuple(Completion((1,), (-0.1,), text, False) for _, _, text in members),
        tuple(Score(a + f, {"accuracy": a, "format": f}) for a, f, _ in members),
    )


RIGHT_DRAFT = two_stages(
    group((0, 1, "<answer>4</answer>"), (1, 0, "so it is 5"), (0, 0, "?"), (0, 0, "!")),
    1,
    group(
        (1, 1, "<answer>5</answer>"),  # beats; the same answer, other text
        (1, 0, "so  it\nis 5 "),  # equal; the same text but for white space
        (0, 0, "6"),  # below
    ),
)
WRONG_DRAFT = two_stages(
    group((0, 1, "<answer>8</answer>"), (0, 0, "?"), (0, 0, "!"), (0, 0, "7")),
    0,
    group(
        (1, 1, "<answer>5</answer>"),  # beats
        (0, 1, "<answer> 8\n</answer>"),  # equal; the same answer
        (0, 1, "<answer>8</answer>"),  # equal; the same text
    ),
)


def test_every_figure_of_two_prompts() -> None:
    expected = {
        "drafts/chosen_reward": (1 + 1) / 2,
        "drafts/chosen_accuracy": 1 / 2,
        "drafts/best_accuracy": 1 / 2,
        "drafts/best_of_n_expected": ((1 - (3 / 4) ** 4) + 0) / 2,
        "refinements/gain_over_draft": ((1 + 0 - 1) + (1 + 0 + 0)) / 6,
        "refinements/beat_draft": 2 / 6,
        "refinements/equal_draft": 3 / 6,
        "refinements/below_draft": 1 / 6,
        "refinements/repeat_answer": (2 + 2) / 6,
        "refinements/repeat_text": (1 + 1) / 6,
        "refinements/accuracy_given_right_draft": 2 / 3,
        "refinements/accuracy_given_wrong_draft": 1 / 3,
    }
    assert draft_metrics([RIGHT_DRAFT, WRONG_DRAFT], ANYWHERE) == pytest.approx(expected)


def test_without_a_right_draft_there_is_no_accuracy_given_one() -> None:
    found = draft_metrics([WRONG_DRAFT], ANYWHERE)
    assert found["refinements/accuracy_given_right_draft"] is None
    assert found["refinements/accuracy_given_wrong_draft"] == pytest.approx(1 / 3)


def test_a_draft_of_another_problem_is_right_for_its_own_and_not_gained_over() -> None:
    """Each prompt of the first test given the other's draft (``rollout.selection=mismatched``)."""
    step = (RIGHT_DRAFT, WRONG_DRAFT)
    drafts = [rollout.stages[0] for rollout in step]
    crossed = [
        PromptRollout((replace(own, foreign=other.given), rollout.stages[1]))
        for rollout, own, other in zip(step, drafts, drafts[::-1], strict=True)
    ]
    found, matched = draft_metrics(crossed, ANYWHERE), draft_metrics(step, ANYWHERE)
    compared = ("gain_over_draft", "beat_draft", "equal_draft", "below_draft")
    assert {found[f"refinements/{name}"] for name in compared} == {None}
    assert found["refinements/accuracy_given_right_draft"] == pytest.approx(
        1 / 3
    )  # WRONG_DRAFT's refinements
    assert found["refinements/accuracy_given_wrong_draft"] == pytest.approx(2 / 3)
    assert found["refinements/repeat_answer"] == pytest.approx((0 + 1) / 6)  # of 8: none, of 5: one
    for name in ("chosen_reward", "chosen_accuracy", "best_accuracy", "best_of_n_expected"):
        assert found[f"drafts/{name}"] == matched[f"drafts/{name}"]


def test_plain_grpo_has_none_of_them() -> None:
    for rollouts in (random_rollouts(4, two_stage=False), []):
        assert set(draft_metrics(rollouts, ANYWHERE).values()) == {None}


def test_the_expected_best_of_n_is_below_the_propositions_and_the_observed_one_is_not() -> None:
    """Over every outcome of N = 4 drafts that are right with V = 1/4, by their probabilities."""
    expected = observed = 0.0
    for outcome in product([0, 1], repeat=4):
        chance = 0.25 ** sum(outcome) * 0.75 ** (4 - sum(outcome))
        drafts = group(*[(right, 0, "?") for right in outcome])
        found = draft_metrics([two_stages(drafts, 0, group((0, 0, "?")))], ANYWHERE)
        expected += chance * found["drafts/best_of_n_expected"]
        observed += chance * found["drafts/best_accuracy"]
    assert observed == pytest.approx(1 - 0.75**4)
    assert expected == pytest.approx(0.5368, abs=1e-4)


@pytest.mark.parametrize(
    ("parts", "right"),
    [
        ({"accuracy": 1.0, "format": 0.0, "length": 0.2}, True),
        ({"accuracy": 0.9, "length": 1.0}, False),
        ({"my.judge:score": 1.0, "format": 0.0}, True),
        ({"my.judge:score": 0.99, "format": 1.0}, False),
        ({"format": 1.0}, False),
        ({}, False),
    ],
)
def test_what_counts_as_right(parts: dict[str, float], right: bool) -> None:
    assert is_right(Score(sum(parts.values()), parts)) is right


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("<answer>5</answer>", "<answer> 5.0\n</answer>", True),
        ("5+3 = 8", "it is 8.", True),
        ("<answer>8</answer>", "it is 16/2.", True),
        ("it is -8", "it is 8", False),
        ("it is 0.8", "it is 8", False),
    ],
)
def test_the_same_answer(one: str, other: str, same: bool) -> None:
    answers = [final_answer_of(text, ANYWHERE) for text in (one, other)]
    assert same_as_written(*answers) is same


@pytest.mark.parametrize("text", ["", "<answer></answer>", "47 - 60", "\\boxed{4} \\boxed{5}"])
def test_no_answer(text: str) -> None:
    answer = final_answer_of(text, ANYWHERE)
    assert not same_as_written(answer, answer)
