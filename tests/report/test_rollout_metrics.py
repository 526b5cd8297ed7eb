"""Rollout metrics against numpy on flat arrays."""

import numpy as np
import pytest

from igrpo_mcore.report.rollout_metrics import rollout_metrics
from igrpo_mcore.types import Completion, Group, Prompt, Score
from tests.support.rollouts import PROBLEM, one_stage, random_rollouts


def check_stage(metrics: dict[str, float | None], stage: str, groups: list[Group]) -> None:
    rewards = np.array([score.total for group in groups for score in group.scores])
    lengths = np.array([len(c.token_ids) for group in groups for c in group.completions])
    truncated = np.array([c.truncated for group in groups for c in group.completions])
    accuracy = np.array([score.parts["accuracy"] for group in groups for score in group.scores])
    assert metrics[f"{stage}/reward_mean"] == pytest.approx(rewards.mean())
    assert metrics[f"{stage}/reward_std"] == pytest.approx(rewards.std())
    assert metrics[f"{stage}/accuracy"] == pytest.approx(accuracy.mean())
    assert metrics[f"{stage}/length_mean"] == pytest.approx(lengths.mean())
    assert metrics[f"{stage}/truncated_share"] == pytest.approx(truncated.mean())


def failures(groups: list[Group]) -> int:
    return sum(bool(score.failures) for group in groups for score in group.scores)


@pytest.mark.parametrize("seed", range(3))
def test_two_stages(seed: int) -> None:
    rollouts = random_rollouts(seed)
    metrics = rollout_metrics(rollouts)
    drafts = [r.single_shot for r in rollouts]
    refinements = [r.trained for r in rollouts]
    check_stage(metrics, "drafts", drafts)
    check_stage(metrics, "refinements", refinements)
    assert metrics["groups/zero_std_share"] == pytest.approx(
        np.mean([np.ptp(g.rewards) == 0 for g in refinements])
    )
    assert metrics["drafts/overflowed_share"] == pytest.approx(
        np.mean([r.stages[0].overflowed for r in rollouts])
    )
    assert metrics["rewards/failures"] == failures(drafts + refinements)
    assert metrics["drafts/chosen_reward"] == pytest.approx(np.mean([g.scores[2].total for g in drafts]))


def test_plain_grpo_reports_its_one_group_under_both_names() -> None:
    rollouts = random_rollouts(4, two_stage=False)
    metrics = rollout_metrics(rollouts)
    groups = [r.trained for r in rollouts]
    check_stage(metrics, "drafts", groups)
    check_stage(metrics, "refinements", groups)
    assert metrics["drafts/overflowed_share"] is None
    assert metrics["rewards/failures"] == failures(groups)


def test_equal_rewards_are_zero_std_whatever_their_floating_point() -> None:
    def group(*rewards: float) -> Group:
        completion = Completion((1,), (-0.1,), "x", False)
        scores = tuple(Score(reward) for reward in rewards)
        return Group(Prompt(PROBLEM, (1,)), (completion,) * len(rewards), scores)

    rollouts = [one_stage(group(*r)) for r in [(0.1,) * 3, (0.1, 0.1, 0.2), (2.0,) * 3, (0.0,)]]
    metrics = rollout_metrics(rollouts)
    assert (metrics["groups/zero_std_share"], metrics["groups/with_gradient"]) == (0.75, 1)


def test_no_rollouts() -> None:
    metrics = rollout_metrics([])
    assert metrics["drafts/reward_mean"] is None
    assert metrics["refinements/reward_std"] is None
    assert metrics["groups/zero_std_share"] is None
