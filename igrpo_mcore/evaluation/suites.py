"""Named problem suites: where each lies on the hub and how its rows are read. None of them is shipped."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from igrpo_mcore.evaluation.multiple_choice import choices, shuffled

Row = Mapping[str, Any]
Read = Callable[[Row], tuple[str, str]]
"""A row to its problem's text and reference answer; raises ``KeyError`` for a column that is missing."""


@dataclass(frozen=True)
class Suite:
    """A set on the hub. ``samples`` are those a problem by default, the paper's where it gives any.

    ``subset`` is what the hub calls the configuration, ``identifier`` the column of a row's name (its number
    where there is none), ``problems`` how many the set is known to hold.
    """

    hub: str
    split: str
    read: Read
    problems: int
    subset: str | None = None
    identifier: str | None = None
    samples: int = 8
    source: str = ""


def fields(problem: str, answer: str) -> Read:
    """Rows with one column for each; the accuracy reward finds the answer in a worked solution itself."""
    return lambda row: (str(row[problem]), str(row[answer]))


def _gpqa(row: Row) -> tuple[str, str]:
    wrong = [row[f"Incorrect Answer {i}"] for i in (1, 2, 3)]
    return shuffled(row["Question"], [row["Correct Answer"], *wrong], right=0)


def _mmlu_pro(row: Row) -> tuple[str, str]:
    return choices(row["question"], row["options"], int(row["answer_index"]))


def _olympiad(row: Row) -> tuple[str, str]:
    answer = row["final_answer"]
    return str(row["question"]), ", ".join(answer) if isinstance(answer, list) else str(answer)


SUITES: dict[str, Suite] = {
    "aime24": Suite(
        "HuggingFaceH4/aime_2024",
        "train",
        fields("problem", "answer"),
        30,
        identifier="id",
        samples=64,
        source="AIME I and II 2024, Mathematical Association of America",
    ),
    "aime25": Suite(
        "math-ai/aime25",
        "test",
        fields("problem", "answer"),
        30,
        identifier="id",
        samples=64,
        source="AIME I and II 2025, Mathematical Association of America",
    ),
    "math500": Suite(
        "HuggingFaceH4/MATH-500",
        "test",
        fields("problem", "answer"),
        500,
        identifier="unique_id",
        source="the 500 MATH problems of arXiv 2305.20050 (MATH: arXiv 2103.03874)",
    ),
    "amc23": Suite(
        "math-ai/amc23",
        "test",
        fields("question", "answer"),
        40,
        identifier="id",
        source="AMC 12 of 2023, those with integer answers",
    ),
    "gsm8k": Suite(
        "openai/gsm8k",
        "test",
        fields("question", "answer"),
        1319,
        subset="main",
        source="arXiv 2110.14168; the reference follows ####",
    ),
    "minerva": Suite(
        "math-ai/minervamath",
        "test",
        fields("question", "answer"),
        272,
        source="undergraduate problems (OCWCourses) of arXiv 2206.14858",
    ),
    "gpqa": Suite(
        "Idavidrein/gpqa",
        "train",
        _gpqa,
        198,
        subset="gpqa_diamond",
        identifier="Record ID",
        source="GPQA diamond, arXiv 2311.12022; gated: log in to the hub and accept its terms",
    ),
    "mmlu_pro": Suite(
        "TIGER-Lab/MMLU-Pro",
        "test",
        _mmlu_pro,
        12032,
        identifier="question_id",
        source="arXiv 2406.01574",
    ),
    "olympiadbench": Suite(
        "Hothan/OlympiadBench",
        "train",
        _olympiad,
        674,
        subset="OE_TO_maths_en_COMP",
        identifier="id",
        source="open-ended English competition mathematics without images, arXiv 2402.14008",
    ),
}
