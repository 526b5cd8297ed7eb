"""Curves of several variants in one chart: the mean over seeds, and a band from the lowest to the highest."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from igrpo_mcore.report.charts import INK, SMOOTH_OVER, as_svg, blank, running_mean
from igrpo_mcore.study.groups import RunGroup

COLOURS = ("#2f7fb8", "#d9742b", "#3f9b6c", "#7b6bb0", "#c0392b", "#8a6d3b", "#4c566a", "#d8c14a")
DASHES = {"solid": "solid", "dashed": (0, (5, 2)), "dotted": (0, (1, 1.5)), "double": (0, (5, 1, 1, 1))}
"""Lines as CSS calls them and as matplotlib draws them."""
MOST_BANDS = 6
"""Variants of a chart that bands and a legend can tell apart."""


@dataclass(frozen=True)
class Overlay:
    """One chart of the page."""

    title: str
    metric: str
    unit: str = ""


OVERLAYS = (
    Overlay("Single-shot accuracy while training", "drafts/accuracy"),
    Overlay("Held-out accuracy", "eval/accuracy"),
    Overlay("Single-shot reward", "drafts/reward_mean"),
    Overlay("Reward of the trained group", "refinements/reward_mean"),
    Overlay("Entropy", "policy/entropy", unit="nats"),
    Overlay("Groups without a gradient", "groups/zero_std_share"),
    Overlay("Refinements that repeat their draft's text", "refinements/repeat_text"),
    Overlay("Accuracy given a wrong draft", "refinements/accuracy_given_wrong_draft"),
    Overlay("Completion length", "drafts/length_mean", unit="tokens"),
    Overlay("Hint of hacking: rewarded texts with the expression", "hacking/drafts_expression_share"),
    Overlay("Distinct texts in a group", "hacking/drafts_distinct_texts"),
    Overlay("Clip fraction", "policy/clip_fraction"),
    Overlay("KL", "policy/kl", unit="nats"),
    Overlay("Gradient norm", "policy/grad_norm"),
    Overlay("Seconds of a step", "time/step_s", unit="s"),
)


def overlay(chart: Overlay, groups: Sequence[RunGroup]) -> str | None:
    """The chart as an ``<svg>`` element; None where no run measured the metric at two steps or more."""
    drawn = [(i, curve) for i, group in enumerate(groups) if (curve := band(group, chart.metric)) is not None]
    if not any(len(curve.steps) > 1 for _, curve in drawn):
        return None
    figure, axes = blank()
    for i, curve in drawn:
        _draw(axes, curve, groups[i].name, i, banded=len(groups) <= MOST_BANDS)
    if len(groups) <= MOST_BANDS:
        axes.legend(loc="best", frameon=False, fontsize=8, labelcolor=INK)
    return as_svg(figure, axes, chart.unit)


@dataclass(frozen=True)
class Band:
    """Over the steps that at least one run measured: mean, lowest and highest over the runs that did."""

    steps: list[int]
    mean: list[float]
    low: list[float]
    high: list[float]


def band(group: RunGroup, metric: str) -> Band | None:
    """A metric over the group's runs, each smoothed first where it is long, as on a run's own page."""
    by_step: dict[int, list[float]] = {}
    for run in group.runs:
        points = [(int(r["step"] or 0), v) for r in run.records if (v := r.get(metric)) is not None]
        values = [value for _, value in points]
        if len(values) >= SMOOTH_OVER:
            values = running_mean(values, len(values) // 20)
        for (step, _), value in zip(points, values, strict=True):
            by_step.setdefault(step, []).append(value)
    if not by_step:
        return None
    steps = sorted(by_step)
    of_step = [by_step[step] for step in steps]
    return Band(
        steps, [float(np.mean(v)) for v in of_step], [min(v) for v in of_step], [max(v) for v in of_step]
    )


def colour(number: int) -> str:
    """Colour of the variant with this number, the same in every chart."""
    return COLOURS[number % len(COLOURS)]


def css_line(number: int) -> str:
    """What CSS calls the line of the variant with this number."""
    return list(DASHES)[number // len(COLOURS) % len(DASHES)]


def _draw(axes: Axes, curve: Band, name: str, number: int, *, banded: bool) -> None:
    if banded:
        axes.fill_between(curve.steps, curve.low, curve.high, color=colour(number), alpha=0.13, linewidth=0)
    marker = "o" if len(curve.steps) < SMOOTH_OVER // 4 else None
    axes.plot(
        curve.steps,
        curve.mean,
        color=colour(number),
        linewidth=1.7,
        linestyle=DASHES[css_line(number)],
        marker=marker,
        markersize=2.8,
        label=name,
    )
