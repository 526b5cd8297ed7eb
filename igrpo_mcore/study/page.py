"""The page of ``igrpo compare``: self-contained, in the style of a run's report."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from igrpo_mcore.report.page import Chart, write_page
from igrpo_mcore.study.bands import OVERLAYS, colour, overlay
from igrpo_mcore.study.bootstrap import Estimate, estimate
from igrpo_mcore.study.figures import (
    HACKING,
    MEASURES,
    Change,
    HeldOut,
    Measure,
    changes,
    completions,
    held_out,
    seconds,
)
from igrpo_mcore.study.groups import RunGroup
from igrpo_mcore.study.options import differing, without_seed

TEMPLATE = "compare.html.jinja"
SAMPLES = 2
"""Final prompts of a variant that the page shows."""


@dataclass(frozen=True)
class Row:
    """A variant in the table of results and where its samples stand."""

    name: str
    colour: str
    seeds: int
    held_out: HeldOut | None
    without_gradient: Estimate | None
    entropy: Estimate | None
    seconds: float
    completions: int | None
    first_seed: int
    samples: list[dict[str, Any]]
    runs: list[tuple[str, int, int]]
    against: str


def rows_of(groups: Sequence[RunGroup]) -> list[Row]:
    """A row a variant, set against its baseline, or the first where that has no run."""
    rows = []
    by_name = {group.name: group for group in groups}
    for number, group in enumerate(groups):
        baseline = by_name.get(group.baseline, groups[0])
        last = {
            name: [v for run in group.runs if (v := run.fifth(name, last=True)) is not None]
            for name in ("groups/zero_std_share", "policy/entropy")
        }
        rows.append(
            Row(
                name=group.name,
                colour=colour(number),
                seeds=len(group.runs),
                held_out=held_out(group, baseline),
                without_gradient=estimate(last["groups/zero_std_share"]),
                entropy=estimate(last["policy/entropy"]),
                seconds=seconds(group),
                completions=completions(group),
                first_seed=group.runs[0].seed,
                samples=group.runs[0].last_samples(SAMPLES),
                runs=[(str(run.folder), run.seed, run.steps) for run in group.runs],
                against=baseline.name,
            )
        )
    return rows


def baseline_of(rows: Sequence[Row]) -> str:
    """What the rows are set against, as a column's head says it."""
    names = {row.against for row in rows}
    return names.pop() if len(names) == 1 else "the first variant at its point of the grid"


def write_comparison(
    page: Path, title: str, groups: Sequence[RunGroup], rows: Sequence[Row], missing: Sequence[str]
) -> None:
    """Write the page.

    Raises:
        UserError: it cannot be written.
    """
    evaluated = [row.held_out for row in rows if row.held_out]
    charts = [
        Chart(chart.title, chart.unit, svg)
        for chart in OVERLAYS
        if (svg := overlay(chart, groups)) is not None
    ]
    content = {
        "title": title,
        "rows": rows,
        "missing": missing,
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        "budgets_differ": len({row.completions for row in rows}) > 1,
        "evaluated": bool(evaluated),
        "against": baseline_of(rows),
        "problems": evaluated[0].problems if evaluated else 0,
        "seeds": sorted({run.seed for group in groups for run in group.runs}),
        "charts": charts,
        "changes": _by_measure(groups, MEASURES),
        "hacking": _by_measure(groups, HACKING),
        "options": differing([without_seed(group.runs[0].options) for group in groups]),
    }
    write_page(page, TEMPLATE, content, Path(__file__).parent)


def _by_measure(
    groups: Sequence[RunGroup], measures: Sequence[Measure]
) -> list[tuple[str, list[tuple[str, Change]]]]:
    """Of each measure that some run has, a line a variant."""
    by_group = [changes(group, measures) for group in groups]
    tables = []
    for i, measure in enumerate(measures):
        lines = [(group.name, rows[i]) for group, rows in zip(groups, by_group, strict=True)]
        if any(line.last for _, line in lines):
            tables.append((measure.label, lines))
    return tables
