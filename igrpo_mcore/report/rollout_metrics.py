"""The metrics of a step that its rollouts alone determine."""

import statistics
from collections.abc import Sequence

from igrpo_mcore.report.draft_metrics import draft_metrics
from igrpo_mcore.report.hacking import hacking_metrics
from igrpo_mcore.rewards.options import RewardOptions
from igrpo_mcore.types import Group, PromptRollout


def rollout_metrics(
    rollouts: Sequence[PromptRollout], options: RewardOptions | None = None
) -> dict[str, float | None]:
    """Metrics over all prompts of a step; give the rollouts of every rank.
    ``options`` say where completions state their answers (none: the defaults).

    For each stage, ``drafts/`` and ``refinements/``:
    ``reward_mean`` and ``reward_std`` (population) over all its completions, the unweighted mean of
    each reward by name (``accuracy``, ``format``, …), ``truncated_share`` of the completions that
    the token budget ended, ``length_mean`` in tokens. Also
    ``groups/zero_std_share``: share of the groups that the update is taken on whose rewards are all
    equal (no gradient), and ``groups/with_gradient``: number of the others; ``hacking/…`` of the group that
    the update is taken on and ``hacking/drafts_…`` of the drafts, see ``igrpo_mcore.report.hacking``;
    ``drafts/overflowed_share``: share of the prompts whose draft did not fit;
    ``rewards/failures``: reward calls that raised or ran out of time, both stages; all of ``draft_metrics``.

    Plain GRPO (``drafts`` is None) samples its one group under q, as drafts are: ``drafts/…`` is
    then computed from that group too and stays the single-shot figure; ``drafts/overflowed_share`` is None.
    A stage without completions gives None.
    """
    refinements = [rollout.refinements for rollout in rollouts]
    drafts = [rollout.drafts or rollout.refinements for rollout in rollouts]
    flat = [len(set(group.rewards)) <= 1 for group in refinements]
    two_stage = [rollout for rollout in rollouts if rollout.drafts is not None]
    sampled = refinements + [rollout.drafts for rollout in two_stage if rollout.drafts is not None]
    return {
        **_stage("drafts", drafts),
        "drafts/overflowed_share": _mean([float(rollout.draft_overflowed) for rollout in two_stage]),
        **_stage("refinements", refinements),
        **draft_metrics(rollouts, options or RewardOptions()),
        "groups/zero_std_share": _mean(flat),
        "groups/with_gradient": float(len(flat) - sum(flat)),
        **{f"hacking/drafts_{name}": value for name, value in hacking_metrics(drafts).items()},
        **{f"hacking/{name}": value for name, value in hacking_metrics(refinements).items()},
        "rewards/failures": float(sum(len(s.failures) for group in sampled for s in group.scores)),
    }


def _stage(stage: str, groups: Sequence[Group]) -> dict[str, float | None]:
    scores = [score for group in groups for score in group.scores]
    completions = [completion for group in groups for completion in group.completions]
    rewards = [score.total for score in scores]
    names = dict.fromkeys(name for score in scores for name in score.parts)
    return {
        f"{stage}/reward_mean": _mean(rewards),
        f"{stage}/reward_std": statistics.pstdev(rewards) if rewards else None,
        **{f"{stage}/{name}": _mean([score.parts[name] for score in scores]) for name in names},
        f"{stage}/truncated_share": _mean([float(completion.truncated) for completion in completions]),
        f"{stage}/length_mean": _mean([float(len(completion.token_ids)) for completion in completions]),
    }


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None
