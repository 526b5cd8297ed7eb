"""Which groups dynamic sampling replaces (DAPO, arXiv 2503.14476, section 3.2)."""

from igrpo_mcore.types import Group


def has_spread(group: Group) -> bool:
    """Whether some completions are right and some wrong: by the raw accuracy where it is a reward, else by
    the total reward. A length penalty alone makes no spread."""
    accuracies = [score.parts.get("accuracy", score.total) for score in group.scores]
    return max(accuracies) > min(accuracies)
