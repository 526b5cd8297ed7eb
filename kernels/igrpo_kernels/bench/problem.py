"""One problem of the benchmark: the inputs of GRPO's loss, and its exact outcome in fp64, row by row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.nn.functional import log_softmax

from igrpo_kernels.objective import Objective

SEQUENCES = 16


@dataclass
class Problem:
    """16 sequences of T/16 tokens, each of one advantage; DAPO's aggregation: every token weighs 1/T."""

    target_T: torch.Tensor
    old_logprob_T: torch.Tensor
    ref_logprob_T: torch.Tensor
    advantage_T: torch.Tensor
    weight_T: torch.Tensor
    objective: Objective


def make_problem(logits_TV: torch.Tensor, objective: Objective) -> Problem:
    """Old and reference log-probs near the policy's, so that a share of the ratios is clipped."""
    T, V = logits_TV.shape
    device = logits_TV.device
    target_T = torch.randint(0, V, (T,), device=device)
    logp_T = torch.cat(
        [
            log_softmax(x.float(), -1).gather(1, y[:, None])[:, 0]
            for x, y in zip(logits_TV.split(_rows(V)), target_T.split(_rows(V)), strict=True)
        ]
    )
    return Problem(
        target_T,
        logp_T + 0.2 * torch.randn(T, device=device),
        logp_T + 0.2 * torch.randn(T, device=device),
        torch.randn(SEQUENCES, 1, device=device).expand(SEQUENCES, T // SEQUENCES).reshape(T),
        torch.full((T,), 1 / T, device=device),
        objective,
    )


def written_out(logits_TV: torch.Tensor, p: Problem, rows: slice = slice(None)) -> torch.Tensor:
    """The loss as a trainer without kernels writes it, in the precision of the logits (16 bits: in fp32)."""
    wide = torch.promote_types(logits_TV.dtype, torch.float32)
    log_p = log_softmax(logits_TV.to(wide), -1)
    logp_T = log_p.gather(1, p.target_T[rows, None])[:, 0]
    o, A = p.objective, p.advantage_T[rows]
    ratio = torch.exp(logp_T - p.old_logprob_T[rows])
    surrogate = torch.minimum(ratio * A, ratio.clamp(o.lowest_ratio, 1 + o.clip_high) * A)
    delta = p.ref_logprob_T[rows] - logp_T
    loss_T = o.kl_coef * (torch.exp(delta) - delta - 1) - surrogate
    if o.entropy_coef:
        loss_T = loss_T + o.entropy_coef * (log_p.exp() * log_p).sum(-1)
    return (p.weight_T[rows] * loss_T).sum()


def exact(logits_TV: torch.Tensor, p: Problem) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
    """Rows, their share of the loss and their gradient, in fp64; a few rows at a time."""
    T, V = logits_TV.shape
    for start in range(0, T, _rows(V)):
        rows = slice(start, min(start + _rows(V), T))
        x = logits_TV[rows].double().requires_grad_()
        loss = written_out(x, p, rows)
        yield rows, loss.detach(), torch.autograd.grad(loss, x)[0]


def errors(
    logits_TV: torch.Tensor, p: Problem, loss: torch.Tensor, grad_TV: torch.Tensor
) -> dict[str, float]:
    """Relative error of a loss and of its gradient (norm over norm) against fp64."""
    zero = torch.zeros((), dtype=torch.float64, device=logits_TV.device)
    total = difference = size = zero
    loss = loss.detach().double()
    for rows, loss_rows, grad_rows in exact(logits_TV, p):
        total = total + loss_rows
        difference = difference + (grad_TV[rows].double() - grad_rows).square().sum()
        size = size + grad_rows.square().sum()
    return {
        "loss": float((loss - total).abs() / total.abs()),
        "gradient": float((difference / size).sqrt()),
    }


def _rows(V: int) -> int:
    return max(1, 2**24 // V)
