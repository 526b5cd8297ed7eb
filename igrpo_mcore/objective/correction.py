"""Truncated importance weights: what the sampler drew, weighted as if the trainer's policy had drawn it.

w = min(π_old / π_sampler, C) of each completion token, without gradient, on the objective and not on KL and
entropy. ``token``: each token's own ratio (truncated importance sampling, Yao et al. 2025, "Your efficient RL
framework secretly brings you off-policy RL training"). ``sequence``: the product over the sequence, the same
for all of its tokens. π_old is the trainer's policy at the step's start; both at the sampling temperature.

With one update a step π_old is the policy that the update starts from, and its own forward pass gives it: the
weights are made there (``ImportanceInUpdate``). With several, π_old has a pass of its own before the first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from igrpo_mcore.collective import gather_objects
from igrpo_mcore.config.schema import Correction, ObjectiveConfig
from igrpo_mcore.types import TrainingSequence


@dataclass(frozen=True)
class ImportanceStats:
    """What is logged of the weights of all ranks.

    ``effective_share`` is the effective sample size (Σw)² / (n Σw²) as a share of the tokens; ``largest`` is
    before truncation.
    """

    mean: float
    largest: float
    capped_share: float
    effective_share: float

    @classmethod
    def of(cls, sums: Sequence[float]) -> "ImportanceStats":
        """From ``weight_sums`` of all tokens."""
        tokens, total, squares, capped, largest = sums
        tokens = max(1.0, tokens)
        share = total**2 / (tokens * squares) if squares else 0.0
        return cls(mean=total / tokens, largest=largest, capped_share=capped / tokens, effective_share=share)

    def metrics(self) -> dict[str, float | None]:
        """By the names of docs/metrics.md."""
        return {
            "correction/weight_mean": self.mean,
            "correction/weight_max": self.largest,
            "correction/capped_share": self.capped_share,
            "correction/effective_share": self.effective_share,
        }


@dataclass(frozen=True)
class ImportanceWeights:
    """The weights of a step's mini-batches on this rank, and what is logged of them over all ranks."""

    weights: list[dict[int, Tensor]]
    stats: ImportanceStats

    @classmethod
    def of(
        cls,
        batches: Sequence[Sequence[TrainingSequence]],
        old_logprobs: Sequence[Mapping[int, Tensor]],
        config: ObjectiveConfig,
    ) -> "ImportanceWeights":
        """``old_logprobs``: log π_old by index in the batch, fp32 [tokens]; this rank's share. Collective."""
        found: list[dict[int, Tensor]] = []
        sums = [torch.zeros(5, dtype=torch.float64)]
        for batch, old in zip(batches, old_logprobs, strict=True):
            found.append({})
            for index, logprob_T in old.items():
                ratio_T = importance_ratios(logprob_T, [batch[index]], config.correction)
                found[-1][index] = ratio_T.clamp(max=config.correction_cap)
                sums.append(weight_sums(ratio_T, config.correction_cap).cpu())
        parts = gather_objects(added(sums))
        return cls(found, ImportanceStats.of(added(parts).tolist()))


class ImportanceInUpdate:
    """The weights of an update that is the only one of its step, made of its own log-probs."""

    def __init__(self, config: ObjectiveConfig) -> None:
        self._config = config
        self.sums: list[Tensor] = []
        """``weight_sums`` of each micro-batch of this rank."""

    def weights(self, logprob_R: Tensor, sequences: Sequence[TrainingSequence]) -> Tensor:
        """fp32 [R]; as ``importance_ratios``, truncated. ``logprob_R`` is of the policy before the update."""
        ratio_R = importance_ratios(logprob_R, sequences, self._config.correction)
        self.sums.append(weight_sums(ratio_R, self._config.correction_cap))
        return ratio_R.clamp(max=self._config.correction_cap)


def importance_ratios(
    logprob_R: Tensor, sequences: Sequence[TrainingSequence], correction: Correction
) -> Tensor:
    """π_old / π_sampler before truncation, fp32 [R]: ``sequences``' completion tokens end to end, whose
    log π_old are ``logprob_R``."""
    sampled = [logprob for sequence in sequences for logprob in sequence.logprobs]
    log_ratio_R = logprob_R.double() - torch.tensor(sampled, dtype=torch.float64, device=logprob_R.device)
    if correction == Correction.sequence and sequences:
        parts = log_ratio_R.split([len(sequence.completion_ids) for sequence in sequences])
        log_ratio_R = torch.cat([part.sum().expand_as(part) for part in parts])
    return log_ratio_R.exp().float()


def weight_sums(ratio_R: Tensor, cap: float) -> Tensor:
    """fp64 [5]: tokens, Σw, Σw², tokens whose ratio is above ``cap``, largest ratio (0 without tokens)."""
    ratio = ratio_R.double()
    weight = ratio.clamp(max=cap)
    largest = torch.cat([ratio.new_zeros(1), ratio]).amax()
    tokens = torch.ones_like(ratio).sum()
    return torch.stack([tokens, weight.sum(), weight.square().sum(), (ratio > cap).double().sum(), largest])


def added(sums: Sequence[Tensor]) -> Tensor:
    """``weight_sums`` of several parts as of one."""
    parts = torch.stack(list(sums))
    return torch.cat([parts[:, :4].sum(0), parts[:, 4:].amax(0)])
