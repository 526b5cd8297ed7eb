"""samples.jsonl: some prompts of each step with everything that was sampled for them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from igrpo_mcore.report.records import SAMPLES_FILE, JsonLines
from igrpo_mcore.types import Group, PromptRollout


class SamplesWriter:
    """Writes the first ``samples_per_step`` prompts of each step, one JSON object a prompt.

    ``decode`` turns token ids into text, special tokens included. An object holds ``step``, ``id``,
    ``problem``, ``answer``, ``prompt`` (q, as the engine got it), ``drafts`` (null under plain GRPO),
    ``chosen`` (index of the draft), ``draft_overflowed``, ``refinement_prompt`` (q') and
    ``refinements``; each draft and refinement has ``text``, ``reward``, ``parts``, ``failures``,
    ``tokens`` and ``truncated``.
    """

    def __init__(
        self,
        run_dir: Path,
        samples_per_step: int,
        decode: Callable[[Sequence[int]], str],
        first_step: int = 1,
    ) -> None:
        self._samples_per_step = samples_per_step
        self._decode = decode
        self._lines = JsonLines(run_dir / SAMPLES_FILE, first_step)

    def write(self, step: int, rollouts: Sequence[PromptRollout]) -> None:
        """Raises ``UserError`` where the file cannot be written."""
        for rollout in rollouts[: self._samples_per_step]:
            self._lines.append(self._record(step, rollout))

    def close(self) -> None:
        self._lines.close()

    def _record(self, step: int, rollout: PromptRollout) -> dict[str, Any]:
        drafts, refinements = rollout.drafts, rollout.refinements
        problem = refinements.prompt.problem
        return {
            "step": step,
            "id": problem.id,
            "problem": problem.problem,
            "answer": problem.answer,
            "prompt": self._decode((drafts or refinements).prompt.token_ids),
            "drafts": None if drafts is None else _completions(drafts),
            "chosen": rollout.chosen,
            "draft_overflowed": rollout.draft_overflowed,
            "refinement_prompt": None if drafts is None else self._decode(refinements.prompt.token_ids),
            "refinements": _completions(refinements),
        }


def _completions(group: Group) -> list[dict[str, Any]]:
    return [
        {
            "text": completion.text,
            "reward": score.total,
            "parts": score.parts,
            "failures": list(score.failures),
            "tokens": len(completion.token_ids),
            "truncated": completion.truncated,
        }
        for completion, score in zip(group.completions, group.scores, strict=True)
    ]
