"""Which draft conditions the next stage (paper, section 3: the best by reward)."""

import random
from collections.abc import Sequence

from igrpo_mcore.config.schema import Selection
from igrpo_mcore.types import Group, Score

FORMAT = "format"


def select_draft(
    selection: Selection, rewards: Sequence[float], seed: int, well_formed: Sequence[bool] | None = None
) -> int:
    """Index of the chosen draft.

    best: the largest reward, first index on a tie (the paper leaves ties open); worst: the smallest,
    first index on a tie; random: uniform, by ``seed`` alone; worst_formatted: the worst of the
    ``well_formed``, of all where none is; mismatched: the best, which then goes to another problem
    (``source_of``).
    ``none`` has no draft to choose and raises ``ValueError``.
    """
    indices = range(len(rewards))
    match selection:
        case Selection.best | Selection.mismatched:
            return max(indices, key=rewards.__getitem__)
        case Selection.worst:
            return min(indices, key=rewards.__getitem__)
        case Selection.worst_formatted:
            formed = [index for index in indices if well_formed is not None and well_formed[index]]
            return min(formed or indices, key=rewards.__getitem__)
        case Selection.random:
            return random.Random(seed).randrange(len(rewards))
    raise ValueError(f"selection {selection} chooses no draft")


def choose(selection: Selection, group: Group, seed: int) -> int:
    """``select_draft`` of a scored group; well-formed is a draft whose format reward is above 0."""
    return select_draft(selection, group.rewards, seed, [is_well_formed(score) for score in group.scores])


def is_well_formed(score: Score) -> bool:
    """By the reward ``format``; a draft that it did not see is not."""
    return score.parts.get(FORMAT, 0.0) > 0


def source_of(selection: Selection, position: int, count: int) -> int:
    """The position in the step, of ``count`` problems, whose chosen draft is shown to ``position``'s problem.

    Its own; with mismatched the other one of its pair (0, 1), (2, 3), …; of an odd count the last three
    go round. The rule knows no engines, so what is sampled does not depend on their number:
    ``dealt`` gives a pair to one engine.
    """
    if selection != Selection.mismatched:
        return position
    members = _together(position, count)
    return members[(members.index(position) + 1) % len(members)]


def dealt(selection: Selection, count: int, engines: int, engine: int) -> list[int]:
    """The positions of a step's ``count`` problems that ``engine`` of ``engines`` samples, in order: every
    so-manyth one; with mismatched every so-manyth pair."""
    if selection != Selection.mismatched:
        return list(range(engine, count, engines))
    firsts = [position for position in range(count) if _together(position, count)[0] == position]
    return [position for first in firsts[engine::engines] for position in _together(first, count)]


def _together(position: int, count: int) -> list[int]:
    """The positions that exchange their drafts, ``position`` among them."""
    first = position - position % 2
    if count % 2 and first >= count - 3:
        return list(range(max(0, count - 3), count))
    return [first, first + 1]
