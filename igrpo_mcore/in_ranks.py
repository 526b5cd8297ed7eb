"""A command that runs in all ranks: checked, then started here, or joined where a launcher started it."""

import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from igrpo_mcore.loading import loading

if TYPE_CHECKING:
    from igrpo_mcore.config.schema import Config


def in_ranks(
    command: str,
    source: Path,
    overrides: list[str] | None,
    run: Callable[["Config"], None],
) -> None:
    """Call ``run`` with the resolved options in every rank of ``command``.

    Args:
        source: a recipe, or for commands other than train a run's folder.
        overrides: further ``key=value`` options, handed to ranks that are started here.

    Raises:
        UserError: anything that is checked before a job, see ``igrpo_mcore.preflight``.
        SystemExit: where the ranks were started here, with their status.
    """
    from igrpo_mcore.config.load import load_config
    from igrpo_mcore.launch import CHECKED, in_job, start_local_ranks
    from igrpo_mcore.run.folder import config_of_run, free_name, run_dir
    from igrpo_mcore.run.folder_lock import check_not_held

    if command != "train" and source.is_dir():
        options = config_of_run(source, overrides)
    else:
        options = load_config(source, overrides)
        options.run.name = options.run.name or free_name(options.run, source.stem)
    with loading():  # after the options, whose mistakes need not wait for it
        from igrpo_mcore.preflight import local_ranks, preflight, steps_done

    requeued = int(os.environ.get("SLURM_RESTART_COUNT", "0")) > 0
    if command == "train" and requeued and steps_done(options) >= options.train.steps:
        # Slurm may requeue a job whose last node failed after the last step: nothing is left to do
        if os.environ.get("RANK", "0") == "0":
            typer.echo(f"run {options.run.name} is complete: {options.train.steps} steps")
        return
    if in_job():
        if os.environ["RANK"] == "0" and os.environ.get(CHECKED) != "1":
            preflight(options, int(os.environ["WORLD_SIZE"]), writes_run=command == "train")
        with loading():
            import igrpo_mcore.trainer  # noqa: F401
        run(options)
        return
    ranks = local_ranks(options)
    if command == "train":
        check_not_held(run_dir(options.run))
    preflight(options, ranks, writes_run=command == "train")
    os.environ[CHECKED] = "1"
    arguments = [command, str(source), *(overrides or []), f"run.name={options.run.name}"]
    raise SystemExit(start_local_ranks(ranks, arguments))


def train_rank(config: "Config") -> None:
    """One rank of `igrpo train`, alone in the run's folder and watched."""
    from igrpo_mcore.run.folder import run_dir
    from igrpo_mcore.run.folder_lock import FolderLock
    from igrpo_mcore.run.watchdog import Watchdog
    from igrpo_mcore.trainer import Trainer

    folder, rank = run_dir(config.run), int(os.environ["RANK"])
    limit = None if config.run.hang_minutes is None else 60 * config.run.hang_minutes
    alone = FolderLock(folder) if rank == 0 else nullcontext()
    with alone, Watchdog(folder, rank, int(os.environ["WORLD_SIZE"]), limit):
        Trainer(config).run()
