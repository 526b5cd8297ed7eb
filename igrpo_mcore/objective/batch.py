"""From a step's rollouts to the training sequences of its mini-batches."""

from collections.abc import Sequence

from igrpo_mcore.config.schema import ObjectiveConfig, RolloutConfig
from igrpo_mcore.objective.advantages import group_advantages
from igrpo_mcore.objective.aggregation import token_weights
from igrpo_mcore.types import Group, PromptRollout, TrainingSequence


def group_sequences(
    groups: Sequence[Group], config: ObjectiveConfig, max_completion_tokens: int
) -> list[TrainingSequence]:
    """The groups' completions as training sequences, with advantage and token weight."""
    lengths = [[len(completion.token_ids) for completion in group.completions] for group in groups]
    weights = token_weights(lengths, config.aggregation, max_completion_tokens)
    return [
        TrainingSequence(group.prompt.token_ids, completion.token_ids, completion.logprobs, advantage, weight)
        for group, group_weights in zip(groups, weights, strict=True)
        for completion, advantage, weight in zip(
            group.completions,
            group_advantages(group.rewards, config.advantage_std),
            group_weights,
            strict=True,
        )
    ]


def training_sequences(
    rollouts: Sequence[PromptRollout], objective: ObjectiveConfig, rollout: RolloutConfig
) -> list[TrainingSequence]:
    """What the update is taken on: the last stage alone (paper: the refinements).

    ``objective.draft_weight`` > 0 adds the GRPO loss of every earlier stage with that weight,
    an extension of ours.
    """
    budget = rollout.max_completion_tokens
    sequences = group_sequences([r.trained for r in rollouts], objective, budget)
    drafts = [stage.group for rollout in rollouts for stage in rollout.stages[:-1]]
    if objective.draft_weight and drafts:
        sequences += [
            TrainingSequence(
                s.prompt_ids, s.completion_ids, s.logprobs, s.advantage, objective.draft_weight * s.weight
            )
            for s in group_sequences(drafts, objective, budget)
        ]
    return sequences


def mini_batches(
    rollouts: Sequence[PromptRollout], count: int, objective: ObjectiveConfig, rollout: RolloutConfig
) -> list[list[TrainingSequence]]:
    """The step's prompts dealt to ``count`` mini-batches, one optimizer update each."""
    size = len(rollouts) // count
    return [training_sequences(rollouts[i * size : (i + 1) * size], objective, rollout) for i in range(count)]
