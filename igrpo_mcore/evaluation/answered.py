"""A problem with its scored completions, as an evaluation keeps it: a line of ``step_N.jsonl``."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from igrpo_mcore.report.draft_metrics import is_right
from igrpo_mcore.types import Completion, Group, Problem, Prompt, Score


@dataclass(frozen=True)
class Answered:
    """The completions of one problem, without their tokens unless they are to be kept.

    ``lengths`` are tokens a completion. ``tokens`` and ``logprobs`` are empty, or one list a completion.
    """

    problem: Problem
    texts: tuple[str, ...]
    lengths: tuple[int, ...]
    truncated: tuple[bool, ...]
    scores: tuple[Score, ...]
    tokens: tuple[tuple[int, ...], ...] = ()
    logprobs: tuple[tuple[float, ...], ...] = ()
    prompt: tuple[int, ...] = ()

    @classmethod
    def of(cls, group: Group, *, keep_tokens: bool = False) -> "Answered":
        """What is kept of a sampled group."""
        completions = group.completions
        return cls(
            group.prompt.problem,
            tuple(completion.text for completion in completions),
            tuple(len(completion.token_ids) for completion in completions),
            tuple(completion.truncated for completion in completions),
            group.scores,
            tuple(completion.token_ids for completion in completions) if keep_tokens else (),
            tuple(completion.logprobs for completion in completions) if keep_tokens else (),
            group.prompt.token_ids if keep_tokens else (),
        )

    @property
    def right(self) -> list[bool]:
        """Whether each completion is right (docs/metrics.md says when)."""
        return [is_right(score) for score in self.scores]

    @property
    def group(self) -> Group:
        """The same with completions that have a text and no tokens."""
        completions = [
            Completion((), (), text, cut) for text, cut in zip(self.texts, self.truncated, strict=True)
        ]
        return Group(Prompt(self.problem, ()), tuple(completions), self.scores)

    def record(self) -> dict[str, Any]:
        """As JSON; ``from_record`` reads it again."""
        problem = self.problem
        return {
            "id": problem.id,
            "problem": problem.problem,
            "answer": problem.answer,
            **({"entry": problem.entry} if problem.entry else {}),
            **({"prompt_token_ids": self.prompt} if self.tokens else {}),
            "completions": [
                {
                    "text": text,
                    "reward": score.total,
                    "parts": score.parts,
                    **({"failures": score.failures} if score.failures else {}),
                    "tokens": length,
                    "truncated": cut,
                    **({"token_ids": self.tokens[i], "logprobs": self.logprobs[i]} if self.tokens else {}),
                }
                for i, (text, score, length, cut) in enumerate(
                    zip(self.texts, self.scores, self.lengths, self.truncated, strict=True)
                )
            ],
        }

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> "Answered":
        """Raises ``KeyError`` or ``TypeError`` for a record that is none."""
        completions: Sequence[dict[str, Any]] = record["completions"]
        kept = bool(completions) and "token_ids" in completions[0]
        return cls(
            Problem(record["id"], record["problem"], record["answer"], record.get("entry", "")),
            tuple(completion["text"] for completion in completions),
            tuple(completion["tokens"] for completion in completions),
            tuple(completion["truncated"] for completion in completions),
            tuple(Score(c["reward"], c["parts"], tuple(c.get("failures", ()))) for c in completions),
            tuple(tuple(c["token_ids"]) for c in completions) if kept else (),
            tuple(tuple(c["logprobs"]) for c in completions) if kept else (),
            tuple(record.get("prompt_token_ids", ())),
        )
