"""Where a run keeps its checkpoints: a folder a step, there only when it is whole."""

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from igrpo_mcore.config.schema import DType
from igrpo_mcore.errors import UserError, one_line
from igrpo_mcore.run.checksums import digest_of, write_manifest
from igrpo_mcore.run.kill_points import kill_point

POSITION_FILE = "position.json"
EVALUATION_FILE = "evaluation.json"
"""Held-out accuracy of a checkpoint's weights, where they were evaluated before it was written."""
_NAME = re.compile(r"step_(\d{6,})")


@dataclass(frozen=True)
class Position:
    """Where a run stands: ``step`` steps done, ``problems`` drawn from the data, ``updates`` taken."""

    step: int
    problems: int
    updates: int


def checkpoint_bytes(parameters: int, dtype: DType) -> int:
    """Bytes of one checkpoint: parameters in ``dtype``, their fp32 main copy and two moments."""
    return parameters * (12 + (4 if dtype == DType.float32 else 2))


class CheckpointFolder:
    """``root`` (a run's ``checkpoints``) and the ``keep`` newest of what is in it; with ``keep_best`` also
    the one of the best held-out accuracy.

    A checkpoint is written under a name of its own and renamed when everything is on the disk, so
    that a job killed at any moment leaves whole checkpoints only.
    """

    def __init__(self, root: Path, keep: int = 1, keep_best: bool = False) -> None:
        self.root, self.keep, self.keep_best = root, keep, keep_best
        self._accuracies: dict[int, float] = {}
        self.note = ""
        """What there is to say of checkpoints that were passed over; empty: nothing."""

    def path(self, step: int) -> Path:
        """The folder of a published checkpoint."""
        return self.root / f"step_{step:06d}"

    def partial(self, step: int) -> Path:
        """The folder it is written in."""
        return self.root / f".step_{step:06d}.partial"

    def all(self) -> list[Path]:
        """Published checkpoints, oldest first."""
        if not self.root.is_dir():
            return []
        found = [path for path in self.root.iterdir() if _NAME.fullmatch(path.name)]
        return sorted(found, key=_step_of)

    def latest(self) -> Path | None:
        return next(reversed(self.all()), None)

    def evaluated(self, step: int, accuracy: float) -> None:
        """Remember the held-out accuracy of ``step``; a checkpoint of it is published with the figure."""
        self._accuracies[step] = accuracy

    def accuracy(self, checkpoint: Path) -> float | None:
        """Held-out accuracy of a published checkpoint; None where it was not evaluated."""
        try:
            return float(json.loads((checkpoint / EVALUATION_FILE).read_text())["accuracy"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UserError(
                f"{checkpoint / EVALUATION_FILE} is damaged ({one_line(error)}); remove that file"
            ) from error

    def best(self) -> Path | None:
        """The published checkpoint of the best held-out accuracy, the earliest of equal ones; None where
        none was evaluated."""
        found = [(self.accuracy(path), path) for path in self.all()]
        known = [(accuracy, path) for accuracy, path in found if accuracy is not None]
        return max(known, key=lambda pair: pair[0])[1] if known else None

    def last_step(self) -> int:
        """The step of the newest checkpoint that says where it stands, 0 where there is no checkpoint.

        Raises:
            UserError: none of them does.
        """
        problem = None
        for checkpoint in reversed(self.all()):
            try:
                return self.read(checkpoint)[0].step
            except UserError as error:
                problem = problem or error
        if problem:
            raise problem
        return 0

    def pass_over(self, checkpoint: Path, why: str) -> None:
        """Take a damaged checkpoint out of the way of the one before it; its files stay. One rank only."""
        aside = checkpoint.with_name(f"damaged_{checkpoint.name}")
        if aside.exists():
            shutil.rmtree(aside)
        checkpoint.rename(aside)
        self.note = (
            f"{checkpoint.name} is damaged ({why}), so the run goes on from the one before; see {aside}"
        )

    def oldest_step(self) -> int:
        """The step of the oldest of the ``keep`` newest, which a run may have to go back to; 0 where there is
        none."""
        kept = self.all()[-self.keep :]
        return _step_of(kept[0]) if kept else 0

    def begin(self, step: int) -> None:
        """Make the folder to write in, and remove what killed jobs left half written."""
        for stale in self.root.glob(".step_*"):
            shutil.rmtree(stale)
        self.partial(step).mkdir(parents=True)
        kill_point("checkpoint_begun", step)

    def publish(
        self, position: Position, layout: dict[str, int], digests: Mapping[str, str] | None = None
    ) -> None:
        """Give the written folder its name, then remove the oldest beyond ``keep``. One rank only.

        ``digests`` are the checksums of files that were taken already; those of the others are taken here.
        """
        partial, final = self.partial(position.step), self.path(position.step)
        (partial / POSITION_FILE).write_text(json.dumps({**asdict(position), "layout": layout}) + "\n")
        if position.step in self._accuracies:
            accuracy = {"accuracy": self._accuracies[position.step]}
            (partial / EVALUATION_FILE).write_text(json.dumps(accuracy) + "\n")
        known = digests or {}
        others = [path for path in partial.iterdir() if path.name not in known]
        write_manifest(partial, {**known, **{path.name: digest_of(path) for path in others}})
        for file in partial.iterdir():
            _flush(file)
        _flush(partial)
        if final.exists():  # a run that went back to an earlier checkpoint comes by again
            self._remove(final)
        partial.rename(final)
        _flush(self.root)
        kill_point("checkpoint_named", position.step)
        best = self.best() if self.keep_best else None
        for old in self.all()[: -self.keep]:
            if old != best:
                self._remove(old)
        kill_point("checkpoint_published", position.step)

    def read(self, checkpoint: Path) -> tuple[Position, dict[str, int]]:
        """Position and writing layout of a published checkpoint.

        Raises:
            UserError: the file that says so is missing or damaged.
        """
        try:
            found = json.loads((checkpoint / POSITION_FILE).read_text())
            layout = found.pop("layout")
            position = Position(**found)
            if not all(isinstance(value, int) and value >= 0 for value in asdict(position).values()):
                raise ValueError(found)
            return position, layout
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(
                f"{checkpoint} is no whole checkpoint ({POSITION_FILE} is missing or damaged): remove it to "
                "go on from the one before"
            ) from error

    def cannot_write(self, step: int, error: Exception) -> UserError:
        """The error to raise where a checkpoint could not be written."""
        latest = self.latest()
        kept = f"{latest.name} is whole" if latest else "there is none before it"
        last_line = str(error).strip().rpartition("\n")[2]  # torch's begin with a traceback
        reason = _reason_of_system(error) or last_line or type(error).__name__
        return UserError(
            f"the checkpoint of step {step} could not be written in {self.root} ({reason}; {kept}): free "
            "space or permissions there, then start the run again"
        )

    def _remove(self, checkpoint: Path) -> None:
        # renamed first: a half removed checkpoint must not look like a whole one
        doomed = checkpoint.with_name(f".{checkpoint.name}.removed")
        checkpoint.rename(doomed)
        shutil.rmtree(doomed)


def _reason_of_system(error: BaseException | None) -> str | None:
    """What the operating system said first: torch's writer fails once more while it closes the file."""
    reason = None
    while error is not None:
        reason = getattr(error, "strerror", None) or reason
        error = error.__cause__ or error.__context__
    return reason


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step_"))


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
