"""Which draft conditions the next stage (paper, section 3: the best by reward)."""

import random
from collections.abc import Sequence

from igrpo_mcore.config.schema import Selection


def select_draft(selection: Selection, rewards: Sequence[float], seed: int) -> int:
    """Index of the chosen draft.

    best: the largest reward, first index on a tie (the paper leaves ties open); worst: the smallest,
    first index on a tie; random: uniform, by ``seed`` alone. ``none`` has no draft to choose and
    raises ``ValueError``.
    """
    match selection:
        case Selection.best:
            return max(range(len(rewards)), key=rewards.__getitem__)
        case Selection.worst:
            return min(range(len(rewards)), key=rewards.__getitem__)
        case Selection.random:
            return random.Random(seed).randrange(len(rewards))
    raise ValueError(f"selection {selection} chooses no draft")
