"""What the registered rewards can be told, as sent to the worker processes."""

from dataclasses import dataclass

from igrpo_mcore.config.reward_choices import AccuracyFrom, FormatStyle


@dataclass(frozen=True)
class RewardOptions:
    """Options of the registered rewards (``reward.*`` of a recipe).

    ``opens_thinking`` is no option of a recipe: it is true where the rendered prompt itself ends with
    ``<think>``, so that a completion begins inside the thinking (``PromptRenderer.opens_thinking``).
    """

    accuracy_from: AccuracyFrom = AccuracyFrom.answer_tag
    format_style: FormatStyle = FormatStyle.paper
    opens_thinking: bool = False
