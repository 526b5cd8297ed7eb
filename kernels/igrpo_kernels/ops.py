"""The kernels as PyTorch operators: ``torch.compile`` and fake tensors see through them.

Each runs on the path that ``igrpo_kernels.path`` chooses for its tensors. They know no autograd; the two
``autograd.Function`` of ``loss`` and the one of ``linear`` do.
"""

from __future__ import annotations

from types import ModuleType

import torch

from igrpo_kernels import reference
from igrpo_kernels.inputs import TokenInputs
from igrpo_kernels.objective import SUMMARY, Objective
from igrpo_kernels.path import path_of
from igrpo_kernels.reference import accumulator, objective_blocks

Tensor = torch.Tensor


def _path(tensor: Tensor) -> ModuleType:
    if path_of(tensor) == "reference":
        return reference
    # imported here: a machine without Triton has the reference path
    from igrpo_kernels import triton_path

    return triton_path


@torch.library.custom_op("igrpo_kernels::row_stats", mutates_args=())
def row_stats(
    logits_TV: Tensor,
    target_T: Tensor,
    weight_T: Tensor | None,
    temperature: float,
    vocab_start: int,
    valid_columns: int,
) -> Tensor:
    """[4, T]; see ``reference.row_stats``."""
    return _path(logits_TV).row_stats(logits_TV, target_T, weight_T, temperature, vocab_start, valid_columns)


@row_stats.register_fake
def _(
    logits_TV: Tensor,
    target_T: Tensor,
    weight_T: Tensor | None,
    temperature: float,
    vocab_start: int,
    valid_columns: int,
) -> Tensor:
    return logits_TV.new_empty(4, logits_TV.shape[0], dtype=accumulator(logits_TV.dtype))


@torch.library.custom_op("igrpo_kernels::merge", mutates_args=())
def merge(stats_W4T: Tensor, temperature: float) -> Tensor:
    """[5, T]; see ``reference.merge``."""
    return _path(stats_W4T).merge(stats_W4T, temperature)


@merge.register_fake
def _(stats_W4T: Tensor, temperature: float) -> Tensor:
    return stats_W4T.new_empty(5, stats_W4T.shape[2])


@torch.library.custom_op("igrpo_kernels::objective_terms", mutates_args=())
def _objective_terms(
    rows_5T: Tensor,
    advantage_T: Tensor,
    weight_T: Tensor,
    old_logprob_T: Tensor | None,
    ref_logprob_T: Tensor | None,
    importance_T: Tensor | None,
    sequence_id_T: Tensor | None,
    kind: str,
    clip_low: float | None,
    clip_high: float,
    dual_clip: float | None,
    kl_coef: float,
    kl_kind: str,
    entropy_coef: float,
) -> tuple[Tensor, Tensor]:
    tokens = TokenInputs(advantage_T, weight_T, old_logprob_T, ref_logprob_T, importance_T, sequence_id_T)
    objective = Objective(kind, clip_low, clip_high, dual_clip, kl_coef, kl_kind, entropy_coef)
    return _path(rows_5T).objective_terms(rows_5T, tokens, objective)


@_objective_terms.register_fake
def _(rows_5T: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    T = rows_5T.shape[1]
    return rows_5T.new_empty(2, T), rows_5T.new_empty(len(SUMMARY), objective_blocks(T))


def objective_terms(rows_5T: Tensor, tokens: TokenInputs, objective: Objective) -> tuple[Tensor, Tensor]:
    """[2, T] and [9, N]; see ``reference.objective_terms``."""
    o, t = objective, tokens
    return _objective_terms(
        *(rows_5T, t.advantage_T, t.weight_T, t.old_logprob_T, t.ref_logprob_T, t.importance_T),
        *(
            t.sequence_id_T,
            o.kind,
            o.clip_low,
            o.clip_high,
            o.dual_clip,
            o.kl_coef,
            o.kl_kind,
            o.entropy_coef,
        ),
    )


@torch.library.custom_op("igrpo_kernels::summarise", mutates_args=())
def summarise(partials_9N: Tensor) -> Tensor:
    """[9]; see ``reference.summarise``."""
    return _path(partials_9N).summarise(partials_9N)


@summarise.register_fake
def _(partials_9N: Tensor) -> Tensor:
    return partials_9N.new_empty(len(SUMMARY))


@torch.library.custom_op("igrpo_kernels::logits_grad", mutates_args=())
def logits_grad(
    logits_TV: Tensor,
    target_T: Tensor,
    rows_5T: Tensor,
    grads_2T: Tensor,
    scale: Tensor,
    temperature: float,
    vocab_start: int,
    valid_columns: int,
) -> Tensor:
    """The gradient in a buffer of its own; see ``reference.logits_grad``."""
    out_TV = torch.empty_like(logits_TV)
    _path(logits_TV).logits_grad(
        *(out_TV, logits_TV, target_T, rows_5T, grads_2T, scale, temperature, vocab_start, valid_columns)
    )
    return out_TV


@logits_grad.register_fake
def _(logits_TV: Tensor, *_: object) -> Tensor:
    return torch.empty_like(logits_TV)


@torch.library.custom_op("igrpo_kernels::logits_grad_", mutates_args=("logits_TV",))
def logits_grad_(
    logits_TV: Tensor,
    target_T: Tensor,
    rows_5T: Tensor,
    grads_2T: Tensor,
    scale: Tensor,
    temperature: float,
    vocab_start: int,
    valid_columns: int,
) -> None:
    """The gradient over the logits themselves; see ``reference.logits_grad``."""
    _path(logits_TV).logits_grad(
        *(logits_TV, logits_TV, target_T, rows_5T, grads_2T, scale),
        *(temperature, vocab_start, valid_columns),
    )


@logits_grad_.register_fake
def _(logits_TV: Tensor, *_: object) -> None:
    return None
