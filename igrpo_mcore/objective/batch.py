"""From a step's rollouts to the training sequences of its mini-batches."""

from collections.abc import Sequence
from dataclasses import replace

from igrpo_mcore.config.schema import Advantage, ObjectiveConfig, RolloutConfig
from igrpo_mcore.objective.advantages import advantages_of
from igrpo_mcore.objective.aggregation import token_weights
from igrpo_mcore.objective.original_prompt import transfer_advantages
from igrpo_mcore.types import Group, PromptRollout, TrainingSequence


def group_sequences(
    groups: Sequence[Group],
    config: ObjectiveConfig,
    max_completion_tokens: int,
    advantages: Sequence[Sequence[float]] | None = None,
) -> list[TrainingSequence]:
    """The groups' completions as training sequences, with advantage and token weight.

    ``advantages`` of each group, none: those of its own rewards. With ``objective.advantage=raft`` the
    weights are those of groups of one, the chosen completion; the others have none.
    """
    if advantages is None:
        advantages = [advantages_of(group.rewards, config) for group in groups]
    counted = [
        [advantage != 0 or config.advantage != Advantage.raft for advantage in of_group]
        for of_group in advantages
    ]
    lengths = [
        [
            len(completion.token_ids)
            for completion, counts in zip(group.completions, of_group, strict=True)
            if counts
        ]
        for group, of_group in zip(groups, counted, strict=True)
    ]
    weights = [iter(w) for w in token_weights(lengths, config.aggregation, max_completion_tokens)]
    return [
        TrainingSequence(
            group.prompt.token_ids,
            completion.token_ids,
            completion.logprobs,
            advantage,
            next(group_weights) if counts else 0.0,
        )
        for group, group_weights, of_group, group_counts in zip(
            groups, weights, advantages, counted, strict=True
        )
        for completion, advantage, counts in zip(group.completions, of_group, group_counts, strict=True)
    ]


def training_sequences(
    rollouts: Sequence[PromptRollout], objective: ObjectiveConfig, rollout: RolloutConfig
) -> list[TrainingSequence]:
    """What the update is taken on: the last stage alone (paper: the refinements).

    Two extensions of ours add to it, each with its weight: ``objective.draft_weight`` the GRPO loss of every
    earlier stage, ``objective.original_prompt_weight`` the refinements under q (``original_prompt``).
    """
    budget = rollout.max_completion_tokens
    trained = [r.trained for r in rollouts]
    sequences = group_sequences(trained, objective, budget)
    drafts = [stage.group for rollout in rollouts for stage in rollout.stages[:-1]]
    if objective.draft_weight and drafts:
        found = group_sequences(drafts, objective, budget)
        sequences += [replace(s, weight=objective.draft_weight * s.weight) for s in found]
    if objective.original_prompt_weight and drafts:
        under_q = [replace(r.trained, prompt=r.single_shot.prompt) for r in rollouts]
        found = group_sequences(
            under_q, objective, budget, [transfer_advantages(r, objective) for r in rollouts]
        )
        weight = objective.original_prompt_weight
        sequences += [replace(s, weight=weight * s.weight, sampled_here=False) for s in found]
    return sequences


def mini_batches(
    rollouts: Sequence[PromptRollout], count: int, objective: ObjectiveConfig, rollout: RolloutConfig
) -> list[list[TrainingSequence]]:
    """The step's prompts dealt to ``count`` mini-batches, one optimizer update each."""
    size = len(rollouts) // count
    return [training_sequences(rollouts[i * size : (i + 1) * size], objective, rollout) for i in range(count)]
