"""How per-token terms become one loss: only the weight of each token differs."""

from collections.abc import Sequence

from igrpo_mcore.config.schema import Aggregation


def token_weights(
    lengths_by_group: Sequence[Sequence[int]], aggregation: Aggregation, max_completion_tokens: int
) -> list[list[float]]:
    """Weight of every token of each completion, so that the loss is Σ weight · objective_t.

    Args:
        lengths_by_group: completion lengths |o_j|, tokens, of each of the batch's B groups.
        aggregation: ``sequence``: 1 / (B · G · |o_j|), mean over a sequence then over the group
            (GRPO, iGRPO); ``token``: 1 / Σ|o| over the batch (DAPO); ``fixed_length``:
            1 / (B · G · max_completion_tokens) (Dr. GRPO).
        max_completion_tokens: the completion budget, tokens.
    """
    groups = len(lengths_by_group)
    tokens = sum(sum(lengths) for lengths in lengths_by_group)

    def weight(length: int, group_size: int) -> float:
        if aggregation == Aggregation.token:
            return 1.0 / tokens
        if aggregation == Aggregation.fixed_length:
            return 1.0 / (groups * group_size * max_completion_tokens)
        return 1.0 / (groups * group_size * length)

    return [[weight(length, len(lengths)) for length in lengths] for lengths in lengths_by_group]
