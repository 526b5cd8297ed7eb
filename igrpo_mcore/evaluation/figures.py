"""The figures of an evaluation, from its completions alone."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean

from igrpo_mcore.evaluation.answered import Answered
from igrpo_mcore.evaluation.bootstrap import Estimate, estimates
from igrpo_mcore.evaluation.estimators import budgets, pass_at_k
from igrpo_mcore.report.hacking import hacking_metrics

HELD_OUT = "held_out"
"""The suite of ``eval.path``, or of what a generated ``data.path`` holds out."""


@dataclass(frozen=True)
class Evaluation:
    """Shares over all completions. ``accuracy`` is the mean over problems of the share of right completions
    (mean@k); ``low`` and ``high`` bound it at 95 % by resampling problems; ``any_right`` is pass@k at k =
    ``samples``. ``pass_at`` holds pass@k by k, ``majority`` the share of problems whose most frequent answer
    is right (none where it was not asked for). ``expression_share`` and ``distinct_texts``: docs/metrics.md,
    hints of hacking."""

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
    suite: str = HELD_OUT
    pass_at: dict[str, Estimate] = field(default_factory=dict)
    majority: Estimate | None = None

    @classmethod
    def of(
        cls,
        step: int,
        answered: Sequence[Answered],
        *,
        suite: str = HELD_OUT,
        winners: Sequence[int | None] | None = None,
    ) -> "Evaluation":
        """The figures of one line a problem, each with equally many completions.

        ``winners``: the completion that stands for each problem's majority, None where none answers
        (``votes.winners``).
        """
        right = [line.right for line in answered]
        samples = len(right[0])
        columns: dict[str, list[float]] = {"accuracy": [fmean(of_problem) for of_problem in right]}
        for k in budgets(samples):
            columns[str(k)] = [pass_at_k(samples, sum(of_problem), k) for of_problem in right]
        if winners is not None:
            columns["majority"] = [
                float(winner is not None and of_problem[winner])
                for winner, of_problem in zip(winners, right, strict=True)
            ]
        found = estimates(columns)
        hints = hacking_metrics([line.group for line in answered])
        return cls(
            step=step,
            problems=len(answered),
            samples=samples,
            accuracy=fmean(columns["accuracy"]),
            low=found["accuracy"].low,
            high=found["accuracy"].high,
            any_right=fmean(any(of_problem) for of_problem in right),
            reward=fmean(score.total for line in answered for score in line.scores),
            truncated=fmean(cut for line in answered for cut in line.truncated),
            length=fmean(length for line in answered for length in line.lengths),
            **{name: hints[name] for name in ("expression_share", "distinct_texts")},
            suite=suite,
            pass_at={str(k): found[str(k)] for k in budgets(samples)},
            majority=found.get("majority"),
        )

    def __str__(self) -> str:
        what = "held-out" if self.suite == HELD_OUT else self.suite
        majority = "" if self.majority is None else f"majority {self.majority.value:.3f}; "
        return (
            f"single-shot accuracy {self.accuracy:.3f} [{self.low:.3f}, {self.high:.3f}] "
            f"({self.problems} {what} problems x {self.samples}; any of {self.samples} right "
            f"{self.any_right:.3f}; {majority}truncated {self.truncated:.3f}; {self.length:.1f} tokens)"
        )
