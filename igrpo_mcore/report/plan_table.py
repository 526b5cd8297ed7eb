"""Plan against measured: seconds and GPU memory of each phase, side by side."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from igrpo_mcore.errors import cannot_write
from igrpo_mcore.report.summary import Record, values_of

PLAN_FILE = "plan.json"
# planned phase -> the run's own names of it
_SECONDS = {
    "drafts": ("drafts",),
    "refinements": ("refinements", "completions"),
    "rewards": ("drafts_rewards", "refinements_rewards", "completions_rewards"),
    "sleep": ("sleep",),
    "logprobs": ("logprobs", "ref_logprobs"),
    "update": ("update",),
    "push": ("push",),
    "step": ("step",),
}
_GIB = {"rollout": "rollout", "refit": "push", "logprobs": "logprobs", "update": "update"}


@dataclass(frozen=True)
class PlanRow:
    """One phase; None where the run did not measure it (GPU memory on a machine without a GPU)."""

    phase: str
    planned: float
    measured: float | None

    @property
    def ratio(self) -> float | None:
        """Measured over planned."""
        return self.measured / self.planned if self.measured is not None and self.planned else None


@dataclass(frozen=True)
class PlanTable:
    """``seconds`` are means over the steps, ``gib`` the most of any step on rank 0."""

    gpu: str
    measured_on: str
    comparable: bool
    seconds: tuple[PlanRow, ...]
    gib: tuple[PlanRow, ...]


def write_plan(run_dir: Path, plan: dict[str, Any]) -> None:
    """Raises ``UserError`` where the file cannot be written."""
    path = run_dir / PLAN_FILE
    try:
        path.write_text(json.dumps(plan, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise cannot_write(path, error) from error


def plan_table(run_dir: Path, records: Sequence[Record]) -> PlanTable | None:
    """The plan that the run left beside what ``records`` measured; None for a run without one."""
    path = run_dir / PLAN_FILE
    if not path.exists():
        return None
    plan = json.loads(path.read_text(encoding="utf-8"))

    def mean_seconds(phase: str) -> float | None:
        values = [values_of(records, f"time/{name}_s") for name in _SECONDS[phase]]
        return sum(sum(v) for v in values) / len(records) if any(values) else None

    def peak_gib(phase: str) -> float | None:
        return max(values_of(records, f"memory/{_GIB[phase]}_gib"), default=None)

    seconds = tuple(PlanRow(p, value, mean_seconds(p)) for p, value in plan["seconds"].items())
    gib = tuple(PlanRow(p, value, peak_gib(p)) for p, value in plan["gib"].items())
    return PlanTable(plan["gpu"], plan["measured_on"], plan["comparable"], seconds, gib)
