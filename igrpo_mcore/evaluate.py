"""``igrpo eval``: single-shot accuracy on held-out problems, sampled by the run's own engines."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

import numpy as np

from igrpo_mcore.config.schema import Config, Resume
from igrpo_mcore.data.problems import held_out_problems
from igrpo_mcore.errors import UserError, cannot_write
from igrpo_mcore.policy.checkpoint import load_parameters
from igrpo_mcore.policy.parallel import is_main_rank
from igrpo_mcore.report.draft_metrics import is_right
from igrpo_mcore.report.hacking import hacking_metrics
from igrpo_mcore.rollout.engine import Sampling
from igrpo_mcore.run.folder import run_dir
from igrpo_mcore.trainer import Trainer
from igrpo_mcore.types import Group

RESAMPLES = 10_000
"""Draws of the bootstrap."""


@dataclass(frozen=True)
class Evaluation:
    """Shares over all completions. ``accuracy`` is the mean over problems of the share of right completions
    (mean@k); ``low`` and ``high`` bound it at 95 % by resampling problems; ``any_right`` is pass@k at k =
    ``samples``. ``expression_share`` and ``distinct_texts``: docs/metrics.md, hints of hacking."""

    step: int
    problems: int
    samples: int
    accuracy: float
    low: float
    high: float
    any_right: float
    reward: float
    truncated: float
    length: float
    expression_share: float | None
    distinct_texts: float | None

    @classmethod
    def of(cls, step: int, groups: Sequence[Group]) -> "Evaluation":
        """The figures of one group of completions a problem."""
        right = [fmean(is_right(score) for score in group.scores) for group in groups]
        completions = [completion for group in groups for completion in group.completions]
        low, high = interval(right)
        hints = hacking_metrics(groups)
        return cls(
            step=step,
            problems=len(groups),
            samples=len(groups[0].completions),
            accuracy=fmean(right),
            low=low,
            high=high,
            any_right=fmean(share > 0 for share in right),
            reward=fmean(reward for group in groups for reward in group.rewards),
            truncated=fmean(completion.truncated for completion in completions),
            length=fmean(len(completion.token_ids) for completion in completions),
            **{name: hints[name] for name in ("expression_share", "distinct_texts")},
        )

    def __str__(self) -> str:
        return (
            f"single-shot accuracy {self.accuracy:.3f} [{self.low:.3f}, {self.high:.3f}] "
            f"({self.problems} held-out problems x {self.samples}; any of {self.samples} right "
            f"{self.any_right:.3f}; truncated {self.truncated:.3f}; {self.length:.1f} tokens)"
        )


def interval(by_problem: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of the mean, problems resampled with replacement (percentiles)."""
    values = np.asarray(by_problem)
    drawn = np.random.default_rng(seed).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.percentile(values[drawn].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def evaluate(config: Config, checkpoint: Path | None, *, against: Path | None, show: int) -> None:
    """Sample ``eval.samples`` completions of each held-out problem under q, print and write the figures.

    The figures go to ``eval/step_N.json`` in the run's folder, the completions to ``eval/step_N.jsonl``.

    Args:
        checkpoint: a run's, whose weights are taken; None takes the weights that the recipe starts from.
        against: an earlier ``step_N.json`` whose accuracy is printed beside this one.
        show: problems whose completions are printed, to be read.

    Raises:
        UserError: no held-out problems, a damaged checkpoint, or a file that cannot be written.
    """
    problems = held_out_problems(config)
    config.checkpoint.resume = Resume.never
    trainer = Trainer(config)
    step = 0
    if checkpoint is not None:
        step = trainer.checkpoints.read(checkpoint)[0].step
        load_parameters(trainer.learner.policy.chunks, checkpoint)  # without its optimizer state
    trainer.push()
    options = config.eval
    sampling = Sampling(
        options.samples, options.temperature, config.rollout.max_completion_tokens, top_p=options.top_p
    )
    groups = trainer.sampler.single_shot(problems, sampling, "eval")
    if is_main_rank():
        measured = Evaluation.of(step, groups)
        path = write(run_dir(config.run) / "eval", measured, groups)
        for group in groups[:show]:
            print(_shown(group))
        print(f"{path}: {measured}")
        if against is not None:
            before = read(against)
            gain = measured.accuracy - before.accuracy
            print(f"{'before':<8} {before}\n{'after':<8} {measured}\n{'gain':<8} {gain:+.3f}", flush=True)
    trainer.sampler.close()


def write(folder: Path, measured: Evaluation, groups: Sequence[Group]) -> Path:
    """Write the figures and, a line a problem, the completions; the path of the figures.

    Raises:
        UserError: a file cannot be written.
    """
    path = folder / f"step_{measured.step}.json"
    lines = [
        {
            "id": group.prompt.problem.id,
            "problem": group.prompt.problem.problem,
            "answer": group.prompt.problem.answer,
            "completions": [
                {"text": completion.text, "reward": score.total, "parts": score.parts}
                for completion, score in zip(group.completions, group.scores, strict=True)
            ],
        }
        for group in groups
    ]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".jsonl").write_text(
            "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8"
        )
        path.write_text(json.dumps(asdict(measured), indent=1) + "\n")
    except OSError as error:
        raise cannot_write(path, error) from error
    return path


def read(path: Path) -> Evaluation:
    """Figures that ``write`` wrote.

    Raises:
        UserError: ``path`` holds none.
    """
    try:
        return Evaluation(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        names = ", ".join(field.name for field in dataclasses.fields(Evaluation))
        raise UserError(f"{path} is no evaluation ({error}); give a step_N.json with {names}") from error


def _shown(group: Group) -> str:
    problem = group.prompt.problem
    lines = [f"  {problem.problem}   [{problem.answer}]"]
    lines += [
        f"    {score.total:g}  {completion.text!r}"
        for completion, score in zip(group.completions[:3], group.scores, strict=False)
    ]
    return "\n".join(lines)
