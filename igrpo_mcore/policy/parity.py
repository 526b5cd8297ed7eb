"""The parity gate: the trainer's log-probs of sampled tokens against the sampler's own."""

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import Tensor

from igrpo_mcore.collective import gather_objects
from igrpo_mcore.config.parity_limits import QUANTILE, ParityLimits
from igrpo_mcore.errors import UserError
from igrpo_mcore.types import TrainingSequence


@dataclass(frozen=True)
class Parity:
    """Absolute differences over all sampled tokens of all ranks, nats; a NaN counts as infinite."""

    max_abs_diff: float
    mean_abs_diff: float
    quantile_abs_diff: float
    """At ``QUANTILE``: the smallest difference that so many tokens do not exceed."""
    token: int
    """Position of the largest difference in its completion, from 0."""
    first_token_diff: float
    """Largest difference at the first token of a completion."""

    def within(self, limits: ParityLimits) -> bool:
        """Whether mean and quantile are; nothing is measured of an empty batch, and that is within."""
        return self.mean_abs_diff <= limits.mean and self.quantile_abs_diff <= limits.quantile


def sample(
    batches: Sequence[list[TrainingSequence]], count: int | None, seed: int, step: int
) -> list[list[TrainingSequence]]:
    """``count`` sequences of each batch in their order, the same on every rank; none, or as many, are all.

    One is drawn of each of ``count`` nearly equal parts, so that every engine's prompts are among them. What
    was sampled under another prompt is not compared and not drawn.
    """
    rng = random.Random(f"{seed} {step}")

    def of(batch: list[TrainingSequence]) -> list[TrainingSequence]:
        batch = [sequence for sequence in batch if sequence.sampled_here]
        if count is None or count >= len(batch):
            return batch
        ends = [part * len(batch) // count for part in range(count + 1)]
        return [batch[rng.randrange(a, b)] for a, b in itertools.pairwise(ends)]

    return [of(batch) for batch in batches]


def compare(batches: Sequence[Sequence[TrainingSequence]], logprobs: Sequence[dict[int, Tensor]]) -> Parity:
    """Compare the trainer's log-probs (this rank's share of each batch) with the sampler's; a collective.

    A sequence that was sampled under another prompt has nothing to agree with and is left out.
    """
    diffs, first, worst, token = [torch.zeros(0, dtype=torch.float64)], 0.0, 0.0, 0
    for batch, found in zip(batches, logprobs, strict=True):
        for index, ours in found.items():
            if not batch[index].sampled_here:
                continue
            sampled = torch.tensor(batch[index].logprobs, dtype=torch.float64)
            diff = (ours.double().cpu() - sampled).abs()
            diff = torch.where(diff.isnan(), torch.inf, diff)
            diffs.append(diff)
            first = max(first, float(diff[0]))
            if float(diff.max()) > worst:
                worst, token = float(diff.max()), int(diff.argmax())
    mine = torch.cat(diffs)
    gathered = gather_objects((worst, token, first, float(mine.sum()), mine.numel()))
    tokens = sum(part[4] for part in gathered)
    # the quantile is among the largest that all ranks hold together, so each sends as many of its own
    above = tokens - math.ceil(QUANTILE * tokens) + 1
    largest = mine.topk(min(above, mine.numel())).values
    together = torch.cat(gather_objects(largest)).sort(descending=True).values
    worst_rank = max(gathered)
    return Parity(
        max_abs_diff=worst_rank[0],
        mean_abs_diff=sum(part[3] for part in gathered) / max(1, tokens),
        quantile_abs_diff=float(together[above - 1]) if tokens else 0.0,
        token=worst_rank[1],
        first_token_diff=max(part[2] for part in gathered),
    )


def refuse(parity: Parity, limits: ParityLimits, suspects: Sequence[str] = ()) -> NoReturn:
    """Refuse to train on samples that the trainer does not agree with.

    Raises:
        UserError: always; names the tensors found to differ (``suspects``), or else what the pattern
            of the differences points at.
    """
    if suspects:
        more = f" and {len(suspects) - 8} more" if len(suspects) > 8 else ""
        hint = f"these weights differ between trainer and sampler: {', '.join(suspects[:8])}{more}"
    elif parity.first_token_diff <= limits.quantile:
        hint = (
            "the first token of every completion agrees and later ones do not, which points at state carried "
            "between tokens (KV cache, Mamba convolution or scan state, rotary positions), not at weights"
        )
    else:
        hint = (
            "already the first tokens differ and every weight agrees, which points at the temperature, or a "
            "layer computed differently"
        )
    raise UserError(
        f"the sampler's log-probs differ from the trainer's by {parity.mean_abs_diff:.3g} nats in the mean "
        f"(limit {limits.mean:g}), by {parity.quantile_abs_diff:.3g} at the {100 * QUANTILE:g} % quantile "
        f"(limit {limits.quantile:g}) and by up to {parity.max_abs_diff:.3g} (at completion token "
        f"{parity.token}); {hint}; mend that, or raise parity.mean_threshold and parity.quantile_threshold "
        "knowingly"
    )
