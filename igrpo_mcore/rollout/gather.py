"""Bring the engines' parts of a step together."""

from collections.abc import Sequence

from igrpo_mcore.rollout.stages import PhaseStats, RolloutStats
from igrpo_mcore.types import PromptRollout


def merge_parts(
    parts: Sequence[tuple[list[int], list[PromptRollout], RolloutStats]],
) -> tuple[list[PromptRollout], RolloutStats]:
    """All engines' rollouts in the order of the step's prompts, and the phases' totals.

    Each part is (positions, rollouts, stats) of one engine. Tokens add up; seconds are the slowest
    engine's, since all wait for it.
    """
    placed = [pair for positions, rollouts, _ in parts for pair in zip(positions, rollouts, strict=True)]
    ordered = [rollout for _, rollout in sorted(placed, key=lambda pair: pair[0])]
    stats = [part_stats for _, _, part_stats in parts]

    def total(name: str) -> PhaseStats:
        phases: list[PhaseStats] = [getattr(s, name) for s in stats]
        return PhaseStats(sum(p.tokens for p in phases), max(p.seconds for p in phases))

    return ordered, RolloutStats(
        refinements=total("refinements"),
        refinement_rewards=total("refinement_rewards"),
        drafts=total("drafts"),
        draft_rewards=total("draft_rewards"),
    )


def rate(phase: PhaseStats) -> float | None:
    """Tokens a second of a phase, none where it did not run."""
    return phase.tokens / phase.seconds if phase.tokens else None
