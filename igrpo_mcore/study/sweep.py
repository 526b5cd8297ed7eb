"""``igrpo sweep``: everything is resolved and checked, then run, or handed to Slurm."""

import fnmatch
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from igrpo_mcore.errors import UserError
from igrpo_mcore.launch import in_job
from igrpo_mcore.loading import loading
from igrpo_mcore.run.stop_signal import REQUEUE_STATUS
from igrpo_mcore.study.budget import budget_note
from igrpo_mcore.study.jobs import Job, jobs_of
from igrpo_mcore.study.local import LocalRuns, Outcome
from igrpo_mcore.study.manifest import write_manifest
from igrpo_mcore.study.options import flat_options
from igrpo_mcore.study.progress import SweepProgress
from igrpo_mcore.study.slurm_array import array_script, submit
from igrpo_mcore.study.state import State, state_of
from igrpo_mcore.study.sweep_file import SweepFile, read_sweep
from igrpo_mcore.study.variants import SweepRun, runs_of


def run_sweep(
    file: Path,
    overrides: Sequence[str] = (),
    *,
    name: str | None = None,
    root: Path = Path("runs"),
    only: str | None = None,
    at_a_time: int | None = None,
    slurm: bool = False,
    dry: bool = False,
) -> int:
    """Run what a sweep's file asks for and is not done yet.

    Args:
        overrides: further ``key=value`` options of every run.
        name: of the sweep's folder in ``root``; none takes the file's.
        only: a pattern as of a shell; runs whose names do not match wait for another time.
        at_a_time: runs at once; none is one here, and all with Slurm.
        dry: print what would be done and start nothing.

    Returns:
        0 when all is done (or submitted), 1 where a run failed, 75 where a signal ended it.

    Raises:
        UserError: anything wrong with the file or with any run, before one starts.
    """
    if in_job():
        raise UserError("igrpo sweep starts ranks itself: call it without torchrun or srun")
    if at_a_time is not None and at_a_time < 1:
        raise UserError(f"--jobs {at_a_time} must be at least 1")
    sweep = read_sweep(file)
    folder = root / (name or file.stem)
    every = runs_of(sweep, folder, file.parent, tuple(overrides))
    runs = [run for run in every if only is None or fnmatch.fnmatch(run.name, only)]
    if not runs:
        names = [run.name for run in every]
        if len(names) > 5:
            names[4:] = [f"{len(names) - 4} more (--dry-run lists them)"]
        raise UserError(f"--only {only} leaves no run; they are called {', '.join(names)}")
    console = Console(highlight=False)
    note = budget_note(every, must_be_equal=sweep.equal_budget)
    jobs = jobs_of(sweep, runs, every)
    if slurm:  # the node that submits need not have what is on the hub; the libraries read this when imported
        os.environ["HF_HUB_OFFLINE"] = "1"
    with loading():
        check(sweep, runs, slurm=slurm)
    if not dry:
        write_manifest(folder, every)
    done = len(runs) - sum(job.steps > 0 for job in jobs)
    say(console, f"{folder}: {len(runs)} runs, {done} of them done, {note}")
    if slurm:
        return _to_slurm(console, sweep, folder, runs, at_a_time, dry)
    if dry:
        for job in jobs:
            for command in job.commands:
                say(console, shlex.join(["igrpo", *command]))
        return 0
    return _here(console, jobs, at_a_time or 1)


def check(sweep: SweepFile, runs: Sequence[SweepRun], *, slurm: bool) -> None:
    """Preflight of every variant, once for those that only train differently. For ``slurm`` what is on the
    hub and not here is left to the jobs, and so are disks.

    Raises:
        UserError: naming the variant and what its run would be refused for.
    """
    from igrpo_mcore.data.problems import held_out_problems
    from igrpo_mcore.dry_run import checked
    from igrpo_mcore.preflight import check_prompts, local_ranks, preflight

    seen = set()
    for run in runs:
        if state_of(run) in (State.trained, State.evaluated):
            continue
        sections = ("objective.", "optimizer.", "train.", "parity.", "run.")
        key = repr([item for item in flat_options(run.config).items() if not item[0].startswith(sections)])
        if key in seen:
            continue
        seen.add(key)
        try:
            if slurm:
                checked(run.config, local_ranks(run.config))
                continue
            preflight(run.config, local_ranks(run.config))
            if sweep.evaluate:
                check_prompts(run.config, held_out_problems(run.config))
        except UserError as error:
            raise UserError(f"variant {run.variant.name}: {error}") from error


def _here(console: Console, jobs: Sequence[Job], at_a_time: int) -> int:
    with SweepProgress(console) as progress:
        local = LocalRuns(jobs, at_a_time, progress.show)
        progress.watch(local.entries)
        entries = local.run()
    failed = [entry for entry in entries if entry.outcome == Outcome.failed]
    for entry in failed:
        say(console, f"failed: {entry.job.name} with status {entry.status}: {entry.why}; see {entry.job.log}")
    elsewhere = [entry.job.name for entry in entries if entry.outcome == Outcome.elsewhere]
    if elsewhere:
        say(console, f"another process runs {', '.join(elsewhere)}")
    if any(entry.outcome in (Outcome.stopped, Outcome.waiting) for entry in entries):
        say(console, "stopped on request; the same command goes on from there")
        return REQUEUE_STATUS
    done = sum(entry.outcome == Outcome.done for entry in entries)
    say(console, f"{done} of {len(entries)} jobs done, {len(failed)} failed")
    return 1 if failed else 0


def _to_slurm(
    console: Console,
    sweep: SweepFile,
    folder: Path,
    runs: Sequence[SweepRun],
    at_a_time: int | None,
    dry: bool,
) -> int:
    left = [run for run in runs if state_of(run) in (State.new, State.begun)]
    later = "`igrpo sweep` without --slurm evaluates what is trained" if sweep.evaluate else ""
    if not left:
        say(console, f"every run is trained already; nothing to submit{later and '; '}{later}")
        return 0
    script = array_script(folder.name, left, sweep.slurm, at_a_time)
    if dry:
        console.print(script, soft_wrap=True, markup=False)
        return 0
    say(console, f"array {submit(folder, script)}: {len(left)} runs{later and '; '}{later}")
    return 0


def say(console: Console, text: str) -> None:
    console.print(text, soft_wrap=True, markup=False)
