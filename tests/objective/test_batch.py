"""Advantages, token weights and mini-batches against the papers' formulae, computed with numpy."""

import numpy as np
import pytest

from igrpo_mcore.config.schema import AdvantageStd, Aggregation, ObjectiveConfig, RolloutConfig
from igrpo_mcore.objective.advantages import group_advantages
from igrpo_mcore.objective.aggregation import token_weights
from igrpo_mcore.objective.batch import mini_batches, training_sequences
from igrpo_mcore.types import Completion, Group, Problem, Prompt, PromptRollout, Score
from tests.support.rollouts import two_stages

LENGTHS = [[3, 5, 2], [7, 1, 4]]
TERMS = [[np.arange(1.0, n + 1) * (g + 1) for n in group] for g, group in enumerate(LENGTHS)]


@pytest.mark.parametrize(("std", "ddof"), [(AdvantageStd.population, 0), (AdvantageStd.sample, 1)])
def test_advantages_are_standardised_rewards(std, ddof):
    rewards = [2.0, 0.0, 1.0, 1.5]
    expected = (np.array(rewards) - np.mean(rewards)) / np.std(rewards, ddof=ddof)
    assert group_advantages(rewards, std) == pytest.approx(expected.tolist())


def test_the_default_is_the_papers_sample_std():
    """Section 3.1 of arXiv 2602.09000: one of G = 4 is right, so the std is 1/2."""
    assert ObjectiveConfig().advantage_std == AdvantageStd.sample
    assert group_advantages([1.0, 0.0, 0.0, 0.0]) == pytest.approx([1.5, -0.5, -0.5, -0.5])


def test_advantages_without_divisor_are_centred_only():
    assert group_advantages([2.0, 0.0, 1.0], AdvantageStd.none) == pytest.approx([1.0, -1.0, 0.0])


@pytest.mark.parametrize("std", list(AdvantageStd))
def test_equal_rewards_carry_no_gradient(std):
    assert group_advantages([0.1 + 0.2] * 4, std) == [0.0] * 4
    assert group_advantages([1.0], std) == [0.0]


def weighted(aggregation: Aggregation) -> float:
    weights = token_weights(LENGTHS, aggregation, max_completion_tokens=10)
    return sum(
        w * term.sum()
        for group_w, group in zip(weights, TERMS, strict=True)
        for w, term in zip(group_w, group, strict=True)
    )


def test_sequence_mean_then_group_mean():
    expected = np.mean([np.mean([term.mean() for term in group]) for group in TERMS])
    assert weighted(Aggregation.sequence) == pytest.approx(expected)


def test_mean_over_all_tokens():
    assert weighted(Aggregation.token) == pytest.approx(np.concatenate([t for g in TERMS for t in g]).mean())


def test_fixed_length_divisor():
    expected = np.mean([np.mean([term.sum() / 10 for term in group]) for group in TERMS])
    assert weighted(Aggregation.fixed_length) == pytest.approx(expected)


def rollout(index: int) -> PromptRollout:
    problem = Problem(str(index), "p", "a")

    def group(stage: int, rewards: list[float]) -> Group:
        completions = tuple(
            Completion((index, stage, k), (-0.1, -0.2, -0.3), "t", False) for k in range(len(rewards))
        )
        return Group(Prompt(problem, (stage,)), completions, tuple(Score(r) for r in rewards))

    return two_stages(group(1, [1.0, 0.0]), 0, group(2, [2.0, 0.0, 0.0, 2.0]))


def test_the_update_is_on_refinements_alone():
    sequences = training_sequences([rollout(0), rollout(1)], ObjectiveConfig(), RolloutConfig())
    assert len(sequences) == 8
    assert {s.prompt_ids for s in sequences} == {(2,)}
    assert [s.advantage for s in sequences[:4]] == pytest.approx(
        [0.75**0.5 * sign for sign in (1, -1, -1, 1)]
    )


def test_draft_weight_adds_the_draft_group_under_q():
    objective = ObjectiveConfig(draft_weight=0.5)
    sequences = training_sequences([rollout(0)], objective, RolloutConfig())
    drafts = [s for s in sequences if s.prompt_ids == (1,)]
    assert [s.advantage for s in drafts] == pytest.approx([0.5**0.5, -(0.5**0.5)])
    assert [s.weight for s in drafts] == pytest.approx([0.5 / (1 * 2 * 3)] * 2)  # 0.5 / (B · N · |o|)


def test_mini_batches_deal_whole_prompts_and_normalise_each():
    batches = mini_batches([rollout(i) for i in range(4)], 2, ObjectiveConfig(), RolloutConfig())
    assert [{s.completion_ids[0] for s in batch} for batch in batches] == [{0, 1}, {2, 3}]
    for batch in batches:
        assert sum(s.weight * len(s.completion_ids) for s in batch) == pytest.approx(1.0)
