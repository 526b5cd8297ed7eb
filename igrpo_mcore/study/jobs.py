"""What a sweep has to start: each job is some commands of ``igrpo``, one after another, for one folder."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from igrpo_mcore.study.options import flat_options
from igrpo_mcore.study.state import State, state_of
from igrpo_mcore.study.sweep_file import SweepFile
from igrpo_mcore.study.variants import SweepRun

START = "-start"
"""Ends the name of a folder that `igrpo eval RECIPE` writes to."""


@dataclass(frozen=True)
class Job:
    """``commands`` are arguments of ``igrpo``. ``steps`` that the run will have taken, 0 where it is only an
    evaluation; ``remove`` is a folder that is no longer needed after them."""

    name: str
    folder: Path
    commands: tuple[tuple[str, ...], ...]
    steps: int = 0
    remove: Path | None = None

    @property
    def log(self) -> Path:
        return self.folder.parent / "logs" / f"{self.name}.log"


def program(command: Sequence[str]) -> list[str]:
    """The process of one command."""
    return [sys.executable, "-m", "igrpo_mcore", *command]


def jobs_of(sweep: SweepFile, runs: Sequence[SweepRun], every: Sequence[SweepRun] = ()) -> list[Job]:
    """The evaluations of what runs start from, then the runs, each with its evaluation; what is done already
    is left out. ``every``: all runs of the sweep, where ``runs`` are some of them and share their starts.

    Raises:
        UserError: a folder holds a run with other options.
    """
    jobs = []
    if sweep.evaluate:
        starts = starts_of(every or runs)
        for run in dict.fromkeys(starts[run.variant.name] for run in runs):
            folder = start_folder(run)
            if not (folder / "eval/step_0.json").is_file():
                command = ("eval", *run.arguments, f"run.name={run.variant.name}", "--show", "0")
                jobs.append(Job(folder.name, folder, (command,)))
    for run in runs:
        state = state_of(run)
        commands = []
        trains = state in (State.new, State.begun)
        if trains:
            commands.append(("train", *run.arguments))
        by_itself = trains and run.config.eval.every > 0  # training evaluates its last step
        if sweep.evaluate and state != State.evaluated and not by_itself:
            commands.append(("eval", str(run.folder), "--show", "0"))
        if commands:
            checkpoints = None if sweep.keep_checkpoints else run.folder / "checkpoints"
            jobs.append(Job(run.name, run.folder, tuple(commands), run.config.train.steps, checkpoints))
    return jobs


def starts_of(runs: Sequence[SweepRun]) -> dict[str, SweepRun]:
    """By variant, the first run that begins at the same weights and is evaluated on the same problems."""
    first: dict[str, SweepRun] = {}
    found: dict[str, SweepRun] = {}
    for run in runs:
        key = repr([value for name, value in flat_options(run.config).items() if _of_the_start(name)])
        found.setdefault(run.variant.name, first.setdefault(key, run))
    return found


def start_folder(run: SweepRun) -> Path:
    """Where `igrpo eval RECIPE` leaves the evaluation of what a run starts from."""
    return run.folder.parent / f"{run.variant.name}{START}"


def _of_the_start(name: str) -> bool:
    sections = ("model.path", "model.dtype", "data.", "eval.", "reward.", "rollout.max_completion_tokens")
    return name.startswith(sections)
