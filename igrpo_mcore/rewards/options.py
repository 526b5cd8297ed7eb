"""What the registered rewards can be told, as sent to the worker processes."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from igrpo_mcore.config.reward_choices import AccuracyFrom, FormatStyle

if TYPE_CHECKING:
    from igrpo_mcore.config.schema import RewardConfig


@dataclass(frozen=True)
class RewardOptions:
    """Options of the registered rewards (``reward.*`` of a recipe).

    ``opens_thinking`` is no option of a recipe: it is true where the rendered prompt itself ends with
    ``<think>``, so that a completion begins inside the thinking (``PromptRenderer.opens_thinking``).
    ``max_completion_tokens`` is ``rollout``'s.
    """

    accuracy_from: AccuracyFrom = AccuracyFrom.answer_tag
    format_style: FormatStyle = FormatStyle.paper
    opens_thinking: bool = False
    overlong_buffer: float = 0.0
    max_completion_tokens: int = 0


def options_of(
    config: "RewardConfig", *, opens_thinking: bool = False, max_completion_tokens: int = 0
) -> RewardOptions:
    """The options that a recipe's ``reward`` section gives."""
    # plain enums: what OmegaConf hands out may be a string, and a worker imports no OmegaConf
    return RewardOptions(
        AccuracyFrom(config.accuracy_from),
        FormatStyle(config.format_style),
        opens_thinking,
        config.overlong_buffer,
        max_completion_tokens,
    )


ENDS_AT = {"overlong": 0.0}
"""Greatest values of the registered rewards that do not end at 1."""


def greatest_reward(config: "RewardConfig") -> float | None:
    """The greatest total that a completion can have: ``reward.greatest``, or what the positive weights come
    to where every such reward is registered; None where it is not known."""
    if config.greatest is not None:
        return config.greatest
    paying = {name: weight for name, weight in config.weights.items() if weight > 0}
    if any(":" in name for name in paying):
        return None
    return sum(weight * ENDS_AT.get(name, 1.0) for name, weight in paying.items())
