"""Supervised rows for the warm-up of the tiny checkpoint: prompts of both stages, right completions."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from igrpo_mcore.data.templates import PromptRenderer
from igrpo_mcore.tiny import task
from igrpo_mcore.types import Completion, Problem


class DraftKind(StrEnum):
    """What conditions a row: nothing (single-shot), a right draft, or a wrong one."""

    none = "none"
    right = "right"
    wrong = "wrong"


@dataclass(frozen=True)
class SupervisedRow:
    """A prompt and the completion to imitate; ``completion_ids`` ends with the end of sequence."""

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]


@dataclass(frozen=True)
class DraftShares:
    """Share of the rows of each kind; the rest are single-shot."""

    right: float
    wrong: float


class Demonstrations:
    """Makes rows through the renderer that training uses, so that the model has seen its prompts."""

    def __init__(self, tokenizer: Any, renderer: PromptRenderer) -> None:
        self._tokenizer = tokenizer
        self._renderer = renderer

    def row(self, problem: Problem, kind: DraftKind, rng: random.Random) -> SupervisedRow:
        """One row: the prompt of ``problem`` (conditioned as ``kind`` says) and its right completion."""
        if kind is DraftKind.none:
            prompt = self._renderer.first(problem)
        else:
            right = kind is DraftKind.right
            text = task.demonstration(problem) if right else task.wrong_draft(problem, rng)
            draft = Completion(token_ids=(), logprobs=(), text=text, truncated=False)
            prompt, _ = self._renderer.second(problem, draft)
        encoded = self._tokenizer(task.demonstration(problem), add_special_tokens=False)["input_ids"]
        return SupervisedRow(prompt.token_ids, (*encoded, self._tokenizer.eos_token_id))

    def batches(
        self, problems: Sequence[Problem], size: int, shares: DraftShares, seed: int
    ) -> Iterator[list[SupervisedRow]]:
        """Batches of ``size`` rows without end, problems drawn with replacement, the same for a seed."""
        rng = random.Random(seed)
        kinds = (DraftKind.none, DraftKind.right, DraftKind.wrong)
        weights = (1 - shares.right - shares.wrong, shares.right, shares.wrong)
        while True:
            yield [self.row(rng.choice(problems), rng.choices(kinds, weights)[0], rng) for _ in range(size)]
