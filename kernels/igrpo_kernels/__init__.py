"""Triton kernels of igrpo_mcore: the fused clipped-ratio + KL loss on vocabulary-parallel logits.

Shape suffixes: T tokens, V vocabulary columns of this rank, H hidden, W ranks of the tensor-parallel group,
C tokens of a chunk, S sequences.
"""

from igrpo_kernels.linear import linear_policy_loss
from igrpo_kernels.loss import policy_loss, token_logprobs
from igrpo_kernels.objective import Objective, PolicyLoss

__all__ = ["Objective", "PolicyLoss", "linear_policy_loss", "policy_loss", "token_logprobs"]
