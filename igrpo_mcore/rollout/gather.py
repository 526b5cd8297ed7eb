"""Bring the engines' parts of a step together."""

from collections.abc import Sequence

from igrpo_mcore.rollout.stages import StageStats
from igrpo_mcore.types import PromptRollout


def merge_parts(
    parts: Sequence[tuple[list[int], list[PromptRollout], dict[str, StageStats]]],
) -> tuple[list[PromptRollout], dict[str, StageStats]]:
    """All engines' rollouts in the order of the step's prompts, and each stage's totals.

    Each part is (positions, rollouts, stats by stage) of one engine. Tokens add up; seconds are the
    slowest engine's, since all wait for it.
    """
    placed = [pair for positions, rollouts, _ in parts for pair in zip(positions, rollouts, strict=True)]
    ordered = [rollout for _, rollout in sorted(placed, key=lambda pair: pair[0])]
    by_stage = {name: [stats[name] for _, _, stats in parts] for name in parts[0][2]}
    return ordered, {
        name: StageStats(
            sum(s.tokens for s in stats),
            max(s.seconds for s in stats),
            max(s.reward_seconds for s in stats),
        )
        for name, stats in by_stage.items()
    }
