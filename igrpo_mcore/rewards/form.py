"""What the prompt asks a completion to look like: the part of the set-up that rewards read."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from igrpo_mcore.config.completion_form import THINK_CLOSE, THINK_OPEN, AnswerPlace, FormatStyle

if TYPE_CHECKING:  # workers load no OmegaConf
    from igrpo_mcore.config.schema import RewardConfig


@dataclass(frozen=True)
class ResponseForm:
    """``thinking_opened``: the prompt itself ends with ``<think>``, as DeepSeek-R1-Distill's template does,
    so that a completion begins inside the thinking."""

    answer_place: AnswerPlace = AnswerPlace.answer_tag
    format_style: FormatStyle = FormatStyle.paper
    thinking_opened: bool = False

    @classmethod
    def of(cls, config: "RewardConfig", thinking_opened: bool = False) -> "ResponseForm":
        """The form that a recipe's ``reward`` section asks for."""
        return cls(config.accuracy_from, config.format_style, thinking_opened)

    def whole(self, completion: str) -> str:
        """The completion with the opening tag that its prompt may hold."""
        return THINK_OPEN + completion if self.thinking_opened else completion

    def after_thinking(self, completion: str) -> str:
        """What follows the thinking; nothing where it was opened and never closed."""
        _, closed, after = self.whole(completion).rpartition(THINK_CLOSE)
        if closed:
            return after
        return after.partition(THINK_OPEN)[0]
