"""The tokens of a step: assumed lengths, and the packing of the run itself."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from igrpo_mcore.config.schema import Config
from igrpo_mcore.config.stages import stages_of
from igrpo_mcore.planning.decoding import mean_within
from igrpo_mcore.policy.packing import micro_batches, split_by_tokens


@dataclass(frozen=True)
class Lengths:
    """Mean lengths in tokens. Memory is planned at the limits of the recipe, time at these."""

    prompt: int
    completion: int


def assumed_lengths(config: Config) -> Lengths:
    """Without anything measured: prompts of 256 tokens, completions of half their budget."""
    rollout = config.rollout
    return Lengths(min(256, rollout.max_prompt_tokens), max(1, rollout.max_completion_tokens // 2))


@dataclass(frozen=True)
class RolloutStage:
    """One sampling stage: ``prompts`` of ``prompt`` tokens, ``samples`` completions after each.

    ``mean`` is that of lengths up to ``rollout.max_completion_tokens``, ``completion`` what is left of it
    where they end at the stage's ``budget``.
    """

    name: str
    prompts: int
    samples: int
    prompt: int
    mean: int
    budget: int
    completion: int


@dataclass(frozen=True)
class MicroBatches:
    """The update of one data-parallel rank. ``count`` micro-batches a mini-batch."""

    count: int
    tokens_per_step: int
    head_rows_per_step: int
    mean_length: float


def rollout_stages(config: Config, lengths: Lengths) -> list[RolloutStage]:
    """The stages of a step over all engines: the first under q, later ones under q'."""
    rollout, found = config.rollout, []
    prompt = lengths.prompt
    for stage in stages_of(rollout):
        kept = mean_within(lengths.completion, rollout.max_completion_tokens, stage.max_tokens)
        found.append(
            RolloutStage(
                stage.name,
                config.train.prompts_per_step,
                stage.num_samples,
                prompt,
                lengths.completion,
                stage.max_tokens,
                kept,
            )
        )
        prompt = min(rollout.longest_prompt, lengths.prompt + kept)
    return found


def trained_stages(config: Config, lengths: Lengths) -> list[RolloutStage]:
    """The stages whose completions the update is taken on, and the refinements once more under q where
    ``objective.original_prompt_weight`` says so."""
    stages = rollout_stages(config, lengths)
    under_q = [replace(stages[-1], prompt=lengths.prompt)] if config.objective.original_prompt_weight else []
    return [*(stages if config.objective.draft_weight else stages[-1:]), *under_q]


def update_of(config: Config, lengths: Lengths, dp: int) -> MicroBatches:
    """Deal and pack a mini-batch as ``Policy`` does, all sequences at their mean length."""
    stages = trained_stages(config, lengths)
    prompts = config.train.prompts_per_step // config.train.mini_batches
    sequences = tuple(s.prompt + s.completion for s in stages for _ in range(prompts * s.samples))
    rows = sum(s.completion * prompts * s.samples for s in stages)
    count = _micro_batch_count(sequences, dp, config.train.micro_batch_tokens)
    steps = config.train.mini_batches
    return MicroBatches(count, sum(sequences) * steps, rows * steps, sum(sequences) / len(sequences))


def sampled_share(config: Config, lengths: Lengths) -> float:
    """Share of a step's sequences that the parity gate takes, ``parity.sequences``."""
    sequences = sum(stage.prompts * stage.samples for stage in trained_stages(config, lengths))
    wanted = config.parity.sequences
    return 1.0 if wanted is None else min(1.0, wanted / sequences)


@lru_cache(maxsize=4096)
def _micro_batch_count(lengths: Sequence[int], dp: int, budget: int) -> int:
    listed = list(lengths)
    return max(len(micro_batches(listed, part, budget)) for part in split_by_tokens(listed, dp))


def largest_micro_batch(config: Config, tp: int) -> int:
    """Most tokens that one micro-batch can hold: the budget, one sequence of the greatest length where
    that is more, and never more than a whole mini-batch."""
    rollout = config.rollout
    longest = rollout.longest_sequence
    stages = stages_of(rollout)  # drafts train too with draft_weight
    groups = sum(s.num_samples for s in stages)
    if config.objective.original_prompt_weight:
        groups += stages[-1].num_samples
    whole = config.train.prompts_per_step // config.train.mini_batches * groups * longest
    return -(-max(min(config.train.micro_batch_tokens, whole), longest) // tp) * tp


def most_head_rows(config: Config, lengths: Lengths, tokens: int) -> int:
    """Most response rows among ``tokens``: full completions after bare prompts (a draft may be left out)."""
    completion = config.rollout.max_completion_tokens
    return -(-tokens * completion // (completion + min(lengths.prompt, config.rollout.max_prompt_tokens)))
