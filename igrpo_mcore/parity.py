"""The parity gate: the trainer's log-probs of sampled tokens against the sampler's own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import Tensor

from igrpo_mcore.collective import gather_objects
from igrpo_mcore.config.schema import Config
from igrpo_mcore.errors import UserError
from igrpo_mcore.types import TrainingSequence

DEFAULT_THRESHOLD = {"float32": 1e-4, "bfloat16": 0.5}
"""Nats. In bfloat16 a logit near 20 is rounded by up to 0.06 on each side and single tokens reach a
few tenths; 0.5 separates that from a wrong weight, which shows as several nats."""


@dataclass(frozen=True)
class Parity:
    """Over all ranks: the largest difference, the mean, and where the largest is."""

    max_abs_diff: float
    mean_abs_diff: float
    token: int
    """Position of the largest difference in its completion, from 0."""
    first_token_diff: float
    """Largest difference at the first token of a completion."""


def threshold_of(config: Config) -> float:
    """``parity.threshold``, or the default of the model's dtype."""
    if config.parity.threshold is not None:
        return config.parity.threshold
    return DEFAULT_THRESHOLD[str(config.model.dtype)]


def compare(batches: Sequence[Sequence[TrainingSequence]], logprobs: Sequence[dict[int, Tensor]]) -> Parity:
    """Compare the trainer's log-probs (this rank's share of each batch) with the sampler's; a collective."""
    worst, total, tokens, first, token = 0.0, 0.0, 0, 0.0, 0
    pairs = [
        (batch[index], ours)
        for batch, found in zip(batches, logprobs, strict=True)
        for index, ours in found.items()
    ]
    for sequence, ours in pairs:
        sampled = torch.tensor(sequence.logprobs, dtype=torch.float64)
        diff = (ours.double().cpu() - sampled).abs()
        diff = torch.where(diff.isnan(), torch.inf, diff)
        total += float(diff.sum())
        tokens += diff.numel()
        first = max(first, float(diff[0]))
        if float(diff.max()) > worst:
            worst, token = float(diff.max()), int(diff.argmax())
    gathered = gather_objects((worst, total, tokens, first, token))
    worst_rank = max(gathered, key=lambda entry: entry[0])
    return Parity(
        max_abs_diff=worst_rank[0],
        mean_abs_diff=sum(g[1] for g in gathered) / max(1, sum(g[2] for g in gathered)),
        token=worst_rank[4],
        first_token_diff=max(g[3] for g in gathered),
    )


def refuse(parity: Parity, threshold: float, suspects: Sequence[str] = ()) -> NoReturn:
    """Refuse to train on samples that the trainer does not agree with.

    Raises:
        UserError: always; names the tensors found to differ (``suspects``), or else what the pattern
            of the differences points at.
    """
    if suspects:
        more = f" and {len(suspects) - 8} more" if len(suspects) > 8 else ""
        hint = f"these weights differ between trainer and sampler: {', '.join(suspects[:8])}{more}"
    elif parity.first_token_diff <= threshold:
        hint = (
            "the first token of every completion agrees and later ones do not, which points at state carried "
            "between tokens (KV cache, Mamba convolution or scan state, rotary positions), not at weights"
        )
    else:
        hint = (
            "already the first tokens differ, which points at weights (a stale or wrongly permuted tensor), "
            "the temperature, or a layer computed differently"
        )
    raise UserError(
        f"the sampler's log-probs differ from the trainer's by up to {parity.max_abs_diff:.3g} nats (mean "
        f"{parity.mean_abs_diff:.3g}, worst at completion token {parity.token}), above the threshold of "
        f"{threshold:g}; {hint}; mend that, or raise parity.threshold knowingly"
    )
