"""What a prompt asks a completion to look like. It imports nothing: reward workers read it too."""

from enum import StrEnum

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"


class AccuracyFrom(StrEnum):
    """The place of a completion in which the accuracy reward looks for the answer."""

    answer_tag = "answer_tag"
    boxed = "boxed"
    anywhere = "anywhere"


class FormatStyle(StrEnum):
    """The shape that the format reward asks for."""

    paper = "paper"
    open_r1 = "open_r1"
