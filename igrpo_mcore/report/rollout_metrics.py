"""The metrics of a step that its rollouts alone determine."""

import statistics
from collections.abc import Sequence

from igrpo_mcore.config.schema import ObjectiveConfig
from igrpo_mcore.objective.advantages import has_gradient
from igrpo_mcore.report.censored_metrics import censored_metrics
from igrpo_mcore.report.draft_metrics import draft_metrics, stage_names
from igrpo_mcore.report.hacking import hacking_metrics
from igrpo_mcore.rewards.options import RewardOptions
from igrpo_mcore.types import Group, PromptRollout, Score


def rollout_metrics(
    rollouts: Sequence[PromptRollout],
    options: RewardOptions | None = None,
    objective: ObjectiveConfig | None = None,
) -> dict[str, float | None]:
    """Metrics over all prompts of a step; give the rollouts of every rank.
    ``options`` say where completions state their answers, ``objective`` what an advantage is (none: the
    defaults).

    For each stage by its name:
    ``reward_mean`` and ``reward_std`` (population) over all its completions, the unweighted mean of
    each reward by name (``accuracy``, ``format``, …), ``truncated_share`` of the completions that
    the token budget ended, ``length_mean`` in tokens; of a stage that conditions the next one also
    ``overflowed_share``, the share of prompts whose chosen completion did not fit. Also
    ``groups/zero_std_share``: share of the groups that the update is taken on whose rewards are all
    equal, and ``groups/with_gradient``: number of those in which a completion has an advantage (with
    ``objective.advantage=group`` the others); ``hacking/…`` of the group that
    the update is taken on and ``hacking/drafts_…`` of the first stage, see ``igrpo_mcore.report.hacking``;
    ``rewards/failures``: reward calls that raised or ran out of time, all stages; the
    sum of each figure of ``Score.use`` (``judge/calls``, …); all of ``draft_metrics``.

    So that runs can be compared, ``drafts/…`` is the single-shot figure and ``refinements/…`` that of the
    group which the update is taken on for every method: under plain GRPO both are of its one stage.
    A stage without completions gives None.
    """
    names = stage_names(rollouts)
    stages = {name: [rollout.stages[i] for rollout in rollouts] for i, name in enumerate(names[:-1])}
    single_shot = [rollout.single_shot for rollout in rollouts]
    trained = [rollout.trained for rollout in rollouts]
    plain = any(len(rollout.stages) == 1 for rollout in rollouts)
    groups = {name: single_shot if plain else [s.group for s in found] for name, found in stages.items()}
    groups[names[-1]] = trained
    flat = [len(set(group.rewards)) <= 1 for group in trained]
    sampled = [stage.group for rollout in rollouts for stage in rollout.stages]
    return {
        **{key: value for name, of_stage in groups.items() for key, value in _stage(name, of_stage).items()},
        **{
            f"{name}/overflowed_share": None if plain else _mean([float(s.overflowed) for s in found])
            for name, found in stages.items()
        },
        **draft_metrics(rollouts, options or RewardOptions()),
        **censored_metrics(rollouts),
        "groups/zero_std_share": _mean(flat),
        "groups/with_gradient": float(
            sum(has_gradient(group.rewards, objective or ObjectiveConfig()) for group in trained)
        ),
        **{f"hacking/drafts_{name}": value for name, value in hacking_metrics(single_shot).items()},
        **{f"hacking/{name}": value for name, value in hacking_metrics(trained).items()},
        "rewards/failures": float(sum(len(s.failures) for group in sampled for s in group.scores)),
        **_use([score for group in sampled for score in group.scores]),
    }


def _use(scores: Sequence[Score]) -> dict[str, float]:
    """What scoring took, by metric: of a judge its calls, seconds, tokens and cost."""
    names = dict.fromkeys(name for score in scores for name in score.use)
    return {name: sum(score.use.get(name, 0.0) for score in scores) for name in names}


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
