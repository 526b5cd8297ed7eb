"""The parent's side of one reward worker: its process, and what it is doing."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import igrpo_mcore
from igrpo_mcore.rewards.messages import Setup, send

START_LIMIT_S = 120.0
"""Seconds that importing the rewards may take; sympy from a cold network disk is slow."""
EXIT_GRACE_S = 0.5


class WorkerProcess:
    """One process and what it is doing; ``deadline`` (``time.monotonic()``) bounds its next answer."""

    def __init__(self, setup: Setup) -> None:
        self.connection, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "igrpo_mcore.rewards.worker", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=_environment(),
                start_new_session=True,  # so that what a reward started itself ends with it
            )
        self.loaded = False
        self.job: int | None = None
        self.reward = 0
        self.deadline = time.monotonic() + START_LIMIT_S
        self.connection.settimeout(START_LIMIT_S)
        with contextlib.suppress(OSError):  # one that is dead already shows when its answer is read
            send(self.connection, setup)

    @property
    def busy(self) -> bool:
        """Whether an answer is awaited, of a job or of its start."""
        return self.job is not None or not self.loaded

    def kill(self) -> None:
        self.connection.close()
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End at leisure: the worker exits when its socket closes."""
        self.connection.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(EXIT_GRACE_S)
        self.kill()


def _environment() -> dict[str, str]:
    """The parent's, with its module search path, so that a worker finds the user's modules too."""
    package_root = str(Path(igrpo_mcore.__file__).parent.parent)
    search_path = [*(os.path.abspath(entry) for entry in sys.path), package_root]
    return os.environ | {"PYTHONPATH": os.pathsep.join(search_path), "OMP_NUM_THREADS": "1"}
