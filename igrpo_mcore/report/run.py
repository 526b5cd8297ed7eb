"""Everything that rank 0 leaves of a run, behind three calls: start, step, finish."""

import os
from collections.abc import Callable, Sequence
from typing import Any

from omegaconf import OmegaConf

from igrpo_mcore.config.schema import Config
from igrpo_mcore.errors import one_line
from igrpo_mcore.report.live_page import LivePage
from igrpo_mcore.report.metrics import MetricsWriter
from igrpo_mcore.report.plan_table import write_plan
from igrpo_mcore.report.progress import Progress
from igrpo_mcore.report.records import read_metrics
from igrpo_mcore.report.samples import SamplesWriter
from igrpo_mcore.run.folder import make_run_folder
from igrpo_mcore.types import PromptRollout


class RunReport:
    """The run's folder, metrics, samples, progress lines and page. Only rank 0 makes one.

    ``decode`` turns token ids into text, special tokens included. ``first_step`` above 1 resumes a
    run in its own folder: what an earlier start wrote of that step and later ones is replaced.
    Raises ``UserError`` for a folder in use or a file that cannot be written.
    """

    def __init__(self, config: Config, decode: Callable[[Sequence[int]], str], first_step: int = 1) -> None:
        layout = parallel_layout(config)
        self._layout_words = _words(layout)
        self.folder = make_run_folder(config, layout)
        self._first_step = first_step
        resolved = OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)
        assert isinstance(resolved, dict)
        self._metrics = MetricsWriter(
            self.folder, config.run, {str(key): value for key, value in resolved.items()}, first_step
        )
        self._samples = SamplesWriter(self.folder, config.run.samples_per_step, decode, first_step)
        self._progress = Progress(config.train.steps)
        self._live_page = LivePage(self.folder)

    def start(self, *more: str) -> None:
        """Say that training begins, or goes on, and on which layout; then ``more``, a line each."""
        again = f", goes on from step {self._first_step}" if self._first_step > 1 else ""
        for line in (f"{self.folder}: {self._layout_words}{again}", *more):
            self.say(line)

    def plan(self, plan: Callable[[], dict[str, Any]]) -> None:
        """Keep what was planned of a step, for the page to show beside what was measured. A run goes on
        without a plan."""
        try:
            planned = plan()
        except Exception as error:  # the planner's own defect must not cost a run
            self.say(f"no plan of this run ({one_line(error)})")
        else:
            write_plan(self.folder, planned)

    def say(self, text: str) -> None:
        """Print one line as it is."""
        self._progress.say(text)

    def step(self, step: int, rollouts: Sequence[PromptRollout], metrics: dict[str, float | None]) -> None:
        """Record one step (from 1) and print its line."""
        record: dict[str, float | None] = {"step": step, **metrics}
        self._metrics.write(record)
        self._samples.write(step, rollouts)
        self._progress.step(record)
        self._live_page.refresh()

    def finish(self, completed: bool = True) -> None:
        """Close the files and write report.html; print the closing table where the run ``completed``.

        After a failure call it with ``completed=False``: the page then shows what there is.
        """
        from igrpo_mcore.report.page import write_report  # matplotlib is slow to load, and only rank 0 draws

        self._live_page.close()
        self._metrics.close()
        self._samples.close()
        page = write_report(self.folder)
        if completed:
            self._progress.close(read_metrics(self.folder), self._layout_words)
        self._progress.say(f"report: {page}")


def parallel_layout(config: Config) -> dict[str, int]:
    """Sizes by name, in ranks: the trainer's dimensions and the rollout engines'."""
    parallel = config.parallel
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    return {
        "world_size": world_size,
        "tp": parallel.tp,
        "pp": parallel.pp,
        "cp": parallel.cp,
        "ep": parallel.ep,
        "vpp": parallel.vpp,
        "sp": int(parallel.sp),
        "dp": world_size // (parallel.tp * parallel.pp * parallel.cp),
        "rollout_tp": config.rollout.tp,
        "engines": world_size // config.rollout.tp,
    }


def _words(layout: dict[str, int]) -> str:
    sizes = [("TP", "tp"), ("PP", "pp"), ("DP", "dp"), ("CP", "cp"), ("EP", "ep"), ("VPP", "vpp")]
    shown = [
        f"{word} = {layout[name]}" for word, name in sizes if word in ("TP", "PP", "DP") or layout[name] > 1
    ]
    shown += ["SP"] if layout["sp"] else []
    ranks = "1 rank" if layout["world_size"] == 1 else f"{layout['world_size']} ranks"
    engines = "1 engine" if layout["engines"] == 1 else f"{layout['engines']} engines"
    return f"{', '.join(shown)} on {ranks}, {engines} of TP = {layout['rollout_tp']}"
