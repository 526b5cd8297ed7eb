"""Where the gradient goes, and what is refused."""

import pytest
import torch
from igrpo_kernels import Objective, linear_policy_loss, policy_loss, token_logprobs

from tests.kernels.oracle import DEVICE, Case, make_case

OBJECTIVE = Objective(kl_coef=0.1)


@pytest.fixture
def case() -> Case:
    return make_case(20, 50).to(DEVICE)


def loss_of(logits_TV: torch.Tensor, case: Case) -> torch.Tensor:
    return policy_loss(logits_TV, case.target_T, objective=OBJECTIVE, **case.tokens()).loss


def test_the_gradient_is_written_over_the_logits(case: Case) -> None:
    logits = case.logits_TV.requires_grad_() * 1
    written = []
    logits.register_hook(lambda grad: written.append((grad.data_ptr(), grad.requires_grad)))
    loss_of(logits, case).backward()
    assert written == [(logits.data_ptr(), False)]


def test_a_leaf_and_a_view_of_one_keep_their_values(case: Case) -> None:
    leaf = case.logits_TV.clone().requires_grad_()
    loss_of(leaf, case).backward()
    assert torch.equal(leaf.detach(), case.logits_TV)
    first = leaf.grad
    leaf.grad = None
    loss_of(leaf[None].view(20, 50), case).backward()
    assert torch.equal(leaf.detach(), case.logits_TV)
    assert torch.equal(leaf.grad, first)


def test_a_second_backward_raises(case: Case) -> None:
    loss = loss_of(case.logits_TV.requires_grad_() * 1, case)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_second_loss_on_consumed_logits_raises(case: Case) -> None:
    logits = case.logits_TV.requires_grad_() * 1
    logp, _ = token_logprobs(logits, case.target_T)
    loss_of(logits, case).backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        logp.sum().backward()


def test_an_operation_before_that_needs_its_output_raises(case: Case) -> None:
    loss = loss_of(case.logits_TV.requires_grad_().tanh(), case)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_second_backward_of_the_linear_form_raises(case: Case) -> None:
    hidden = torch.randn(20, 8, device=DEVICE, requires_grad=True)
    head = torch.randn(50, 8, device=DEVICE)
    loss = linear_policy_loss(hidden, head, case.target_T, objective=OBJECTIVE, **case.tokens()).loss
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_metrics_and_a_call_without_gradients_carry_no_graph(case: Case) -> None:
    result = policy_loss(case.logits_TV.requires_grad_(), case.target_T, objective=OBJECTIVE, **case.tokens())
    assert not any(metric.requires_grad or metric.ndim for metric in result.metrics.values())
    with torch.no_grad():
        assert not loss_of(case.logits_TV, case).requires_grad


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"advantage_T": torch.zeros(3, device=DEVICE)}, "advantage_T has shape"),
        ({"weight_T": torch.zeros(20, 1, device=DEVICE)}, "weight_T has shape"),
        ({"old_logprob_T": torch.zeros(20, device=DEVICE, requires_grad=True)}, "detach"),
        ({"ref_logprob_T": None}, "ref_logprob_T is missing"),
        ({"target_T": torch.zeros(20, device=DEVICE)}, "target_T is"),
        ({"logits_TV": torch.zeros(20, 5, 2, device=DEVICE)}, "3 dimensions"),
        ({"logits_TV": torch.zeros(20, 5, device=DEVICE, dtype=torch.int64)}, "logits_TV is torch.int64"),
        ({"objective": Objective(kind="gspo"), "sequence_id_T": None}, "sequence_id_T"),
    ],
)
def test_wrong_inputs_are_named(case: Case, change: dict, message: str) -> None:
    given = {"logits_TV": case.logits_TV, "target_T": case.target_T, "objective": OBJECTIVE, **case.tokens()}
    with pytest.raises(ValueError, match=message):
        policy_loss(**(given | change))
