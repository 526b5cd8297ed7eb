"""Each advantage: its gradient against autograd of the paper's formula in fp64, and which groups have one."""

import numpy as np
import pytest
import torch

from igrpo_mcore.config.schema import Advantage, ObjectiveConfig, RolloutConfig
from igrpo_mcore.objective.advantages import advantages_of, has_gradient
from igrpo_mcore.objective.batch import training_sequences
from tests.objective.formulae import Model, random_step, trained_gradients

STEP = random_step()


def reinforce(model: Model, weigh) -> torch.Tensor:
    """-(1/B) Σ (1/G) Σ (1/|o|) Σ_t A_j log π(o_t): what RGRA's paper writes for each of its ablations."""
    losses = []
    for rollout in STEP:
        group = rollout.trained
        advantages = weigh(np.array([s.total for s in group.scores]))
        losses.append(
            sum(
                -a * model.logp_T(group.prompt, c).mean()
                for a, c in zip(advantages, group.completions, strict=True)
            )
            / len(advantages)
        )
    return torch.stack(losses).mean()


def standardised(rewards: np.ndarray) -> np.ndarray:
    spread = rewards.std(ddof=1)
    return (rewards - rewards.mean()) / spread if spread else np.zeros_like(rewards)


FORMULAE = {
    Advantage.group: standardised,
    Advantage.positive: lambda rewards: np.maximum(standardised(rewards), 0),
    Advantage.raw: lambda rewards: rewards,
}


@pytest.mark.parametrize("kind", ["clip", "reinforce"])
@pytest.mark.parametrize("advantage", FORMULAE)
def test_gradient_of_the_formula(advantage: Advantage, kind: str) -> None:
    config, model = ObjectiveConfig(kind=kind, advantage=advantage), Model()
    sequences = training_sequences(STEP, config, RolloutConfig())
    found = trained_gradients(model, sequences, config)
    expected = model.gradients(reinforce(model, FORMULAE[advantage]))
    assert max(float(grad.abs().max()) for grad in expected.values()) > 1e-2
    for prompt, grad in expected.items():
        torch.testing.assert_close(found[prompt], grad, rtol=0, atol=1e-12)


def test_raft_is_cross_entropy_on_the_best_completion() -> None:
    config, model = ObjectiveConfig(kind="reinforce", advantage=Advantage.raft), Model()
    sequences = training_sequences(STEP, config, RolloutConfig())
    found = trained_gradients(model, sequences, config)
    losses = []
    for rollout in STEP:
        rewards = [score.total for score in rollout.trained.scores]
        best = rollout.trained.completions[rewards.index(max(rewards))]
        logits = model.logits_TV(rollout.trained.prompt.token_ids, len(best.token_ids))
        losses.append(torch.nn.functional.cross_entropy(logits, torch.tensor(best.token_ids)))
    expected = model.gradients(torch.stack(losses).mean())
    for prompt, grad in expected.items():
        torch.testing.assert_close(found[prompt], grad, rtol=0, atol=1e-12)
    assert len(sequences) == sum(len(r.trained.completions) for r in STEP)  # the others stay, for the gate
    assert [s.weight != 0 for s in sequences].count(True) == len(STEP)


@pytest.mark.parametrize("aggregation", ["token", "fixed_length"])
def test_raft_counts_only_what_it_keeps(aggregation: str) -> None:
    config = ObjectiveConfig(kind="reinforce", advantage=Advantage.raft, aggregation=aggregation)
    sequences = training_sequences(STEP, config, RolloutConfig(max_completion_tokens=8))
    kept = [s for s in sequences if s.weight]
    tokens = sum(len(s.completion_ids) for s in kept)
    divisor = tokens if aggregation == "token" else len(STEP) * 8
    assert [s.weight for s in kept] == pytest.approx([1 / divisor] * len(STEP))


def test_ties_go_to_the_first() -> None:
    config = ObjectiveConfig(kind="reinforce", advantage=Advantage.raft)
    assert advantages_of([0.0, 2.0, 2.0], config) == [0.0, 1.0, 0.0]
    assert advantages_of([0.0, 0.0], config) == [1.0, 0.0]


@pytest.mark.parametrize(
    ("advantage", "expected"),
    [
        (Advantage.group, [True, False, False]),
        (Advantage.positive, [True, False, False]),
        (Advantage.raw, [True, False, True]),
        (Advantage.raft, [True, True, True]),
    ],
)
def test_which_groups_have_a_gradient(advantage: Advantage, expected: list[bool]) -> None:
    config = ObjectiveConfig(kind="reinforce", advantage=advantage)
    groups = ([1.0, 0.0], [0.0, 0.0], [1.0, 1.0])
    assert [has_gradient(rewards, config) for rewards in groups] == expected
