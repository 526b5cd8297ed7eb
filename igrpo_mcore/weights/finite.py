"""Weights that are not finite never reach an engine."""

from collections.abc import Mapping

import torch
from torch import Tensor

from igrpo_mcore.collective import raise_everywhere


def first_not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor that holds NaN or an infinity; reads each once and copies none."""
    names = [name for name, tensor in tensors.items() if tensor.numel()]
    if not names:
        return None
    largest = torch._foreach_norm([tensors[name].detach() for name in names], ord=float("inf"))
    finite = torch.stack([value.float() for value in largest]).isfinite().tolist()
    return next((name for name, fine in zip(names, finite, strict=True) if not fine), None)


def check_finite(tensors: Mapping[str, Tensor]) -> None:
    """Collective. Raises ``UserError`` on every rank where any rank's tensors are not finite."""
    name = first_not_finite(tensors)
    raise_everywhere(
        name
        and f"the policy's {name} holds NaN or infinite values, so no weights are pushed and the run ends "
        "here; lower optimizer.lr, then the same command goes on from the last checkpoint"
    )
