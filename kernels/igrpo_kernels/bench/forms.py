"""The loss in every form that is compared: ours and its peers."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from igrpo_kernels.bench.problem import SEQUENCES, Problem, written_out
from igrpo_kernels.linear import linear_policy_loss
from igrpo_kernels.loss import policy_loss

# from logits [T, V], or from hidden [T, H] and head [V, H], to a scalar
LogitsLoss = Callable[[torch.Tensor, Problem], torch.Tensor]
LinearLoss = Callable[[torch.Tensor, torch.Tensor, Problem], torch.Tensor]


@dataclass(frozen=True)
class Form:
    name: str
    loss: Callable[..., torch.Tensor]
    has_entropy: bool = True
    """Whether it can add the entropy bonus; a form that cannot is left out where it is asked for."""
    extra_row: bool = False
    """Whether its logits are [SEQUENCES, T/SEQUENCES + 1, V], with a last row of no token."""


def logits_forms(device: str, compile_peer: bool) -> tuple[list[Form], dict[str, str]]:
    """The forms that run on ``device``, and why each other does not."""
    forms = [Form("igrpo_kernels", _ours), Form("PyTorch eager", written_out)]
    left_out = {}
    if compile_peer:
        forms.append(Form("torch.compile", torch.compile(written_out, dynamic=False)))
    else:
        left_out["torch.compile"] = "left out by --no-compile"
    forms.append(Form("Megatron-style vocabulary-parallel CE", _megatron_style, has_entropy=False))
    if device != "cuda":
        left_out["Liger Triton GRPO loss"] = "needs a GPU"
    elif importlib.util.find_spec("liger_kernel") is None:
        left_out["Liger Triton GRPO loss"] = "liger-kernel is not installed"
    else:
        forms.append(Form("Liger Triton GRPO loss", _liger, has_entropy=False, extra_row=True))
    return forms, left_out


def linear_forms(device: str, chunk_tokens: int) -> tuple[list[Form], dict[str, str]]:
    """The same from hidden states and a head."""

    def ours(hidden_TH: torch.Tensor, head_VH: torch.Tensor, p: Problem) -> torch.Tensor:
        return linear_policy_loss(
            hidden_TH, head_VH, p.target_T, chunk_tokens=chunk_tokens, **_keywords(p)
        ).loss

    forms = [
        Form("igrpo_kernels linear", ours),
        Form("igrpo_kernels, whole logits", lambda hidden, head, p: _ours(hidden @ head.T, p)),
        Form("unfused head + loss", lambda hidden, head, p: written_out(hidden @ head.T, p)),
    ]
    left_out = {}
    if importlib.util.find_spec("liger_kernel") is None:
        left_out["Liger chunked GRPO loss"] = "liger-kernel is not installed"
    else:
        # its torch.compile is for GPUs here: on a CPU the C++ compilation alone takes minutes
        forms.append(Form("Liger chunked GRPO loss", _liger_chunked(device == "cuda"), has_entropy=False))
    return forms, left_out


def _keywords(p: Problem) -> dict[str, Any]:
    return {
        "old_logprob_T": p.old_logprob_T,
        "ref_logprob_T": p.ref_logprob_T,
        "advantage_T": p.advantage_T,
        "weight_T": p.weight_T,
        "objective": p.objective,
    }


def _ours(logits_TV: torch.Tensor, p: Problem) -> torch.Tensor:
    return policy_loss(logits_TV, p.target_T, **_keywords(p)).loss


class _VocabularyParallelCrossEntropy(torch.autograd.Function):
    """Cross-entropy as Megatron-LM's: max, exponentials and softmax as whole [T, V] passes in fp32.

    The group has one rank here, so its three all-reduces fall away.
    """

    @staticmethod
    def forward(ctx: Any, logits_TV: torch.Tensor, target_T: torch.Tensor) -> torch.Tensor:
        z = logits_TV.float()
        z = z - z.max(-1, keepdim=True).values
        z_y = z.gather(1, target_T[:, None])[:, 0]
        p = z.exp_()
        total = p.sum(-1)
        p.div_(total[:, None])
        ctx.save_for_backward(p, target_T)
        ctx.dtype = logits_TV.dtype
        return total.log() - z_y

    @staticmethod
    def backward(ctx: Any, grad_T: torch.Tensor) -> tuple:  # type: ignore[override]
        p, target_T = ctx.saved_tensors
        p.scatter_add_(1, target_T[:, None], torch.full_like(grad_T, -1.0)[:, None])
        return p.mul_(grad_T[:, None]).to(ctx.dtype), None


def _megatron_style(logits_TV: torch.Tensor, p: Problem) -> torch.Tensor:
    logp_T = -_VocabularyParallelCrossEntropy.apply(logits_TV, p.target_T)
    o, A = p.objective, p.advantage_T
    ratio = torch.exp(logp_T - p.old_logprob_T)
    surrogate = torch.minimum(ratio * A, ratio.clamp(o.lowest_ratio, 1 + o.clip_high) * A)
    delta = p.ref_logprob_T - logp_T
    return (p.weight_T * (o.kl_coef * (torch.exp(delta) - delta - 1) - surrogate)).sum()


def _liger(logits_SLV: torch.Tensor, p: Problem) -> torch.Tensor:
    from liger_kernel.transformers.grpo_loss import triton_grpo_loss

    target, old, ref, advantage = _by_sequence(p)
    loss, _ = triton_grpo_loss(
        logits_SLV,
        old,
        ref,
        target,
        advantage,
        temperature=1.0,
        beta=p.objective.kl_coef,
        eps_low=p.objective.clip_low,
        eps_high=p.objective.clip_high,
        loss_type="dapo",
        reduce=True,
    )
    return loss


def _by_sequence(p: Problem) -> list[torch.Tensor]:
    target, old, ref, advantage = (
        x.view(SEQUENCES, -1) for x in (p.target_T, p.old_logprob_T, p.ref_logprob_T, p.advantage_T)
    )
    return [target, old, ref, advantage[:, 0].contiguous()]


def _liger_chunked(compiled: bool) -> LinearLoss:
    def loss(hidden_TH: torch.Tensor, head_VH: torch.Tensor, p: Problem) -> torch.Tensor:
        from liger_kernel.chunked_loss import LigerFusedLinearGRPOLoss

        o = p.objective
        fused = LigerFusedLinearGRPOLoss(o.kl_coef, compiled, True, 1, o.clip_low, o.clip_high, "dapo")
        target, old, ref, advantage = _by_sequence(p)
        return fused(
            hidden_TH.view(SEQUENCES, -1, hidden_TH.shape[1]),
            head_VH,
            target,
            torch.ones_like(old),
            advantage,
            ref_per_token_logps=ref,
            old_per_token_logps=old,
        )[0]

    return loss
