"""What is minimised: the policy-gradient objective and its options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the options are read where there is no need of torch
    import torch

KINDS = ("clip", "reinforce", "cispo", "gspo")
KL_KINDS = ("k1", "k2", "k3")


@dataclass
class ObjectiveOptions:
    """Per-token objective. With r = π_θ/π_old, A the advantage, w the importance weight, the loss of a
    token is

        -w · surrogate + kl_coef · KL - entropy_coef · H

    where the surrogate is, by ``kind``,

    - ``clip``: min(r A, clip(r, 1 - clip_low, 1 + clip_high) A) (PPO, arXiv 1707.06347; GRPO, iGRPO, DAPO,
      Dr. GRPO);
    - ``reinforce``: A log π_θ, no ratio and no clip (RGRA, arXiv 2603.18756);
    - ``cispo``: sg(clip(r, 1 - clip_low, 1 + clip_high)) A log π_θ (arXiv 2506.13585, which has no
      lower bound: clip_low none);
    - ``gspo``: as clip, with the ratio of the sequence, r = exp(mean_t log r_t) (arXiv 2507.18071).
    """

    kind: str = "clip"
    """clip (GRPO, iGRPO, DAPO, Dr. GRPO), reinforce (RGRA), cispo, gspo."""
    clip_low: float | None = 0.2
    """Ratios are clipped below 1 - clip_low; none sets no lower bound, as CISPO was published."""
    clip_high: float = 0.2
    """Ratios are clipped above 1 + clip_high."""
    dual_clip: float | None = None
    """c > 1: for A < 0 the surrogate is at least c A (dual-clip PPO, arXiv 1912.09729); kinds clip and
    gspo. None for off."""
    kl_coef: float = 0.0
    """beta, weight of the KL to the reference; above 0 it needs ref_logprob_T, at 0 no reference is kept."""
    kl_kind: str = "k3"
    """With δ = log π_ref - log π_θ: k1 = -δ, k2 = δ²/2, k3 = e^δ - δ - 1 (joschu.net/blog/kl-approx)."""
    entropy_coef: float = 0.0
    """Weight of the entropy of the policy's distribution at each token, nats."""

    def check(self) -> None:
        """Refuse a value that is out of range or has no meaning for the kind.

        Raises:
            ValueError: begins with the option's name.
        """
        if self.kind not in KINDS:
            raise ValueError(f"kind={self.kind} must be one of {', '.join(KINDS)}")
        if self.kl_kind not in KL_KINDS:
            raise ValueError(f"kl_kind={self.kl_kind} must be one of {', '.join(KL_KINDS)}")
        if self.clip_low is not None and not 0 <= self.clip_low < 1:
            raise ValueError(f"clip_low={self.clip_low} must lie in [0, 1); leave it out for no lower bound")
        for name in ("clip_high", "kl_coef", "entropy_coef"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 0")
        if self.dual_clip is not None and self.kind not in ("clip", "gspo"):
            raise ValueError(f"dual_clip has no meaning for kind={self.kind}; leave it out")
        if self.dual_clip is not None and not self.dual_clip > 1:
            raise ValueError(
                f"dual_clip={self.dual_clip} must be above 1, or left out for off; for example 3"
            )


@dataclass
class Objective(ObjectiveOptions):
    """``ObjectiveOptions`` at a sampling temperature. Raises ValueError as ``check`` does."""

    temperature: float = 1.0
    """Log-probs are those of softmax(logits / temperature)."""

    def __post_init__(self) -> None:
        self.check()
        if not self.temperature > 0:
            raise ValueError(f"temperature={self.temperature} must be above 0")

    @property
    def lowest_ratio(self) -> float:
        """1 - clip_low; 0, which no ratio is below, without a lower bound."""
        return 0.0 if self.clip_low is None else 1 - self.clip_low


@dataclass(frozen=True)
class PolicyLoss:
    loss: torch.Tensor
    """Scalar Σ_t weight_T · loss of the token, fp32, differentiable. Equal on all tensor-parallel ranks."""
    metrics: dict[str, torch.Tensor]
    """0-d fp32 tensors without gradient, over the ``tokens`` rows whose weight is not 0.

    Means: clip_fraction_low, clip_fraction_high (the share where the clip takes the gradient away; for cispo,
    where it changes the ratio), kl (k3 to the reference, 0 without one), neg_log_ratio (log π_old - log π_θ),
    entropy. Extremes: ratio_min, ratio_max (gspo: of the sequence; +inf and -inf without rows). Count:
    tokens.
    """


# Order of the summary vector that the kernels reduce: sums first, then the two extremes.
SUMMARY = (
    "loss",
    "tokens",
    "clip_fraction_low",
    "clip_fraction_high",
    "kl",
    "neg_log_ratio",
    "entropy",
    "ratio_min",
    "ratio_max",
)
