"""The parent's side of one reward worker: its process, and what it is doing."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

from igrpo_mcore.config.reward_options import RewardLimits
from igrpo_mcore.rewards.environment import worker_environment
from igrpo_mcore.rewards.messages import Setup, send
from igrpo_mcore.rewards.process_marks import MARK, end_marked, marked, resident_bytes

START_LIMIT_S = 120.0
"""Seconds that importing the rewards may take; sympy from a cold network disk is slow."""
EXIT_GRACE_S = 0.5
WATCH_S = 1.0
"""Seconds between two looks at what a worker has started and holds."""


class WorkerProcess:
    """One process and what it is doing; ``deadline`` (``time.monotonic()``) bounds its next answer.

    ``mark`` is carried by all that it starts; a mark ends in a dot, so that none begins another.
    """

    def __init__(self, setup: Setup, mark: str) -> None:
        self.mark = mark
        self.connection, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "igrpo_mcore.rewards.worker", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=worker_environment(setup.limits.environment) | {MARK: mark},
                start_new_session=True,  # so that what a reward started itself ends with it
            )
        self.loaded = False
        self.job: int | None = None
        self.reward = 0
        self.retires = False
        self.given_at = 0.0
        self.watch_at = 0.0
        self.deadline = time.monotonic() + START_LIMIT_S
        self.connection.settimeout(START_LIMIT_S)
        with contextlib.suppress(OSError):  # one that is dead already shows when its answer is read
            send(self.connection, setup)

    @property
    def busy(self) -> bool:
        """Whether an answer is awaited, of a job or of its start."""
        return self.job is not None or not self.loaded

    def excess(self, limits: RewardLimits) -> str | None:
        """What is too much of the processes that this worker is the root of; None where nothing is."""
        found = marked(self.mark)
        if len(found) - 1 > limits.processes:
            return f"it started more than {limits.processes} processes"
        if limits.memory_gib is not None and sum(map(resident_bytes, found)) > limits.memory_gib * 2**30:
            return f"its processes hold more than {limits.memory_gib:g} GiB"
        return None

    def kill(self) -> None:
        """End it and all that it started."""
        self.connection.close()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        end_marked(self.mark)
        self.process.wait()

    def stop(self) -> None:
        """End at leisure: the worker exits when its socket closes."""
        self.connection.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(EXIT_GRACE_S)
        self.kill()
