"""The page of ``igrpo compare``: self-contained, in the style of a run's report."""

import datetime
from collections.abc import Sequence
from pathlib import Path

from igrpo_mcore.report.page import Chart, write_page
from igrpo_mcore.study.bands import MOST_BANDS, OVERLAYS, overlay
from igrpo_mcore.study.figures import HACKING, MEASURES, Change, Measure, changes
from igrpo_mcore.study.forest import forest_svg
from igrpo_mcore.study.groups import RunGroup
from igrpo_mcore.study.options import differing, without_seed
from igrpo_mcore.study.rows import Row, baseline_of, by_baseline

TEMPLATE = "compare.html.jinja"


def write_comparison(
    page: Path, title: str, groups: Sequence[RunGroup], rows: Sequence[Row], missing: Sequence[str]
) -> None:
    """Write the page.

    Raises:
        UserError: it cannot be written.
    """
    evaluated = [row.held_out for row in rows if row.held_out]
    sets = by_baseline(rows, groups)
    charts = [
        Chart(f"{chart.title} ({name} and others)" if len(sets) > 1 else chart.title, chart.unit, svg)
        for chart in OVERLAYS
        for name, those in sets.items()
        if (svg := overlay(chart, those)) is not None
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
        "forest": forest_svg(rows),
        "charts": charts,
        "bands": any(len(those) <= MOST_BANDS for those in sets.values()),
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
