"""What rank 0 says while a run goes on: a line a step, and a table at the end."""

import datetime
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from igrpo_mcore.report.summary import Change, Record, summarize, values_of

ETA_WINDOW = 20
"""Steps over which the time left is estimated."""


class Progress:
    """Prints a line a step; coloured on a terminal, plain elsewhere. Only rank 0 makes one."""

    def __init__(self, steps: int, console: Console | None = None) -> None:
        self._steps = steps
        self._console = console or Console(highlight=False)
        self._recent: list[Record] = []

    def say(self, text: str) -> None:
        """Print one line as it is."""
        self._console.print(text, soft_wrap=True, markup=False)

    def step(self, metrics: Record) -> None:
        """Print the line of one step from its metrics; what was not measured shows as –."""
        self._recent = [*self._recent, metrics][-ETA_WINDOW:]
        self._console.print(self._line(metrics), soft_wrap=True)

    def close(self, records: Sequence[Record], layout: str) -> None:
        """Print the closing table over all steps; ``layout`` is the parallel layout in words."""
        self._console.print(closing_table(records, layout))

    def _line(self, metrics: Record) -> Text:
        step = int(metrics["step"] or 0)
        line = Text(f"step {step:>{len(str(self._steps))}}/{self._steps}", style="bold")
        shown = [
            ("drafts", number(metrics.get("drafts/reward_mean"), ".3f"), "cyan"),
            ("refinements", number(metrics.get("refinements/reward_mean"), ".3f"), "green"),
            ("zero-std", number(metrics.get("groups/zero_std_share"), ".0%"), ""),
            ("entropy", number(metrics.get("policy/entropy"), ".3f"), ""),
            ("grad", number(metrics.get("policy/grad_norm"), ".2e"), ""),
            ("Δlogp", number(metrics.get("parity/logprob_max_abs_diff"), ".1e"), ""),
            ("", number(metrics.get("time/step_s"), ".1f") + " s", ""),
            ("left", self._time_left(step), ""),
        ]
        for label, value, style in shown:
            line.append("  ").append(f"{label} " if label else "", style="dim").append(value, style=style)
        if "eval/accuracy" in metrics:
            line.append("  held-out ", style="dim").append(
                number(metrics["eval/accuracy"], ".3f"), style="bold"
            )
        failures = metrics.get("rewards/failures")
        if failures:
            line.append(f"  failed reward calls: {failures:.0f}", style="red")
        return line

    def _time_left(self, step: int) -> str:
        seconds = values_of(self._recent, "time/step_s")
        if not seconds:
            return "–"
        left = (self._steps - step) * sum(seconds) / len(seconds)
        return str(datetime.timedelta(seconds=round(left)))


def closing_table(records: Sequence[Record], layout: str) -> Table:
    """Rewards and zero-std groups of the first and the last fifth of the steps, parity and seconds."""
    summary = summarize(records)
    table = Table(title=f"{summary.steps} steps, {layout}", title_justify="left", title_style="bold")
    table.add_column("")
    table.add_column(_steps_word("first", summary.fifth), justify="right")
    table.add_column(_steps_word("last", summary.fifth), justify="right")
    table.add_column("change", justify="right")
    table.add_row("mean refinement reward", *_change(summary.refinements, ".3f"))
    table.add_row("mean draft reward (single-shot)", *_change(summary.drafts, ".3f"))
    table.add_row("share of zero-std groups", *_change(summary.zero_std, ".3f"), end_section=True)
    table.add_row("largest sampler–trainer log-prob difference", "", number(summary.parity, ".2e"), "")
    for phase, seconds in summary.seconds.items():
        table.add_row(f"seconds in {phase.replace('_', ' ')}", "", f"{seconds:.1f}", "")
    table.add_row("seconds in all steps", "", f"{summary.step_seconds:.1f}", "")
    return table


def number(value: float | None, spec: str) -> str:
    """A number by a format spec, – where it was not measured."""
    return "–" if value is None else format(value, spec)


def _steps_word(which: str, count: int) -> str:
    return f"{which} {count} steps" if count > 1 else f"{which} step"


def _change(change: Change, spec: str) -> tuple[str, str, str]:
    return number(change.first, spec), number(change.last, spec), number(change.difference, "+" + spec)
