"""Advantages: what the log-probs of a completion are pushed by, from the rewards of its group."""

import math
from collections.abc import Sequence

from igrpo_mcore.config.schema import Advantage, AdvantageStd, ObjectiveConfig


def advantages_of(rewards: Sequence[float], config: ObjectiveConfig) -> list[float]:
    """A_j of one group's n rewards R, by ``objective.advantage``.

    ``group``: Â_j, see ``group_advantages`` (GRPO; iGRPO; RGRA). ``positive``: max(Â_j, 0), the GRPO-pos of
    RGRA's ablations (arXiv 2603.18756). ``raw``: R_j, REINFORCE without a baseline (the same paper's).
    ``raft``: 1 for the best, the first on a tie, and 0 for the others (RAFT, arXiv 2304.06767, keeping one
    of n); it is the best even of equal rewards, so a group of wrong completions trains its first.
    """
    match config.advantage:
        case Advantage.raw:
            return list(rewards)
        case Advantage.raft:
            best = best_of(rewards)
            return [float(index == best) for index in range(len(rewards))]
        case Advantage.positive:
            return [max(advantage, 0.0) for advantage in group_advantages(rewards, config.advantage_std)]
    return group_advantages(rewards, config.advantage_std)


def group_advantages(rewards: Sequence[float], std: AdvantageStd = AdvantageStd.sample) -> list[float]:
    """Â_j = (R_j - mean) / std over one group's n rewards; all 0 where they are equal, as in a group of one.

    ``sample`` divides the squares by n - 1: the std of iGRPO (arXiv 2602.09000, section 3.1). ``population``
    divides them by n, which makes Â larger by sqrt(n / (n - 1)), 1.155 at n = 4. ``none`` only centres
    (Dr. GRPO, arXiv 2503.20783). Nothing is added to the std; TRL, the trainer of the paper's time,
    adds 1e-4, which at a std of 0.5 makes its Â smaller by 0.02 %.
    """
    count = len(rewards)
    mean = math.fsum(rewards) / count
    centred = [reward - mean for reward in rewards]
    if zero_std(rewards):
        return [0.0] * count
    if std == AdvantageStd.none:
        return centred
    degrees = count if std == AdvantageStd.population else count - 1
    deviation = math.sqrt(math.fsum(c * c for c in centred) / degrees)
    return [c / deviation for c in centred]


def best_of(rewards: Sequence[float]) -> int:
    """Index of the largest reward, the first on a tie."""
    return max(range(len(rewards)), key=rewards.__getitem__)


def zero_std(rewards: Sequence[float]) -> bool:
    """True where all rewards of the group are equal."""
    return max(rewards) == min(rewards)


def has_gradient(rewards: Sequence[float], config: ObjectiveConfig) -> bool:
    """Whether any completion of the group has an advantage: not where rewards are equal (``group`` and
    ``positive``), or all 0 (``raw``); always with ``raft``."""
    return any(advantages_of(rewards, config))
