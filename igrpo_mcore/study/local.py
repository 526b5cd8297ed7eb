"""A sweep on this machine: its jobs one after another, or some at a time."""

import contextlib
import fcntl
import shutil
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import IO

import psutil

from igrpo_mcore.errors import cannot_write
from igrpo_mcore.run.stop_signal import REQUEUE_STATUS
from igrpo_mcore.study.jobs import Job, program

POLL_S = 0.5


class Outcome(StrEnum):
    """Of a job; ``elsewhere``: another process of a sweep holds its folder."""

    waiting = "waiting"
    running = "running"
    done = "done"
    failed = "failed"
    stopped = "stopped"
    elsewhere = "runs elsewhere"


@dataclass(eq=False)
class Entry:
    """A job with what became of it; ``seconds`` since it began, ``why`` it failed."""

    job: Job
    outcome: Outcome = Outcome.waiting
    command: int = 0
    status: int | None = None
    began: float = 0.0
    seconds: float = 0.0
    why: str = ""
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    lock: IO[bytes] | None = field(default=None, repr=False)


class LocalRuns:
    """Runs ``jobs``, ``at_a_time`` of them. One that fails is kept in mind and the others go on.

    SIGINT and SIGTERM ask the running ones to stop with a checkpoint; a second one ends them. ``changed``
    is called when an outcome is another, and with None every ``POLL_S`` seconds.
    """

    def __init__(self, jobs: Sequence[Job], at_a_time: int, changed: Callable[[Entry | None], None]) -> None:
        self.entries = [Entry(job) for job in jobs]
        self._at_a_time, self._changed = at_a_time, changed
        self._asked_to_stop = 0

    def run(self) -> list[Entry]:
        """Everything, to the end; every job with its outcome.

        Raises:
            UserError: a log cannot be written.
        """
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self._ask_to_stop) for number in numbers}
        waiting = deque(self.entries)
        running: list[Entry] = []
        try:
            while running or (waiting and not self._asked_to_stop):
                while waiting and len(running) < self._at_a_time and not self._asked_to_stop:
                    entry = waiting.popleft()
                    self._begin(entry)
                    running += [entry] if entry.outcome == Outcome.running else []
                time.sleep(POLL_S)
                for entry in running:
                    self._look(entry)
                running = [entry for entry in running if entry.outcome == Outcome.running]
                self._changed(None)
        finally:
            for entry in running:
                self._signal(entry, signal.SIGKILL)
            for number, handler in before.items():
                signal.signal(number, handler)
        return self.entries

    @property
    def stopped(self) -> bool:
        """Whether a signal ended the sweep."""
        return self._asked_to_stop > 0

    def _begin(self, entry: Entry) -> None:
        log = entry.job.log
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            entry.lock = log.with_suffix(".lock").open("wb")
        except OSError as error:
            raise cannot_write(log, error) from error
        try:
            # the child inherits it, so that a run whose sweep was killed is not started a second time
            fcntl.flock(entry.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            entry.outcome = Outcome.elsewhere
        else:
            entry.outcome, entry.began = Outcome.running, time.monotonic()
            self._start(entry)
        self._changed(entry)

    def _start(self, entry: Entry) -> None:
        assert entry.lock is not None
        with entry.job.log.open("ab") as log:
            entry.process = subprocess.Popen(
                program(entry.job.commands[entry.command]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(entry.lock.fileno(),),
                start_new_session=True,  # a terminal's Ctrl-C is for us, who ask for a checkpoint
            )

    def _look(self, entry: Entry) -> None:
        assert entry.process is not None
        entry.seconds = time.monotonic() - entry.began
        entry.status = entry.process.poll()
        if entry.status is None:
            return
        if entry.status == 0:
            entry.command += 1
            if entry.command < len(entry.job.commands) and not self._asked_to_stop:
                self._start(entry)
                return
        if entry.command == len(entry.job.commands):
            entry.outcome = Outcome.done
            if entry.job.remove:
                shutil.rmtree(entry.job.remove, ignore_errors=True)
        elif self._asked_to_stop or entry.status == REQUEUE_STATUS:
            entry.outcome = Outcome.stopped
        else:
            entry.outcome, entry.why = Outcome.failed, _last_words(entry.job)
        assert entry.lock is not None
        entry.lock.close()
        self._changed(entry)

    def _ask_to_stop(self, number: int, frame: object) -> None:
        self._asked_to_stop += 1
        for entry in self.entries:
            self._signal(entry, signal.SIGTERM if self._asked_to_stop == 1 else signal.SIGKILL)

    @staticmethod
    def _signal(entry: Entry, number: signal.Signals) -> None:
        """SIGTERM to the process that starts the ranks, which asks them; SIGKILL to the ranks as well."""
        process = entry.process
        if process is None or process.poll() is not None:
            return
        if number == signal.SIGKILL:
            with contextlib.suppress(psutil.Error):
                for rank in psutil.Process(process.pid).children(recursive=True):
                    rank.kill()
        process.send_signal(number)


def _last_words(job: Job) -> str:
    """What a failed command said last of itself, else its last line."""
    lines = [line for line in job.log.read_text(errors="replace").splitlines() if line.strip()]
    own = [line for line in lines[-40:] if line.startswith("igrpo")]
    return (own or lines or ["it said nothing"])[-1]
