"""The operators under PyTorch's own checks, and the loss under torch.compile."""

import pytest
import torch
from igrpo_kernels import Objective, linear_policy_loss, ops, policy_loss
from torch.library import opcheck

from tests.kernels.oracle import DEVICE, Case, make_case, relative

OBJECTIVE = Objective(kl_coef=0.1, entropy_coef=0.05)


@pytest.fixture
def case() -> Case:
    return make_case(20, 50, zero_weight=0.2, importance=True).to(DEVICE)


def test_opcheck_of_every_operator(case: Case) -> None:
    place = (1.0, 0, 45)
    case.target_T %= 45
    stats_4T = ops.row_stats(case.logits_TV, case.target_T, case.weight_T, *place)
    rows_5T = ops.merge(stats_4T[None], 1.0)
    terms = (rows_5T, case.advantage_T, case.weight_T, case.old_logprob_T, case.ref_logprob_T)
    terms += (case.importance_T, case.sequence_id_T)
    grads_2T, partials_9N = ops._objective_terms(*terms, "clip", 0.2, 0.2, None, 0.1, "k3", 0.05)
    one = torch.ones((), device=DEVICE)
    for operator, arguments in {
        ops.row_stats: (case.logits_TV, case.target_T, case.weight_T, *place),
        ops.merge: (stats_4T[None], 1.0),
        ops.summarise: (partials_9N,),
        ops.logits_grad: (case.logits_TV, case.target_T, rows_5T, grads_2T, one, *place),
        ops.logits_grad_: (case.logits_TV.clone(), case.target_T, rows_5T, grads_2T, one, *place),
    }.items():
        opcheck(operator, arguments)
    for kind in ("clip", "gspo"):
        for clip_low in (0.2, None):
            opcheck(ops._objective_terms, (*terms, kind, clip_low, 0.2, None, 0.1, "k3", 0.05))


@pytest.mark.parametrize("backend", ["eager", "aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("linear", [False, True])
def test_compiled_equals_eager(case: Case, backend: str, linear: bool) -> None:
    gen = torch.Generator().manual_seed(0)
    hidden = torch.randn(20, 8, generator=gen).to(DEVICE).requires_grad_()
    head = torch.randn(50, 8, generator=gen).mul(0.5).to(DEVICE).requires_grad_()

    def loss_of(hidden: torch.Tensor, head: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        options = {"objective": OBJECTIVE, **case.tokens()}
        if linear:
            result = linear_policy_loss(hidden, head, case.target_T, chunk_tokens=8, **options)
        else:
            result = policy_loss(hidden @ head.T, case.target_T, **options)
        return result.loss, result.metrics["entropy"]

    torch._dynamo.reset()
    # the linear form is one call of many kernels; it may leave the graph
    compiled = torch.compile(loss_of, fullgraph=not linear, backend=backend)
    outcomes = []
    for function in (loss_of, compiled):
        hidden.grad = head.grad = None
        loss, entropy = function(hidden, head)
        (loss * 3).backward()
        outcomes.append([loss.detach(), entropy, hidden.grad, head.grad])
    for actual, wanted in zip(*reversed(outcomes), strict=True):
        assert relative(actual, wanted) < 1e-6
