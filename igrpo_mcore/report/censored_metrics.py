"""What ``rollout.draft_early_exit`` leaves unknown of the drafts, and an estimate without that bias."""

from collections.abc import Sequence
from statistics import fmean

from igrpo_mcore.report.draft_metrics import is_right
from igrpo_mcore.types import PromptRollout


def censored_metrics(rollouts: Sequence[PromptRollout]) -> dict[str, float | None]:
    """``drafts/censored_share`` of the drafts were ended before they had a score, so that ``drafts/…`` is
    over those that ended first: too short, and too good where good ones end early.
    ``drafts/whole_reward_mean`` and ``drafts/whole_accuracy`` are over the prompts that
    ``rollout.whole_prompts`` left whole, which the seed alone drew: unbiased (None where there are none).
    Nothing where no draft could be ended."""
    first = [rollout.stages[0] for rollout in rollouts]
    if all(stage.censored is None for stage in first):
        return {}
    ended = sum(stage.censored or 0 for stage in first)
    kept = sum(len(stage.group.completions) for stage in first)
    whole = [score for stage in first if stage.censored is None for score in stage.group.scores]
    return {
        "drafts/censored_share": ended / (ended + kept),
        "drafts/whole_reward_mean": fmean(score.total for score in whole) if whole else None,
        "drafts/whole_accuracy": fmean(is_right(score) for score in whole) if whole else None,
    }
