"""0 for a completion of a fitting length, -1 at the token budget (DAPO's soft overlong punishment)."""

from igrpo_mcore.rewards.options import RewardOptions
from igrpo_mcore.types import Completion, Problem

DEFAULT = RewardOptions()


def overlong_reward(problem: Problem, completion: Completion, *, options: RewardOptions = DEFAULT) -> float:
    """DAPO (arXiv 2503.14476), equation 13: with a budget of L tokens and a buffer of C before its end,

        0 where |y| ≤ L - C,   (L - C - |y|) / C where L - C < |y| ≤ L,   -1 above.

    L is ``rollout.max_completion_tokens``, C its share ``reward.overlong_buffer``; 0 without a buffer. It is
    a part of its own, so accuracy stays what it is.
    """
    buffer = options.overlong_buffer * options.max_completion_tokens
    over = len(completion.token_ids) - (options.max_completion_tokens - buffer)
    return -min(1.0, over / buffer) if buffer and over > 0 else 0.0
