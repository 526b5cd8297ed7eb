"""Held-out accuracy of every variant in one chart: its mean, its interval, and each seed."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from igrpo_mcore.errors import UserError, cannot_write
from igrpo_mcore.report.charts import GRID, INK, svg_of
from igrpo_mcore.study.bootstrap import Estimate
from igrpo_mcore.study.figures import HeldOut
from igrpo_mcore.study.rows import Row, by_baseline

WIDTH, ROW, MARGIN = 11.2, 0.27, 0.9
"""Inches: of the chart, of a row, and of what stands above and below."""


def forest(rows: Sequence[Row]) -> Figure | None:
    """A panel for each variant that others are set against, all with the same axis."""
    shown = [(row, row.held_out, row.held_out.final) for row in rows if row.held_out and row.held_out.final]
    if not shown:
        return None
    panels = by_baseline([row for row, _, _ in shown], shown)
    height = MARGIN + ROW * max(map(len, panels.values()))
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    every = figure.subplots(1, len(panels), sharex=True, squeeze=False)[0]
    for axes, panel in zip(every, panels.values(), strict=True):
        _panel(axes, panel)
    return figure


def forest_svg(rows: Sequence[Row]) -> str | None:
    """The chart as an ``<svg>`` element; None where nothing was evaluated."""
    figure = forest(rows)
    return None if figure is None else svg_of(figure)


def write_forest(rows: Sequence[Row], path: Path) -> None:
    """Write a PNG.

    Raises:
        UserError: nothing was evaluated, or the file cannot be written.
    """
    figure = forest(rows)
    if figure is None:
        raise UserError("--plot: no run here has held-out accuracies; see igrpo eval and eval.every")
    try:
        figure.savefig(path, format="png", dpi=110, metadata={"Software": None})
    except OSError as error:
        raise cannot_write(path, error) from error


def _panel(axes: Axes, rows: Sequence[tuple[Row, HeldOut, Estimate]]) -> None:
    for place, (row, held_out, final) in enumerate(rows):
        if final.low is not None and final.high is not None:
            axes.plot([final.low, final.high], [place, place], color=row.colour, linewidth=2.2, alpha=0.55)
        for _, accuracy in held_out.by_seed:
            axes.plot(accuracy, place, "o", color=row.colour, markersize=3, alpha=0.8)
        axes.plot(final.mean, place, "D", color=row.colour, markersize=6)
        if row.name == row.against:
            axes.axvline(final.mean, color=row.colour, linewidth=1, linestyle=(0, (1, 2)))
    start = next((held_out.start for _, held_out, _ in rows if held_out.start), None)
    if start is not None:
        axes.axvline(start.mean, color=INK, linewidth=1, linestyle=(0, (4, 3)), label="before training")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False, fontsize=8, labelcolor=INK)
    axes.set_yticks(range(len(rows)), [row.name for row, _, _ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel("held-out accuracy after training", fontsize=8, color=INK)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=8, length=0)
