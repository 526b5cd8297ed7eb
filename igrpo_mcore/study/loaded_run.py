"""A run as it lies in its folder, read to be compared."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from igrpo_mcore.errors import UserError
from igrpo_mcore.report.records import SAMPLES_FILE, read_metrics, read_records
from igrpo_mcore.report.summary import Record, values_of
from igrpo_mcore.study.evaluations import right_by_problem
from igrpo_mcore.study.options import read_options


@dataclass(frozen=True)
class LoadedRun:
    """``final`` and ``start`` are shares of right completions by problem, of the policy after the last step
    and of what the run started from; empty where they were not evaluated."""

    folder: Path
    options: dict[str, Any]
    records: Sequence[Record]
    final: dict[str, float] = field(default_factory=dict)
    start: dict[str, float] = field(default_factory=dict)

    @property
    def seed(self) -> int:
        return int(self.options["train.seed"])

    @property
    def steps(self) -> int:
        return int(self.records[-1]["step"] or 0) if self.records else 0

    @property
    def finished(self) -> bool:
        return self.steps >= self.options["train.steps"]

    def fifth(self, name: str, *, last: bool) -> float | None:
        """Mean of a metric over the first or the last fifth of the steps; None where it was not measured."""
        count = max(1, len(self.records) // 5)
        values = values_of(self.records[-count:] if last else self.records[:count], name)
        return fmean(values) if values else None

    def last_samples(self, count: int) -> list[dict[str, Any]]:
        """The last ``count`` prompts in samples.jsonl, with all that was sampled for them."""
        samples = list(read_records(self.folder / SAMPLES_FILE))
        return samples[-count:]


def load_run(folder: Path, start: Path | None = None) -> LoadedRun:
    """Read a run's folder; ``start`` is the one that `igrpo eval RECIPE` wrote, if any.

    Raises:
        UserError: it is no run's folder, or no step was taken.
    """
    options = read_options(folder)
    records = read_metrics(folder)
    if not records:
        raise UserError(f"{folder} has no finished step to compare; leave it out or let it run")
    last = int(records[-1]["step"] or 0)
    begun_as = right_by_problem(start, 0) if start else {}
    return LoadedRun(folder, options, records, right_by_problem(folder, last), begun_as)
