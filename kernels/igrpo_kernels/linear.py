"""The policy loss from hidden states, without ever holding the logits of all tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist

from igrpo_kernels import ops
from igrpo_kernels.inputs import LOGIT_DTYPES, TokenInputs, VocabularyShard, check_target
from igrpo_kernels.loss import metrics_of, row_statistics
from igrpo_kernels.objective import Objective, PolicyLoss

CHUNK_TOKENS = 1024
"""Rows whose logits are held at once."""


def linear_token_logprobs(
    hidden_TH: torch.Tensor,
    lm_head_VH: torch.Tensor,
    target_T: torch.Tensor,
    *,
    temperature: float = 1.0,
    chunk_tokens: int = CHUNK_TOKENS,
    vocab_start: int = 0,
    valid_vocab: int | None = None,
    tp_group: dist.ProcessGroup | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """``token_logprobs(hidden_TH @ lm_head_VH.T, …)`` with the logits of ``chunk_tokens`` rows at a time.

    Not differentiable; the arguments are those of ``linear_policy_loss``.

    Returns:
        (logprob_T, entropy_T): fp32 [T], nats, bitwise equal on all ranks of tp_group.

    Raises:
        ValueError: wrong shapes or dtypes.
    """
    _check(hidden_TH, lm_head_VH, target_T, chunk_tokens)
    shard = VocabularyShard(vocab_start, valid_vocab, tp_group)
    with torch.no_grad():
        head = _ChunkedHead(hidden_TH, lm_head_VH, None, chunk_tokens, (False, False))
        rows_5T = torch.cat(
            [
                row_statistics(logits_CV, target_T[rows], None, temperature, shard)
                for rows, logits_CV in head.chunks()
            ],
            1,
        )
    return rows_5T[3], rows_5T[4]


def linear_policy_loss(
    hidden_TH: torch.Tensor,
    lm_head_VH: torch.Tensor,
    target_T: torch.Tensor,
    *,
    old_logprob_T: torch.Tensor | None,
    advantage_T: torch.Tensor,
    weight_T: torch.Tensor,
    objective: Objective,
    chunk_tokens: int = CHUNK_TOKENS,
    ref_logprob_T: torch.Tensor | None = None,
    importance_T: torch.Tensor | None = None,
    sequence_id_T: torch.Tensor | None = None,
    vocab_start: int = 0,
    valid_vocab: int | None = None,
    tp_group: dist.ProcessGroup | None = None,
) -> PolicyLoss:
    """``policy_loss(hidden_TH @ lm_head_VH.T, …)`` with the logits of ``chunk_tokens`` rows at a time.

    The gradients are made in the forward pass, chunk by chunk (6 T H V FLOP); the kind gspo, whose ratios
    need all rows of a sequence first, makes the logits twice (8 T H V).

    Args:
        hidden_TH: bf16, fp16 or fp32 [T, H], the same on all ranks of tp_group. Its gradient is whole, that
            is, summed over tp_group.
        lm_head_VH: [V/TP, H] of the same dtype, this rank's rows. Its gradient is summed over chunks in fp32
            and given in its dtype.
        chunk_tokens: rows whose logits are held at once.

    The other arguments are those of ``policy_loss``.

    Raises:
        ValueError: as ``policy_loss``.
        RuntimeError: a second backward; the gradients are scaled in place.
    """
    _check(hidden_TH, lm_head_VH, target_T, chunk_tokens)
    tokens = TokenInputs(advantage_T, weight_T, old_logprob_T, ref_logprob_T, importance_T, sequence_id_T)
    tokens.check(target_T, objective)
    shard = VocabularyShard(vocab_start, valid_vocab, tp_group)
    wanted = (
        (hidden_TH.requires_grad, lm_head_VH.requires_grad) if torch.is_grad_enabled() else (False, False)
    )
    loss, summary = _LinearPolicyLoss.apply(
        hidden_TH, lm_head_VH, target_T, tokens, objective, shard, chunk_tokens, wanted
    )
    return PolicyLoss(loss, metrics_of(summary))


def _check(
    hidden_TH: torch.Tensor, lm_head_VH: torch.Tensor, target_T: torch.Tensor, chunk_tokens: int
) -> None:
    if hidden_TH.ndim != 2 or lm_head_VH.ndim != 2 or hidden_TH.shape[1] != lm_head_VH.shape[1]:
        raise ValueError(
            f"hidden_TH {tuple(hidden_TH.shape)} and lm_head_VH {tuple(lm_head_VH.shape)} "
            "are not [T, H] and [V, H]"
        )
    if hidden_TH.dtype != lm_head_VH.dtype or hidden_TH.dtype not in LOGIT_DTYPES:
        raise ValueError(
            f"hidden_TH is {hidden_TH.dtype} and lm_head_VH {lm_head_VH.dtype}; give both one float dtype"
        )
    if chunk_tokens < 1:
        raise ValueError(f"chunk_tokens is at least 1, got {chunk_tokens}")
    check_target(target_T, hidden_TH.shape[0])


class _LinearPolicyLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_TH: torch.Tensor,
        lm_head_VH: torch.Tensor,
        target_T: torch.Tensor,
        tokens: TokenInputs,
        objective: Objective,
        shard: VocabularyShard,
        chunk_tokens: int,
        wanted: tuple[bool, bool],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        head = _ChunkedHead(hidden_TH, lm_head_VH, tokens.weight_T, chunk_tokens, wanted)
        temperature = objective.temperature

        def statistics(rows: slice, logits_CV: torch.Tensor) -> torch.Tensor:
            return row_statistics(logits_CV, target_T[rows], tokens.weight_T[rows], temperature, shard)

        def backward(
            rows: slice, logits_CV: torch.Tensor, rows_5C: torch.Tensor, grads_2C: torch.Tensor
        ) -> None:
            valid_columns = shard.valid_columns(logits_CV.shape[1])
            one = grads_2C.new_ones(())
            place = (temperature, shard.start, valid_columns)
            ops.logits_grad_(logits_CV, target_T[rows], rows_5C, grads_2C, one, *place)
            head.backward(rows, logits_CV)

        if objective.kind == "gspo":
            rows_5T = torch.cat([statistics(rows, logits_CV) for rows, logits_CV in head.chunks()], 1)
            grads_2T, partials = ops.objective_terms(rows_5T, tokens, objective)
            if any(wanted):
                for rows, logits_CV in head.chunks():
                    backward(rows, logits_CV, rows_5T[:, rows], grads_2T[:, rows])
        else:
            parts = []
            for rows, logits_CV in head.chunks():
                rows_5C = statistics(rows, logits_CV)
                grads_2C, partials_9N = ops.objective_terms(rows_5C, tokens.rows(rows), objective)
                parts.append(partials_9N)
                if any(wanted):
                    backward(rows, logits_CV, rows_5C, grads_2C)
            partials = torch.cat(parts, 1)

        summary = ops.summarise(partials)
        ctx.save_for_backward(head.grad_hidden_TH, head.grad_lm_head_VH)
        ctx.group, ctx.dtype = shard.group, hidden_TH.dtype
        ctx.mark_non_differentiable(summary)
        return summary[0].clone(), summary

    @staticmethod
    def backward(ctx: Any, grad_loss: torch.Tensor, _: torch.Tensor) -> tuple:  # type: ignore[override]
        grad_hidden_TH, grad_lm_head_VH = ctx.saved_tensors
        if grad_hidden_TH is not None:
            grad_hidden_TH.mul_(grad_loss)
            if ctx.group is not None and ctx.group.size() > 1:
                dist.all_reduce(grad_hidden_TH, group=ctx.group)
        if grad_lm_head_VH is not None:
            grad_lm_head_VH = grad_lm_head_VH.mul_(grad_loss).to(ctx.dtype)
        return grad_hidden_TH, grad_lm_head_VH, None, None, None, None, None, None


class _ChunkedHead:
    """hidden @ lm_head.T in chunks of rows that share one buffer, and its two gradients."""

    def __init__(
        self,
        hidden_TH: torch.Tensor,
        lm_head_VH: torch.Tensor,
        weight_T: torch.Tensor | None,
        chunk_tokens: int,
        wanted: tuple[bool, bool],
    ) -> None:
        self.hidden_TH, self.lm_head_VH, self.weight_T = hidden_TH, lm_head_VH, weight_T
        self.buffer_CV = hidden_TH.new_empty(min(chunk_tokens, hidden_TH.shape[0]), lm_head_VH.shape[0])
        self.grad_hidden_TH = torch.empty_like(hidden_TH) if wanted[0] else None
        wide = torch.promote_types(lm_head_VH.dtype, torch.float32)
        self.grad_lm_head_VH = torch.zeros_like(lm_head_VH, dtype=wide) if wanted[1] else None

    def chunks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """Each chunk's rows and logits; the next one overwrites them."""
        T, C = self.hidden_TH.shape[0], max(self.buffer_CV.shape[0], 1)
        # without tokens there is still one (empty) chunk: every rank of a group takes part in its collectives
        for start in range(0, max(T, 1), C):
            rows = slice(start, min(start + C, T))
            logits_CV = self.buffer_CV[: rows.stop - rows.start]
            yield rows, torch.mm(self.hidden_TH[rows], self.lm_head_VH.t(), out=logits_CV)

    def backward(self, rows: slice, grad_CV: torch.Tensor) -> None:
        if self.grad_hidden_TH is not None:
            torch.mm(grad_CV, self.lm_head_VH, out=self.grad_hidden_TH[rows])
        if self.grad_lm_head_VH is not None:
            # rows of zero weight have a zero gradient, but 0 · NaN is NaN
            assert self.weight_T is not None
            hidden_CH = self.hidden_TH[rows].masked_fill((self.weight_T[rows] == 0)[:, None], 0)
            if self.grad_lm_head_VH.dtype == grad_CV.dtype:
                self.grad_lm_head_VH.addmm_(grad_CV.t(), hidden_CH)
            else:
                self.grad_lm_head_VH += grad_CV.t() @ hidden_CH
