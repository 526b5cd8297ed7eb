"""Group-relative advantages."""

import math
from collections.abc import Sequence

from igrpo_mcore.config.schema import AdvantageStd


def group_advantages(rewards: Sequence[float], std: AdvantageStd = AdvantageStd.population) -> list[float]:
    """Â_j = (R_j - mean) / std over one group's rewards; all 0 where the group's std is 0.

    Source: iGRPO (arXiv 2602.09000), eq. of the stage-2 advantage; the paper leaves the kind of std
    open (ours: population). ``AdvantageStd.none`` only centres (Dr. GRPO). ``sample`` of a group of
    one is 0.
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


def zero_std(rewards: Sequence[float]) -> bool:
    """True where all rewards of the group are equal, so that it carries no gradient."""
    return max(rewards) == min(rewards)
