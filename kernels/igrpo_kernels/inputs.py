"""The tensors of a call, checked and gathered in two plain classes."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
import torch.distributed as dist

from igrpo_kernels.objective import Objective

LOGIT_DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)


@dataclass(frozen=True)
class VocabularyShard:
    """The columns of the vocabulary that this rank's logits hold."""

    start: int = 0
    """Global id of the first column."""
    valid: int | None = None
    """Global size of the vocabulary without padding; later columns are never read. None: no padding."""
    group: dist.ProcessGroup | None = None
    """The tensor-parallel group, or None where this rank holds the whole vocabulary."""

    def valid_columns(self, columns: int) -> int:
        """How many of this shard's ``columns`` are real."""
        return columns if self.valid is None else min(max(self.valid - self.start, 0), columns)


@dataclass(frozen=True)
class TokenInputs:
    """What the objective knows of each row: [T] tensors, fp32 but for the ids."""

    advantage_T: torch.Tensor
    weight_T: torch.Tensor
    old_logprob_T: torch.Tensor | None = None
    ref_logprob_T: torch.Tensor | None = None
    importance_T: torch.Tensor | None = None
    sequence_id_T: torch.Tensor | None = None

    def rows(self, rows: slice) -> TokenInputs:
        """The same of some rows."""
        given = {f.name: x[rows] for f in fields(self) if (x := getattr(self, f.name)) is not None}
        return replace(self, **given)

    def check(self, target_T: torch.Tensor, objective: Objective) -> None:
        """Raise ValueError for a wrong shape or a missing input."""
        for f in fields(self):
            x_T = getattr(self, f.name)
            if x_T is not None and x_T.shape != target_T.shape:
                raise ValueError(f"{f.name} has shape {tuple(x_T.shape)}, target_T {tuple(target_T.shape)}")
            if x_T is not None and x_T.requires_grad:
                raise ValueError(f"{f.name} requires a gradient, which the loss does not give; detach() it")
        if objective.kind == "gspo" and self.sequence_id_T is None:
            raise ValueError("the kind 'gspo' needs sequence_id_T, the sequence of every row")
        if objective.kl_coef != 0 and self.ref_logprob_T is None:
            raise ValueError(f"kl_coef is {objective.kl_coef} but ref_logprob_T is missing")


def check_logits(logits_TV: torch.Tensor, target_T: torch.Tensor) -> torch.Tensor:
    """The logits with columns that lie side by side. Raises ValueError for a wrong shape or dtype."""
    if logits_TV.ndim != 2:
        raise ValueError(f"logits_TV has {logits_TV.ndim} dimensions instead of [tokens, vocabulary]")
    if logits_TV.dtype not in LOGIT_DTYPES:
        raise ValueError(f"logits_TV is {logits_TV.dtype}; bf16, fp16 and fp32 are supported")
    check_target(target_T, logits_TV.shape[0])
    return logits_TV if logits_TV.stride(1) == 1 else logits_TV.contiguous()


def check_target(target_T: torch.Tensor, T: int) -> None:
    """Raises ValueError where the targets are not int64 [T]."""
    if target_T.shape != (T,) or target_T.dtype != torch.int64:
        raise ValueError(f"target_T is {target_T.dtype} {tuple(target_T.shape)} instead of int64 ({T},)")
