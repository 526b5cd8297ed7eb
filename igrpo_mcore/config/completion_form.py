"""What a prompt asks a completion to look like. Reward workers load this and nothing else of the room."""

from enum import StrEnum

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"


class AnswerPlace(StrEnum):
    """Where a completion states its answer; docs/rewards.md."""

    answer_tag = "answer_tag"
    boxed = "boxed"
    anywhere = "anywhere"


class FormatStyle(StrEnum):
    """What the format reward asks for."""

    paper = "paper"
    open_r1 = "open_r1"
