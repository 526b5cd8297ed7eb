"""One job at a time in a run's folder: two would train on each other's samples and checkpoints."""

import contextlib
import fcntl
import json
import os
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import IO

from igrpo_mcore.errors import UserError, cannot_write
from igrpo_mcore.run.heartbeat import WATCH_FOLDER

LOCK_FILE = "lock"
PATIENCE_S = 20.0
"""A job that was killed a moment ago may still be giving its memory back."""
POLL_S = 0.25


class FolderLock:
    """A context manager of a run's first rank: holds ``run_folder/watch/lock`` until the process ends.

    The kernel's lock (flock), so it is gone with whoever held it, however that ended. A file system without
    such locks is used without one.
    """

    def __init__(self, run_folder: Path) -> None:
        self._path = run_folder / WATCH_FOLDER / LOCK_FILE
        self._file: IO[str] | None = None

    def __enter__(self) -> "FolderLock":
        """Raises ``UserError`` where another job holds it after ``PATIENCE_S``, or it cannot be written."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a+")
            if _taken(self._file):
                self._file.truncate(0)
                self._file.write(json.dumps({"host": socket.gethostname(), "pid": os.getpid()}))
                self._file.flush()
        except OSError as error:
            raise cannot_write(self._path, error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._file is not None
        self._file.close()


def check_not_held(run_folder: Path) -> None:
    """Before ranks start. Raises ``UserError`` where another job trains in the folder."""
    with contextlib.suppress(OSError), (run_folder / WATCH_FOLDER / LOCK_FILE).open("r+") as file:
        _taken(file)


def _taken(file: IO[str]) -> bool:
    """Take the lock; False where there are no locks. Raises ``UserError`` where another job keeps it."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                run = Path(file.name).parents[1]
                raise UserError(
                    f"{run} is being trained by {_holder(file)}: end that job, or set another run.name"
                ) from None
        except OSError:
            return False
        else:
            return True
        time.sleep(POLL_S)


def _holder(file: IO[str]) -> str:
    file.seek(0)
    try:
        holder = json.loads(file.read())
        return f"process {holder['pid']} on {holder['host']}"
    except (ValueError, KeyError, TypeError):
        return "another job"
