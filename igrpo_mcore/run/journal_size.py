"""The most that a run's journal may take on the disk."""

from igrpo_mcore.config.schema import Config
from igrpo_mcore.config.stages import stages_of

TOKEN_BYTES = 18
"""Of a token: id (4), the bits of its log-prob (8), and its text (about 4 characters, some escaped)."""
RECORD_BYTES = 512
"""Of a completion's key and its scores by name, beside its tokens."""


def most_steps(config: Config) -> int:
    """Steps that lie in the journal at once: what the oldest checkpoint that is kept may still need."""
    every = config.checkpoint.every
    return min(config.train.steps, every * (config.checkpoint.keep + 1)) if every else config.train.steps


def most_journal_bytes(config: Config) -> int:
    """0 without ``run.journal``; else with every completion as long as it may be, and every refill taken."""
    if not config.run.journal:
        return 0
    tokens = sum(stage.num_samples * stage.max_tokens for stage in stages_of(config.rollout))
    completions = sum(stage.num_samples for stage in stages_of(config.rollout))
    prompts = config.train.prompts_per_step * (1 + config.rollout.max_refills)
    return most_steps(config) * prompts * (tokens * TOKEN_BYTES + completions * RECORD_BYTES)
