"""Launches of the Triton kernels, function for function as in ``reference``."""

from __future__ import annotations

import torch
import triton

from igrpo_kernels import reference
from igrpo_kernels import triton_kernels as kernels
from igrpo_kernels.configs import Tile, Tiles, tiles
from igrpo_kernels.inputs import TokenInputs
from igrpo_kernels.objective import SUMMARY, Objective
from igrpo_kernels.path import interpreted
from igrpo_kernels.reference import OBJECTIVE_BLOCK, objective_blocks

_MERGE_BLOCK = 256
_SUMMARY_BLOCK = 128


def row_stats(
    logits_TV: torch.Tensor,
    target_T: torch.Tensor,
    weight_T: torch.Tensor | None,
    temperature: float,
    vocab_start: int,
    valid_columns: int,
) -> torch.Tensor:
    T = logits_TV.shape[0]
    stats_4T = torch.empty(4, T, dtype=torch.float32, device=logits_TV.device)
    if T:
        tile = _tiles(logits_TV).stats
        kernels.row_stats_kernel[(triton.cdiv(T, tile.rows),)](
            logits_TV,
            target_T.contiguous(),
            _float(weight_T),
            stats_4T,
            T,
            logits_TV.stride(0),
            vocab_start,
            valid_columns,
            1 / temperature,
            HAS_WEIGHT=weight_T is not None,
            **_shape(tile),
        )
    return stats_4T


def merge(stats_W4T: torch.Tensor, temperature: float) -> torch.Tensor:
    W, _, T = stats_W4T.shape
    rows_5T = torch.empty(5, T, dtype=torch.float32, device=stats_W4T.device)
    if T:
        grid = (triton.cdiv(T, _MERGE_BLOCK),)
        kernels.merge_kernel[grid](stats_W4T.contiguous(), rows_5T, T, 1 / temperature, W=W, B=_MERGE_BLOCK)
    return rows_5T


def objective_terms(
    rows_5T: torch.Tensor, tokens: TokenInputs, objective: Objective
) -> tuple[torch.Tensor, torch.Tensor]:
    """As the reference, which also serves the kind gspo: its sums over sequences are no elementwise step."""
    if objective.kind == "gspo":
        return reference.objective_terms(rows_5T, tokens, objective)
    T = rows_5T.shape[1]
    blocks = objective_blocks(T)
    grads_2T = torch.empty(2, T, dtype=torch.float32, device=rows_5T.device)
    partials_9N = torch.empty(len(SUMMARY), blocks, dtype=torch.float32, device=rows_5T.device)
    kernels.objective_kernel[(blocks,)](
        rows_5T.contiguous(),
        _float(tokens.advantage_T),
        _float(tokens.weight_T),
        _float(tokens.old_logprob_T),
        _float(tokens.ref_logprob_T),
        _float(tokens.importance_T),
        grads_2T,
        partials_9N,
        T,
        objective.lowest_ratio,
        1 + objective.clip_high,
        objective.dual_clip or 0.0,
        objective.kl_coef,
        objective.entropy_coef,
        KIND=objective.kind,
        KL_KIND=objective.kl_kind if objective.kl_coef != 0 else "none",
        HAS_OLD=tokens.old_logprob_T is not None,
        HAS_REF=tokens.ref_logprob_T is not None,
        HAS_IMPORTANCE=tokens.importance_T is not None,
        HAS_DUAL_CLIP=objective.dual_clip is not None,
        B=OBJECTIVE_BLOCK,
    )
    return grads_2T, partials_9N


def summarise(partials_9N: torch.Tensor) -> torch.Tensor:
    summary_9 = torch.empty(len(SUMMARY), dtype=torch.float32, device=partials_9N.device)
    kernels.summary_kernel[(1,)](partials_9N.contiguous(), summary_9, partials_9N.shape[1], B=_SUMMARY_BLOCK)
    return summary_9


def logits_grad(
    out_TV: torch.Tensor,
    logits_TV: torch.Tensor,
    target_T: torch.Tensor,
    rows_5T: torch.Tensor,
    grads_2T: torch.Tensor,
    scale: torch.Tensor,
    temperature: float,
    vocab_start: int,
    valid_columns: int,
) -> None:
    T, V = logits_TV.shape
    if T == 0:
        return
    tile = _tiles(logits_TV).grad
    kernels.logits_grad_kernel[(triton.cdiv(T, tile.rows),)](
        out_TV,
        logits_TV,
        target_T.contiguous(),
        rows_5T.contiguous(),
        grads_2T.contiguous(),
        scale,
        T,
        out_TV.stride(0),
        logits_TV.stride(0),
        vocab_start,
        valid_columns,
        V,
        1 / temperature,
        **_shape(tile),
    )


def _float(x_T: torch.Tensor | None) -> torch.Tensor | None:
    """As the kernels read it; nothing happens to fp32 rows that lie side by side."""
    return None if x_T is None else x_T.float().contiguous()


def _tiles(logits_TV: torch.Tensor) -> Tiles:
    device = "interpreter" if interpreted() else "cuda"
    return tiles(logits_TV.shape[1], logits_TV.dtype, device)


def _shape(tile: Tile) -> dict[str, int]:
    return {"R": tile.rows, "L": tile.lanes, "K": tile.vector, "STAGES": tile.stages, "num_warps": tile.warps}
