"""The curves of a run as inline SVG."""

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from igrpo_mcore.report.panels import WARN, Curve, Panel
from igrpo_mcore.report.summary import Record, phases_of, values_of

INK, GRID = "#3b4252", "#e4e7ec"
PHASE_COLOURS = (
    "#2f7fb8",
    "#9cc7e5",
    "#d9742b",
    "#f3c091",
    "#b8bec9",
    "#7b6bb0",
    "#b9aede",
    "#3f9b6c",
    "#d8c14a",
)
SMOOTH_OVER = 40
"""From so many steps on a curve is drawn faintly, with its running mean on top."""


def draw(panel: Panel, records: Sequence[Record]) -> str | None:
    """The panel as an ``<svg>`` element; None where none of its metrics was ever measured."""
    curves = [curve for curve in panel.curves if values_of(records, curve.name)]
    if not curves or (panel.needs and not values_of(records, panel.needs)):
        return None
    figure, axes = blank()
    for curve in curves:
        _draw_curve(axes, curve, records)
    if panel.log:
        positive = any(value > 0 for curve in curves for value in values_of(records, curve.name))
        axes.set_yscale("log" if positive else "linear")
    elif panel.share:
        axes.set_ylim(-0.03, 1.03)
    if panel.limit is not None:
        axes.axhline(panel.limit, color=WARN, linewidth=1, linestyle=(0, (4, 3)), label="limit")
    if len(curves) > 1 or panel.limit is not None:
        axes.legend(loc="best", frameon=False, fontsize=8, labelcolor=INK)
    return as_svg(figure, axes, panel.unit)


def draw_phases(records: Sequence[Record]) -> str | None:
    """Seconds of each step by phase, stacked; None where no time was measured."""
    every = phases_of(records)
    phases = [phase for phase in every if any(values_of(records, f"time/{phase}_s"))]
    if not phases:
        return None
    figure, axes = blank(width=11.2)
    steps = [record["step"] or 0 for record in records]
    seconds = [[record.get(f"time/{phase}_s") or 0.0 for record in records] for phase in phases]
    labels = [phase.replace("_", " ") for phase in phases]
    colours = [PHASE_COLOURS[every.index(phase) % len(PHASE_COLOURS)] for phase in phases]
    if len(steps) <= SMOOTH_OVER:
        floor = [0.0] * len(steps)
        for height, label, colour in zip(seconds, labels, colours, strict=True):
            axes.bar(steps, height, bottom=floor, width=0.82, color=colour, label=label)
            floor = [low + add for low, add in zip(floor, height, strict=True)]
    else:
        axes.stackplot(steps, *seconds, labels=labels, colors=colours, linewidth=0)
    axes.legend(
        loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8, labelcolor=INK, reverse=True
    )
    return as_svg(figure, axes, "s")


def _draw_curve(axes: Axes, curve: Curve, records: Sequence[Record]) -> None:
    points = [
        (record["step"] or 0, value, record.get(curve.spread or "") or 0.0)
        for record in records
        if (value := record.get(curve.name)) is not None
    ]
    steps, values, spread = (list(column) for column in zip(*points, strict=True))
    smooth = curve.noisy and len(values) >= SMOOTH_OVER
    if smooth:
        axes.plot(steps, values, color=curve.colour, linewidth=0.8, alpha=0.3)
        values, spread = (running_mean(column, len(column) // 20) for column in (values, spread))
    if curve.spread:
        low = [value - width for value, width in zip(values, spread, strict=True)]
        high = [value + width for value, width in zip(values, spread, strict=True)]
        axes.fill_between(steps, low, high, color=curve.colour, alpha=0.10, linewidth=0)
    marker = "o" if len(values) < SMOOTH_OVER else None
    axes.plot(
        steps, values, color=curve.colour, linewidth=1.7, marker=marker, markersize=2.8, label=curve.label
    )


def running_mean(values: Sequence[float], radius: int) -> list[float]:
    """Mean over ``radius`` values on either side, fewer at the ends."""
    means = []
    for i in range(len(values)):
        window = values[max(0, i - radius) : i + radius + 1]
        means.append(sum(window) / len(window))
    return means


def blank(width: float = 5.4, height: float = 2.7) -> tuple[Figure, Axes]:
    """An empty chart in the page's style, sizes in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=8, length=0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, steps=[1, 2, 5, 10]))
    return figure, axes


def as_svg(figure: Figure, axes: Axes, unit: str) -> str:
    """The chart over steps as an ``<svg>`` element."""
    axes.set_xlabel("step", fontsize=8, color=INK)
    axes.set_ylabel(unit, fontsize=8, color=INK)
    return svg_of(figure)


def svg_of(figure: Figure) -> str:
    """Any chart as an ``<svg>`` element that scales with the page."""
    buffer = io.StringIO()
    # Text stays text (the page's own font); the salt makes the same run give the same bytes.
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": "igrpo", "font.family": "sans-serif"}
    with matplotlib.rc_context(settings):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return re.sub(r' (width|height)="[^"]*pt"', "", svg, count=2)  # it scales with the page
