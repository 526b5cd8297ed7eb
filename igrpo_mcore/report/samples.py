"""samples.jsonl: some prompts of each step with everything that was sampled for them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from igrpo_mcore.report.records import SAMPLES_FILE, JsonLines
from igrpo_mcore.types import Group, PromptRollout


class SamplesWriter:
    """Writes the first ``samples_per_step`` prompts of each step, one JSON object a prompt.

    ``decode`` turns token ids into text, special tokens included. An object holds ``step``, ``id``,
    ``problem``, ``answer`` and ``stages``, each with its ``name``, ``prompt`` (as the engine got it),
    ``completions``, ``chosen`` (index of the one that conditions the next stage, null in the last) and
    ``overflowed``; a completion has ``text``, ``reward``, ``parts``, ``failures``, ``tokens`` and
    ``truncated``.
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
        problem = rollout.single_shot.prompt.problem
        return {
            "step": step,
            "id": problem.id,
            "problem": problem.problem,
            "answer": problem.answer,
            "stages": [
                {
                    "name": stage.name,
                    "prompt": self._decode(stage.group.prompt.token_ids),
                    "completions": _completions(stage.group),
                    "chosen": stage.chosen,
                    "overflowed": stage.overflowed,
                    **({"foreign_draft": stage.foreign[0].text} if stage.foreign else {}),
                }
                for stage in rollout.stages
            ],
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
