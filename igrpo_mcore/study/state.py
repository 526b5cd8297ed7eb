"""What is left to do of a run, from what lies in its folder."""

from enum import StrEnum
from pathlib import Path

from igrpo_mcore.errors import UserError
from igrpo_mcore.report.records import read_metrics
from igrpo_mcore.run.checkpoint_folder import CheckpointFolder
from igrpo_mcore.run.folder import CONFIG_FILE, checkpoints_dir
from igrpo_mcore.study.evaluations import evaluation_file
from igrpo_mcore.study.options import differing, flat_options, read_options, without_seed
from igrpo_mcore.study.variants import SweepRun


class State(StrEnum):
    """Of a run: not begun, begun, trained to its last step, and evaluated there."""

    new = "new"
    begun = "begun"
    trained = "trained"
    evaluated = "evaluated"


def state_of(run: SweepRun) -> State:
    """A run is trained when the checkpoint of its last step is there, and evaluated when the figures of
    that step are; then its checkpoints may be gone.

    Raises:
        UserError: the folder holds a run with other options, or no run.
    """
    folder, steps = run.folder, run.config.train.steps
    if not (folder / CONFIG_FILE).is_file():
        return State.new
    _check_same(run)
    if evaluation_file(folder, steps).is_file():
        return State.evaluated
    checkpoints = CheckpointFolder(checkpoints_dir(run.config.run))
    latest = checkpoints.latest()
    if latest is not None and checkpoints.read(latest)[0].step >= steps:
        return State.trained
    return State.begun


def steps_taken(folder: Path) -> int:
    """Steps whose metrics are written."""
    records = read_metrics(folder)
    return int(records[-1]["step"] or 0) if records else 0


def _check_same(run: SweepRun) -> None:
    """Raises ``UserError`` where the folder's run was made with options that train otherwise."""
    before, now = (without_seed(o) for o in (read_options(run.folder), flat_options(run.config)))
    # an option that has gone since is left out
    changed = differing([{name: before[name] for name in now}, now])
    if changed:
        name, (was, wanted) = next(iter(changed.items()))
        raise UserError(
            f"{run.folder} was made with {name}={was} and the sweep now has {name}={wanted}: give the sweep "
            "another name (--name), or move the folder away"
        )
