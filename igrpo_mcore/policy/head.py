"""From what the last stage gives to log-probs and the loss: logits, or hidden states and the LM head."""

from typing import Any

import torch
from igrpo_kernels import (
    Objective,
    PolicyLoss,
    linear_policy_loss,
    linear_token_logprobs,
    policy_loss,
    token_logprobs,
)
from torch import Tensor

from igrpo_mcore.policy.model import PolicyModel


class PolicyHead:
    """The LM head of this rank's last chunk with the loss behind it.

    Without ``model.fused_head`` the model makes the logits [R, V / tp] and they are held whole; with it the
    model gives the hidden states [R, H] of the same rows, and the kernels make logits of a chunk of rows at
    a time (``igrpo_kernels.linear``). Log-probs, loss and gradients are the same up to rounding.
    """

    def __init__(self, chunk: PolicyModel, vocab_size: int, temperature: float, tp_group) -> None:
        """``vocab_size`` is without padding; log-probs are those of ``temperature``."""
        rank, size = tp_group.rank(), tp_group.size()
        self._chunk, self._temperature = chunk, temperature
        self.vocabulary: dict[str, Any] = {
            "vocab_start": rank * (chunk.vocab_size // size),
            "valid_vocab": vocab_size,
            "tp_group": tp_group if size > 1 else None,
        }
        """What the kernels need to know of this rank's columns."""

    @torch.no_grad()
    def logprobs(self, given: Tensor, target_R: Tensor) -> Tensor:
        """Log-probs of the targets without gradient, fp32 [R], nats."""
        options = self.vocabulary | {"temperature": self._temperature}
        if self._chunk.fused_head:
            logprob_R, _ = linear_token_logprobs(given, self._chunk.head_weight, target_R, **options)
        else:
            logprob_R, _ = token_logprobs(given.detach(), target_R, **options)
        return logprob_R.float()

    def loss(
        self, given: Tensor, target_R: Tensor, objective: Objective, **inputs: Tensor | None
    ) -> PolicyLoss:
        """``igrpo_kernels.policy_loss`` of ``inputs``, its [T] tensors."""
        options: dict[str, Any] = {"objective": objective, **inputs, **self.vocabulary}
        if self._chunk.fused_head:
            return linear_policy_loss(given, self._chunk.head_weight, target_R, **options)
        return policy_loss(given, target_R, **options)
