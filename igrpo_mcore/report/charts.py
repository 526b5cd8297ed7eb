"""The curves of a run as inline SVG."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from igrpo_mcore.report.summary import Record, phases_of, values_of

INK, GRID = "#3b4252", "#e4e7ec"
DRAFTS, REFINEMENTS, NEUTRAL, WARN = "#2f7fb8", "#d9742b", "#4c566a", "#c0392b"
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


@dataclass(frozen=True)
class Curve:
    """One metric of a panel; ``spread`` names the metric drawn as a band of ± its value.

    ``noisy`` lets a long curve be smoothed.
    """

    name: str
    label: str
    colour: str = NEUTRAL
    spread: str | None = None
    noisy: bool = True


@dataclass(frozen=True)
class Panel:
    """One chart; ``share`` fixes the axis to 0…1, ``log`` makes it logarithmic, ``limit`` is a line. It is
    drawn only where the metric ``needs``, if any, was measured."""

    title: str
    curves: tuple[Curve, ...]
    unit: str = ""
    share: bool = False
    log: bool = False
    limit: float | None = None
    needs: str | None = None


def panels(parity_limit: float | None) -> list[Panel]:
    """The line charts of the page, in order."""

    def both(metric: str, spread: str | None = None) -> tuple[Curve, Curve]:
        return (
            Curve(f"drafts/{metric}", "drafts", DRAFTS, spread and f"drafts/{spread}"),
            Curve(f"refinements/{metric}", "refinements", REFINEMENTS, spread and f"refinements/{spread}"),
        )

    return [
        Panel("Reward, mean ± std", both("reward_mean", "reward_std")),
        Panel("Accuracy", both("accuracy"), share=True),
        Panel(
            "Held-out accuracy, single-shot, with its 95 % interval",
            (
                Curve("eval/accuracy", "accuracy", noisy=False),
                Curve("eval/accuracy_low", "low", "#b8bec9", noisy=False),
                Curve("eval/accuracy_high", "high", "#b8bec9", noisy=False),
                Curve("eval/any_right", "any completion right", DRAFTS, noisy=False),
            ),
            share=True,
        ),
        Panel(
            "Draft chosen, by reward",
            (
                Curve("drafts/reward_mean", "mean draft", DRAFTS),
                Curve("drafts/chosen_reward", "chosen draft", NEUTRAL),
                Curve("refinements/reward_mean", "mean refinement", REFINEMENTS),
            ),
        ),
        Panel(
            "Best of the drafts, by accuracy",
            (
                Curve("drafts/best_accuracy", "observed", DRAFTS),
                Curve("drafts/best_of_n_expected", "1 - (1 - V)^N", NEUTRAL),
                Curve("drafts/chosen_accuracy", "chosen draft", REFINEMENTS),
            ),
            share=True,
        ),
        Panel(
            "Refinements against their draft",
            (
                Curve("refinements/beat_draft", "beat", "#3f9b6c"),
                Curve("refinements/equal_draft", "equal"),
                Curve("refinements/below_draft", "below", WARN),
            ),
            share=True,
        ),
        Panel(
            "Refinements that repeat their draft",
            (
                Curve("refinements/repeat_answer", "its answer", REFINEMENTS),
                Curve("refinements/repeat_text", "its text"),
            ),
            share=True,
        ),
        Panel(
            "Accuracy of refinements, by draft",
            (
                Curve("refinements/accuracy_given_right_draft", "right draft", "#3f9b6c"),
                Curve("refinements/accuracy_given_wrong_draft", "wrong draft", WARN),
            ),
            share=True,
        ),
        Panel("Gain over the chosen draft", (Curve("refinements/gain_over_draft", "reward"),)),
        Panel(
            "Drafts ended early, and what the whole prompts say",
            (
                Curve("drafts/censored_share", "drafts ended early", NEUTRAL),
                Curve("drafts/accuracy", "accuracy of the others", WARN),
                Curve("drafts/whole_accuracy", "accuracy, whole prompts", DRAFTS),
            ),
            share=True,
            needs="drafts/censored_share",
        ),
        Panel(
            "Groups with a gradient",
            (Curve("groups/with_gradient", "groups"), Curve("groups/refilled", "refilled", NEUTRAL)),
        ),
        Panel(
            "Zero-std groups",
            (Curve("groups/zero_std_share", "share without a gradient"),),
            share=True,
        ),
        Panel(
            "Hint of hacking: rewarded answers that repeat the problem's expression",
            (
                Curve("hacking/drafts_expression_share", "drafts", DRAFTS),
                Curve("hacking/expression_share", "refinements", REFINEMENTS),
            ),
            share=True,
        ),
        Panel(
            "Distinct texts in a group",
            (
                Curve("hacking/drafts_distinct_texts", "drafts", DRAFTS),
                Curve("hacking/distinct_texts", "refinements", REFINEMENTS),
            ),
            share=True,
        ),
        Panel("Completion length", both("length_mean"), unit="tokens"),
        Panel(
            "Truncated and overflowed",
            (
                *both("truncated_share"),
                Curve("drafts/overflowed_share", "drafts over the prompt budget", NEUTRAL),
            ),
            share=True,
        ),
        Panel("Entropy", (Curve("policy/entropy", "entropy"),), unit="nats"),
        Panel("KL to the reference, or to the step's start", (Curve("policy/kl", "KL"),), unit="nats"),
        Panel("Clip fraction", (Curve("policy/clip_fraction", "clipped tokens"),)),
        Panel("Gradient norm", (Curve("policy/grad_norm", "before clipping"),)),
        Panel("Learning rate", (Curve("policy/lr", "learning rate", noisy=False),)),
        Panel("Loss", (Curve("policy/loss", "loss"),)),
        Panel(
            "Sampler–trainer log-prob difference",
            (
                Curve("parity/logprob_p999_abs_diff", "99.9 % quantile"),
                Curve("parity/logprob_max_abs_diff", "largest", WARN),
                Curve("parity/logprob_mean_abs_diff", "mean", DRAFTS),
            ),
            unit="nats",
            log=True,
            limit=parity_limit,
        ),
        Panel(
            "Throughput",
            (
                Curve("tokens_per_s/drafts", "drafts", DRAFTS),
                Curve("tokens_per_s/refinements", "refinements", REFINEMENTS),
                Curve("tokens_per_s/completions", "completions", REFINEMENTS),
                Curve("tokens_per_s/update", "update", "#3f9b6c"),
            ),
            unit="tokens/s",
        ),
        Panel(
            "Memory of rank 0",
            (
                Curve("memory/rss_gib", "host (RSS)", noisy=False),
                Curve("memory/step_gib", "GPU", "#3f9b6c", noisy=False),
            ),
            unit="GiB",
        ),
        Panel("Failed reward calls", (Curve("rewards/failures", "calls a step", WARN),)),
    ]


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
    """The chart over steps as an ``<svg>`` element that scales with the page."""
    axes.set_xlabel("step", fontsize=8, color=INK)
    axes.set_ylabel(unit, fontsize=8, color=INK)
    buffer = io.StringIO()
    # Text stays text (the page's own font); the salt makes the same run give the same bytes.
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": "igrpo", "font.family": "sans-serif"}
    with matplotlib.rc_context(settings):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return re.sub(r' (width|height)="[^"]*pt"', "", svg, count=2)  # it scales with the page
