"""Triton kernels of igrpo_mcore: the fused clipped-ratio + KL loss on vocabulary-parallel logits.

Shape suffixes: T tokens, V vocabulary columns of this rank, H hidden, W ranks of the tensor-parallel group,
C tokens of a chunk, S sequences.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from igrpo_kernels.linear import linear_policy_loss, linear_token_logprobs
    from igrpo_kernels.loss import policy_loss, token_logprobs
    from igrpo_kernels.objective import Objective, ObjectiveOptions, PolicyLoss

__all__ = [
    "Objective",
    "ObjectiveOptions",
    "PolicyLoss",
    "linear_policy_loss",
    "linear_token_logprobs",
    "policy_loss",
    "token_logprobs",
]
_MODULES = {
    "linear_policy_loss": "linear",
    "linear_token_logprobs": "linear",
    "policy_loss": "loss",
    "token_logprobs": "loss",
}


def __getattr__(name: str) -> Any:
    """Imported when asked for: a configuration has the objective's options without torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'objective')}"), name)
