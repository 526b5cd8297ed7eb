"""Group-relative advantages."""

import math
from collections.abc import Sequence

from igrpo_mcore.config.schema import AdvantageStd


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


def zero_std(rewards: Sequence[float]) -> bool:
    """True where all rewards of the group are equal, so that it carries no gradient."""
    return max(rewards) == min(rewards)
