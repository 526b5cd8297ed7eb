"""Truncated importance weights: what the sampler drew, weighted as if the trainer's policy had drawn it.

w = min(π_old / π_sampler, C) of each completion token, without gradient, on the objective and not on KL and
entropy. ``token``: each token's own ratio (truncated importance sampling, Yao et al. 2025, "Your efficient RL
framework secretly brings you off-policy RL training"). ``sequence``: the product over the sequence, the same
for all of its tokens. π_old is the trainer's policy at the step's start; both at the sampling temperature.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from igrpo_mcore.collective import gather_objects
from igrpo_mcore.config.schema import Correction, ObjectiveConfig
from igrpo_mcore.types import TrainingSequence


@dataclass(frozen=True)
class ImportanceWeights:
    """The weights of a step's mini-batches on this rank, and what is logged of them over all ranks.

    ``effective_share`` is the effective sample size (Σw)² / (n Σw²) as a share of the tokens; ``largest`` is
    before truncation.
    """

    weights: list[dict[int, Tensor]]
    mean: float
    largest: float
    capped_share: float
    effective_share: float

    @classmethod
    def of(
        cls,
        batches: Sequence[Sequence[TrainingSequence]],
        old_logprobs: Sequence[Mapping[int, Tensor]],
        config: ObjectiveConfig,
    ) -> "ImportanceWeights":
        """Collective."""
        ratios = [_ratios(batch, old, config) for batch, old in zip(batches, old_logprobs, strict=True)]
        flat = [ratio.double().cpu() for found in ratios for _, ratio in found]
        every = torch.cat([torch.zeros(0, dtype=torch.float64), *flat])
        weights = every.clamp(max=config.correction_cap)
        capped = int((every > config.correction_cap).sum())
        largest = float(every.max()) if every.numel() else 0.0
        parts = gather_objects(
            (every.numel(), float(weights.sum()), float(weights.square().sum()), capped, largest)
        )
        tokens = max(1, sum(part[0] for part in parts))
        total, squares = sum(part[1] for part in parts), sum(part[2] for part in parts)
        return cls(
            [{i: ratio.clamp(max=config.correction_cap) for i, ratio in found} for found in ratios],
            mean=total / tokens,
            largest=max(part[4] for part in parts),
            capped_share=sum(part[3] for part in parts) / tokens,
            effective_share=total**2 / (tokens * squares) if squares else 0.0,
        )

    def metrics(self) -> dict[str, float | None]:
        """By the names of docs/metrics.md."""
        return {
            "correction/weight_mean": self.mean,
            "correction/weight_max": self.largest,
            "correction/capped_share": self.capped_share,
            "correction/effective_share": self.effective_share,
        }


def _ratios(
    sequences: Sequence[TrainingSequence], old_logprobs: Mapping[int, Tensor], config: ObjectiveConfig
) -> list[tuple[int, Tensor]]:
    """π_old / π_sampler of this rank's share, fp32 [tokens] by index, before truncation."""
    found = []
    for index, old in old_logprobs.items():
        sampled = torch.tensor(sequences[index].logprobs, dtype=torch.float64, device=old.device)
        log_ratio = old.double() - sampled
        if config.correction == Correction.sequence:
            log_ratio = log_ratio.sum().expand_as(log_ratio)
        found.append((index, log_ratio.exp().float()))
    return found
