"""What a sweep says while it goes on: a table on a terminal, a line a change elsewhere."""

import datetime
import time
from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.table import Table

from igrpo_mcore.report.progress import number
from igrpo_mcore.report.records import read_metrics
from igrpo_mcore.report.summary import summarize
from igrpo_mcore.study.local import Entry, Outcome

SHOWN_DONE, SHOWN_WAITING = 5, 3
"""Rows of a terminal's table for the last jobs done and the next ones."""
REDRAW_S = 2.0
STYLES = {Outcome.done: "green", Outcome.failed: "red", Outcome.running: "bold", Outcome.stopped: "yellow"}


class SweepProgress:
    """Shows the jobs of a sweep; ``show`` is what ``LocalRuns`` calls."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        self._live: Live | None = None
        self._entries: Sequence[Entry] = ()
        self._drawn = -REDRAW_S

    def __enter__(self) -> "SweepProgress":
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live:
            self._live.stop()

    def watch(self, entries: Sequence[Entry]) -> None:
        """The jobs to show."""
        self._entries = entries

    def show(self, changed: Entry | None) -> None:
        """Draw the table again, or print the line of the job whose outcome changed."""
        if self._live:
            now = time.monotonic()
            if changed is not None or now - self._drawn >= REDRAW_S:
                self._drawn = now
                self._live.update(table(self._entries), refresh=True)
        elif changed is not None:
            done = sum(entry.outcome == Outcome.done for entry in self._entries)
            line = f"[{done}/{len(self._entries)}] {changed.job.name}: {changed.outcome}"
            if changed.outcome != Outcome.running:
                line += f" after {_duration(changed.seconds)}"
            self._console.print(f"{line}{_why(changed)}", soft_wrap=True, markup=False)


def table(entries: Sequence[Entry]) -> Table:
    """A row a job: outcome, steps, single-shot reward of the first and the last fifth, time. Of those done
    and of those that wait only the nearest ones."""
    by_outcome = {o: [entry for entry in entries if entry.outcome == o] for o in Outcome}
    left_out = [*by_outcome[Outcome.done][:-SHOWN_DONE], *by_outcome[Outcome.waiting][SHOWN_WAITING:]]
    counts = ", ".join(f"{len(found)} {outcome}" for outcome, found in by_outcome.items() if found)
    shown = Table(box=None, title=counts, title_justify="left", title_style="bold")
    for name in ("run", "", "steps", "single-shot reward", "time"):
        shown.add_column(name, justify="left" if name in ("run", "") else "right")
    for entry in entries:
        if entry in left_out:
            continue
        records = read_metrics(entry.job.folder) if entry.outcome != Outcome.waiting else []
        summary = summarize(records)
        drafts = f"{number(summary.drafts.first, '.3f')} → {number(summary.drafts.last, '.3f')}"
        shown.add_row(
            entry.job.name,
            entry.outcome.value + _why(entry),
            f"{summary.steps}/{entry.job.steps}" if entry.job.steps else "",
            drafts if records else "",
            _duration(entry.seconds) if entry.began else "",
            style=STYLES.get(entry.outcome, "dim"),
        )
    return shown


def _why(entry: Entry) -> str:
    if entry.outcome != Outcome.failed:
        return ""
    return f" with status {entry.status}: {entry.why} (all of it: {entry.job.log})"


def _duration(seconds: float) -> str:
    return str(datetime.timedelta(seconds=round(seconds)))
