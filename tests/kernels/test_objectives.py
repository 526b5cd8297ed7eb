"""Every kind of objective against its published formula in fp64: loss, gradient and metrics."""

import pytest
import torch
from igrpo_kernels import Objective, policy_loss

from tests.kernels.oracle import DEVICE, assert_matches, make_case

KINDS = ("clip", "reinforce", "cispo", "gspo")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_surrogate_alone(kind: str, dtype: torch.dtype) -> None:
    assert_matches(make_case(67, 300, dtype=dtype), Objective(kind=kind))


@pytest.mark.parametrize("kl_kind", ["k1", "k2", "k3"])
@pytest.mark.parametrize("kind", KINDS)
def test_everything_on(kind: str, kl_kind: str) -> None:
    case = make_case(67, 300, temperature=0.7, importance=True, zero_weight=0.3)
    objective = Objective(kind=kind, kl_coef=0.05, kl_kind=kl_kind, entropy_coef=0.02, temperature=0.7)
    assert_matches(case, objective, grad_output=2.5)


@pytest.mark.parametrize("kind", KINDS)
def test_everything_on_in_bf16(kind: str) -> None:
    case = make_case(67, 300, dtype=torch.bfloat16, temperature=1.3, importance=True, zero_weight=0.3)
    objective = Objective(kind=kind, kl_coef=0.05, entropy_coef=0.02, temperature=1.3)
    assert_matches(case, objective, grad_output=-0.5)


@pytest.mark.parametrize("kind", KINDS)
def test_on_policy_has_ratio_one_with_a_gradient(kind: str) -> None:
    case = make_case(67, 130, on_policy=True)
    assert_matches(case, Objective(kind=kind))
    metrics = policy_loss(
        case.logits_TV, case.target_T, objective=Objective(kind=kind), **case.tokens()
    ).metrics
    assert metrics["ratio_min"] == metrics["ratio_max"] == 1
    assert metrics["neg_log_ratio"] == 0


@pytest.mark.parametrize("kind", ["clip", "gspo"])
def test_dual_clip_bounds_the_loss_of_negative_advantages(kind: str) -> None:
    case = make_case(67, 130, importance=True)
    case.advantage_T = -case.advantage_T.abs()
    case.old_logprob_T = case.old_logprob_T - 0.5
    assert_matches(case, Objective(kind=kind, dual_clip=1.3))


@pytest.mark.parametrize("kind", ["clip", "cispo", "gspo"])
def test_clip_bounds_of_their_own(kind: str) -> None:
    assert_matches(make_case(67, 130), Objective(kind=kind, clip_low=0.1, clip_high=0.28))


@pytest.mark.parametrize("kind", ["clip", "cispo", "gspo"])
def test_no_lower_bound(kind: str) -> None:
    """As MiniMax-M1 has CISPO: small ratios stay what they are, and none counts as clipped low."""
    case = make_case(67, 130)
    case.old_logprob_T = case.old_logprob_T + torch.linspace(-0.5, 1.5, 67)
    case.advantage_T = -case.advantage_T.abs()
    unbounded = Objective(kind=kind, clip_low=None)
    assert_matches(case, unbounded)
    results = {}
    for objective in (unbounded, Objective(kind=kind, clip_low=0.1)):
        moved = case.to(DEVICE)
        results[objective.clip_low] = policy_loss(
            moved.logits_TV, moved.target_T, objective=objective, **moved.tokens()
        )
    assert results[0.1].metrics["clip_fraction_low"] > 0 == results[None].metrics["clip_fraction_low"]
    assert results[0.1].loss != results[None].loss


def test_entropy_bonus_alone_pushes_the_entropy_up() -> None:
    case = make_case(40, 130, reference=False)
    case.advantage_T = torch.zeros(40)
    objective = Objective(kind="reinforce", entropy_coef=1.0)
    assert_matches(case, objective)
    leaf = case.logits_TV.clone().requires_grad_()
    before = policy_loss(leaf, case.target_T, objective=objective, **case.tokens())
    before.loss.backward()
    after = policy_loss((leaf - leaf.grad).detach(), case.target_T, objective=objective, **case.tokens())
    assert after.metrics["entropy"] > before.metrics["entropy"]


def test_gspo_takes_sequences_in_any_order() -> None:
    case = make_case(67, 130, zero_weight=0.2, importance=True)
    case.sequence_id_T = torch.randint(0, 5, (67,), generator=torch.Generator().manual_seed(3)) * 1000 - 7
    case.advantage_T = torch.randn(67, generator=torch.Generator().manual_seed(4))
    assert_matches(case, Objective(kind="gspo", kl_coef=0.1))


def test_more_rows_than_one_block_of_the_summary() -> None:
    assert_matches(make_case(2100, 9, sequences=30, zero_weight=0.1), Objective(kl_coef=0.1))


def test_a_ratio_that_overflows_counts_for_nothing_without_an_advantage() -> None:
    case = make_case(20, 30)
    case.advantage_T[:] = 0
    case.old_logprob_T -= 1e4
    case = case.to(DEVICE)
    leaf = case.logits_TV.requires_grad_()
    result = policy_loss(leaf, case.target_T, objective=Objective(), **case.tokens())
    result.loss.backward()
    assert result.loss.item() == 0
    assert not leaf.grad.any()


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "ppo"},
        {"kl_kind": "k4"},
        {"temperature": 0.0},
        {"clip_low": -0.1},
        {"dual_clip": 0.9},
        {"kind": "reinforce", "dual_clip": 3.0},
    ],
)
def test_an_objective_that_makes_no_sense_is_refused(options: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Objective(**options)
