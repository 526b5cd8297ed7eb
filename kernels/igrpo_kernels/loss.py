"""Log-probs and the policy loss from (vocabulary-parallel) logits."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from igrpo_kernels import ops
from igrpo_kernels.inputs import TokenInputs, VocabularyShard, check_logits
from igrpo_kernels.objective import SUMMARY, Objective, PolicyLoss
from igrpo_kernels.tensor_parallel import all_gather_stats


def token_logprobs(
    logits_TV: torch.Tensor,
    target_T: torch.Tensor,
    *,
    temperature: float = 1.0,
    vocab_start: int = 0,
    valid_vocab: int | None = None,
    tp_group: dist.ProcessGroup | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-prob of each target and entropy of each row's distribution softmax(logits / temperature).

    Args:
        logits_TV: bf16, fp16 or fp32 [T, V/TP], this rank's columns. **The backward pass writes the gradient
            into this buffer** unless it is a leaf; an operation before it that saved its own output then
            raises RuntimeError.
        target_T: int64 [T], global token ids.
        vocab_start: global id of the first column of this shard.
        valid_vocab: global size of the vocabulary without padding; padded columns are never read.
        tp_group: the group over which the vocabulary is split, one all-gather of fp32 [4, T]; None where it
            is not split.

    Returns:
        (logprob_T, entropy_T): fp32 [T], nats, both differentiable, bitwise equal on all ranks of tp_group.
    """
    logits_TV = check_logits(logits_TV, target_T)
    shard = VocabularyShard(vocab_start, valid_vocab, tp_group)
    logprob_T, entropy_T = _TokenLogprobs.apply(logits_TV, target_T, temperature, shard)
    return logprob_T, entropy_T


def policy_loss(
    logits_TV: torch.Tensor,
    target_T: torch.Tensor,
    *,
    old_logprob_T: torch.Tensor | None,
    advantage_T: torch.Tensor,
    weight_T: torch.Tensor,
    objective: Objective,
    ref_logprob_T: torch.Tensor | None = None,
    importance_T: torch.Tensor | None = None,
    sequence_id_T: torch.Tensor | None = None,
    vocab_start: int = 0,
    valid_vocab: int | None = None,
    tp_group: dist.ProcessGroup | None = None,
) -> PolicyLoss:
    """Σ_t weight_T · loss of token t (see ``Objective``), with its metrics.

    Args:
        logits_TV, target_T, vocab_start, valid_vocab, tp_group: as in ``token_logprobs``.
        old_logprob_T: fp32 [T], log π_old of the targets; None: on-policy, ratio 1 with a gradient.
        advantage_T: fp32 [T].
        weight_T: fp32 [T], the aggregation (e.g. mask / (|o| G)). Rows of weight 0 are not read: anything
            may be there.
        ref_logprob_T: fp32 [T], log π_ref; needed where objective.kl_coef is not 0.
        importance_T: fp32 [T], factor on the surrogate (not on KL and entropy), e.g. truncated
            π_old / π_rollout.
        sequence_id_T: int64 [T], which sequence a row is of, in any order; needed by the kind gspo.
            All rows of a sequence have to be in the same call.

    Raises:
        ValueError: wrong shapes or dtypes, or an input missing that the objective needs.
        RuntimeError: a second backward through a graph whose logits hold the gradient already.
    """
    logits_TV = check_logits(logits_TV, target_T)
    tokens = TokenInputs(advantage_T, weight_T, old_logprob_T, ref_logprob_T, importance_T, sequence_id_T)
    tokens.check(target_T, objective)
    shard = VocabularyShard(vocab_start, valid_vocab, tp_group)
    loss, summary = _PolicyLoss.apply(logits_TV, target_T, tokens, objective, shard)
    return PolicyLoss(loss, metrics_of(summary))


def metrics_of(summary_9: torch.Tensor) -> dict[str, torch.Tensor]:
    return dict(zip(SUMMARY[1:], summary_9[1:].unbind(), strict=True))


def row_statistics(
    logits_TV: torch.Tensor,
    target_T: torch.Tensor,
    weight_T: torch.Tensor | None,
    temperature: float,
    shard: VocabularyShard,
) -> torch.Tensor:
    """[5, T] merged over the vocabulary: see ``reference.merge``."""
    valid_columns = shard.valid_columns(logits_TV.shape[1])
    stats_4T = ops.row_stats(logits_TV, target_T, weight_T, temperature, shard.start, valid_columns)
    return ops.merge(all_gather_stats(stats_4T, shard.group), temperature)


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits_TV: torch.Tensor, target_T: torch.Tensor, temperature: float, shard: VocabularyShard
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows_5T = row_statistics(logits_TV, target_T, None, temperature, shard)
        ctx.save_for_backward(logits_TV, target_T, rows_5T)
        ctx.temperature, ctx.shard, ctx.in_place = temperature, shard, _may_write(logits_TV)
        return rows_5T[3].clone(), rows_5T[4].clone()

    @staticmethod
    def backward(ctx: Any, grad_logprob_T: torch.Tensor, grad_entropy_T: torch.Tensor) -> tuple:  # type: ignore[override]
        grads_2T = torch.stack([grad_logprob_T, grad_entropy_T])
        return _grad(ctx, grads_2T, grads_2T.new_ones(())), None, None, None


class _PolicyLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits_TV: torch.Tensor,
        target_T: torch.Tensor,
        tokens: TokenInputs,
        objective: Objective,
        shard: VocabularyShard,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows_5T = row_statistics(logits_TV, target_T, tokens.weight_T, objective.temperature, shard)
        grads_2T, partials = ops.objective_terms(rows_5T, tokens, objective)
        summary = ops.summarise(partials)
        ctx.save_for_backward(logits_TV, target_T, rows_5T, grads_2T)
        ctx.temperature, ctx.shard, ctx.in_place = objective.temperature, shard, _may_write(logits_TV)
        ctx.mark_non_differentiable(summary)
        return summary[0].clone(), summary

    @staticmethod
    def backward(ctx: Any, grad_loss: torch.Tensor, _: torch.Tensor) -> tuple:  # type: ignore[override]
        return _grad(ctx, ctx.saved_tensors[3], grad_loss), None, None, None, None


def _may_write(logits_TV: torch.Tensor) -> bool:
    """A leaf, or a view of one, is the caller's own; its values stay. Other logits are done with."""
    base = logits_TV._base
    return not logits_TV.is_leaf and not (base is not None and base.is_leaf)


def _grad(ctx: Any, grads_2T: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    logits_TV, target_T, rows_5T = ctx.saved_tensors[:3]
    valid_columns = ctx.shard.valid_columns(logits_TV.shape[1])
    place = (ctx.temperature, ctx.shard.start, valid_columns)
    if ctx.in_place:
        ops.logits_grad_(logits_TV, target_T, rows_5T, grads_2T, scale, *place)
        return logits_TV.detach()
    return ops.logits_grad(logits_TV, target_T, rows_5T, grads_2T, scale, *place)
