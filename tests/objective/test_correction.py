"""Truncated importance weights against their formula in float64, and in the loss."""

import math

import pytest
import torch
from igrpo_kernels import Objective, policy_loss

from igrpo_mcore.config.schema import Correction, ObjectiveConfig
from igrpo_mcore.objective.correction import ImportanceWeights
from igrpo_mcore.types import TrainingSequence

SAMPLED = [(-1.0, -2.0, -0.5), (-3.0, -0.1)]
OLD = [(-1.2, -0.6, -0.5), (-3.1, -0.4)]
BATCH = [TrainingSequence((1,), tuple(range(len(s))), s) for s in SAMPLED]


def weights(kind: Correction, cap: float = 2.0) -> ImportanceWeights:
    old = {i: torch.tensor(values) for i, values in enumerate(OLD)}
    return ImportanceWeights.of([BATCH], [old], ObjectiveConfig(correction=kind, correction_cap=cap))


def test_token_weights():
    found = weights(Correction.token)
    ratios = [
        [math.exp(o - s) for o, s in zip(*pair, strict=True)] for pair in zip(OLD, SAMPLED, strict=True)
    ]
    assert max(ratios[0]) > 2
    for i, expected in enumerate(ratios):
        assert found.weights[0][i].tolist() == pytest.approx([min(r, 2.0) for r in expected], rel=1e-6)
    flat = [r for part in ratios for r in part]
    capped = [min(r, 2.0) for r in flat]
    assert found.stats.mean == pytest.approx(sum(capped) / 5)
    assert found.stats.largest == pytest.approx(max(flat))
    assert found.stats.capped_share == pytest.approx(1 / 5)
    assert found.stats.effective_share == pytest.approx(sum(capped) ** 2 / (5 * sum(c * c for c in capped)))


def test_sequence_weights():
    found = weights(Correction.sequence)
    products = [math.exp(sum(o) - sum(s)) for o, s in zip(OLD, SAMPLED, strict=True)]
    assert products[0] > 2 > products[1]
    assert found.weights[0][0].tolist() == [2.0] * 3
    assert found.weights[0][1].tolist() == pytest.approx([products[1]] * 2, rel=1e-6)


def test_equal_policies_weigh_nothing():
    old = {i: torch.tensor(values) for i, values in enumerate(SAMPLED)}
    found = ImportanceWeights.of([BATCH], [old], ObjectiveConfig(correction=Correction.token))
    assert [w.tolist() for w in found.weights[0].values()] == [[1.0] * 3, [1.0] * 2]
    assert found.stats.metrics() == {
        "correction/weight_mean": 1.0,
        "correction/weight_max": 1.0,
        "correction/capped_share": 0.0,
        "correction/effective_share": 1.0,
    }


def test_the_loss_is_weighed_and_the_entropy_bonus_is_not():
    generator = torch.Generator().manual_seed(0)
    logits_TV = torch.randn(5, 11, generator=generator, dtype=torch.float32)
    target_T, advantage_T = torch.tensor([1, 2, 3, 4, 5]), torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0])
    weight_T = torch.full((5,), 0.2)
    found = weights(Correction.token)
    importance_T = torch.cat(list(found.weights[0].values()))
    leaf = logits_TV.clone().requires_grad_()
    policy_loss(
        leaf,
        target_T,
        old_logprob_T=None,
        advantage_T=advantage_T,
        weight_T=weight_T,
        objective=Objective(entropy_coef=0.01),
        importance_T=importance_T,
    ).loss.backward()
    exact = logits_TV.double().requires_grad_()
    logp_TV = exact.log_softmax(-1)
    logp_T = logp_TV.gather(-1, target_T[:, None])[:, 0]
    entropy_T = -(logp_TV.exp() * logp_TV).sum(-1)
    ratio_T = (logp_T - logp_T.detach()).exp()
    (-(weight_T * (importance_T * ratio_T * advantage_T + 0.01 * entropy_T)).sum()).backward()
    torch.testing.assert_close(leaf.grad.double(), exact.grad, rtol=0, atol=1e-6)
