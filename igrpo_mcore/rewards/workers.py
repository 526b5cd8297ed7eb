"""Worker processes that compute rewards: jobs in, verdicts out, without waiting unless asked to."""

import logging
import secrets
import selectors
import subprocess
import sys
import time
from collections import deque
from typing import NamedTuple

from igrpo_mcore.errors import UserError
from igrpo_mcore.rewards import process_marks
from igrpo_mcore.rewards.messages import Job, Loaded, Setup, Verdict, receive_answer, send
from igrpo_mcore.rewards.worker_process import EXIT_GRACE_S, START_LIMIT_S, WATCH_S, WorkerProcess
from igrpo_mcore.types import Completion, Problem

log = logging.getLogger(__name__)

MAX_FAILED_STARTS = 3
"""Workers in a row that may be lost outside of a call before they are no longer replaced."""


class Answer(NamedTuple):
    """What became of one reward of one job."""

    job: int
    reward: str
    verdict: Verdict


class Workers:
    """``count`` processes with the rewards of ``setup``. Every submitted job gets one answer a reward.

    They register with ``selector``, whose other files the owner may add: ``advance`` returns when one of
    them can be read too. Raises ``UserError`` for a reward that cannot be imported.
    """

    def __init__(self, setup: Setup, count: int, selector: selectors.BaseSelector) -> None:
        self._setup, self._selector = setup, selector
        self._failed_starts = 0
        self._pairs: dict[int, tuple[Problem, Completion]] = {}
        self._waiting: deque[tuple[int, int]] = deque()  # job and its first reward that is not known
        self._answers: list[Answer] = []
        self.processes: list[WorkerProcess] = []
        self._mark, self._started = secrets.token_hex(8), 0
        # ends what is left where this process dies without closing: its pipe ends with us
        self._undertaker = subprocess.Popen(
            [sys.executable, "-I", process_marks.__file__, self._mark],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env={},
            start_new_session=True,
        )
        try:
            for _ in range(count):
                self._start()
            for worker in self.processes:
                self._await_first_start(worker)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End every process; harmless when called twice."""
        for worker in self.processes:
            worker.stop()
        self.processes = []
        assert self._undertaker.stdin is not None
        self._undertaker.stdin.close()
        try:
            self._undertaker.wait(10 * EXIT_GRACE_S)
        except subprocess.TimeoutExpired:
            self._undertaker.kill()
            self._undertaker.wait()

    def submit(self, job: int, problem: Problem, completion: Completion) -> None:
        """Hand over a job under a number of its own; a worker that is free begins at once."""
        self._pairs[job] = problem, completion
        self._waiting.append((job, 0))
        for worker in list(self.processes):
            self._give(worker)

    def advance(self, timeout: float) -> list[Answer]:
        """The answers there are, waiting at most ``timeout`` seconds for something to happen.

        Call it often: what runs over its time limit is ended here, and what waits is handed out here.
        """
        for worker in list(self.processes):
            self._give(worker)
        if self._pairs and not self.processes:
            self._fail_all("no reward worker could be started again")
        now = time.monotonic()
        deadlines = [worker.deadline for worker in self.processes if worker.busy]
        deadlines += [worker.watch_at for worker in self.processes if worker.job is not None]
        wait = 0.0 if self._answers else min([timeout, *(deadline - now for deadline in deadlines)])
        for _ in self._setup.names:  # all of a job's answers may be there by now
            for key, _ in self._selector.select(max(0.0, wait)):
                if key.data in self.processes:
                    self._read(key.data)
            wait = 0.0
        now = time.monotonic()
        for worker in [w for w in self.processes if w.busy and w.deadline <= now]:
            limit = self._setup.time_limit_s if worker.loaded else START_LIMIT_S
            self._lost(worker, f"no answer within {limit:g} s")
        for worker in [w for w in self.processes if w.job is not None and w.watch_at <= now]:
            self._watch(worker, now)
        for worker in list(self.processes):
            self._give(worker)
        answers, self._answers = self._answers, []
        return answers

    def _start(self) -> None:
        self._started += 1
        worker = WorkerProcess(self._setup, f"{self._mark}.{self._started}.")
        self.processes.append(worker)
        self._selector.register(worker.connection, selectors.EVENT_READ, worker)

    def _await_first_start(self, worker: WorkerProcess) -> None:
        try:
            loaded = receive_answer(worker.connection, worker.deadline)
        except (EOFError, OSError, ValueError) as error:
            raise UserError(
                f"A reward worker ended while it imported {', '.join(self._setup.names)} (exit status "
                f"{worker.process.poll()}); its message stands above, mend the reward's module, or raise "
                f"reward.limits.memory_gib={self._setup.limits.memory_gib} where it imports a large library."
            ) from error
        if loaded.error is not None:
            raise UserError(loaded.error)
        worker.loaded = True

    def _give(self, worker: WorkerProcess) -> None:
        """The next job to a worker that waits for one."""
        if worker.busy or not self._waiting:
            return
        worker.job, worker.reward = self._waiting.popleft()
        problem, completion = self._pairs[worker.job]
        worker.given_at = time.monotonic()
        worker.deadline = worker.given_at + self._setup.time_limit_s
        worker.connection.settimeout(self._setup.time_limit_s)
        try:
            send(worker.connection, Job(problem, completion, worker.reward))
        except OSError:  # it died while it had nothing to do, which is not this reward's fault
            self._waiting.appendleft((worker.job, worker.reward))
            worker.job = None
            self._lost(worker, "it died while idle")

    def _read(self, worker: WorkerProcess) -> None:
        """Read what a worker said."""
        try:
            message = receive_answer(worker.connection, worker.deadline)
        except ValueError as error:
            self._lost(worker, f"the reward's process gave {error}")
            return
        except (EOFError, OSError):
            self._lost(worker, "the reward ended its process")
            return
        if isinstance(message, Loaded):
            if message.error is not None:
                self._lost(worker, message.error)
                return
            worker.loaded = True
        elif worker.job is not None:
            self._record(worker.job, worker.reward, message)
            self._failed_starts = 0
            worker.reward += 1
            worker.deadline = time.monotonic() + self._setup.time_limit_s
            worker.retires |= message.retire
            if worker.reward == len(self._setup.names):
                worker.job = None
                if worker.retires:
                    self._end(worker)
                    self._start_another()

    def _watch(self, worker: WorkerProcess, now: float) -> None:
        """Look at what a worker holds and has started. What is too much is the fault of a call that has gone
        on for a while; one that has just begun may finish before its worker is replaced."""
        excess = worker.excess(self._setup.limits)
        if excess and now - worker.given_at > WATCH_S / 2:
            self._lost(worker, excess)
        worker.retires |= excess is not None
        worker.watch_at = now + (WATCH_S / 2 if excess else WATCH_S)

    def _lost(self, worker: WorkerProcess, reason: str) -> None:
        """End a worker, count the call it was at, put back the rest of its job, start another."""
        self._end(worker)
        if worker.job is not None:
            self._record(worker.job, worker.reward, Verdict(0.0, reason))
            if worker.reward + 1 < len(self._setup.names):
                self._waiting.appendleft((worker.job, worker.reward + 1))
        else:
            self._failed_starts += 1
            log.warning("a reward worker was lost outside of a call: %s", reason)
        self._start_another()

    def _end(self, worker: WorkerProcess) -> None:
        self._selector.unregister(worker.connection)
        self.processes.remove(worker)
        worker.kill()

    def _start_another(self) -> None:
        while self._failed_starts < MAX_FAILED_STARTS:
            try:
                self._start()
                break
            except OSError as error:  # no process to be had, for example
                self._failed_starts += 1
                log.warning("a reward worker could not be started: %s", error)

    def _record(self, job: int, reward: int, verdict: Verdict) -> None:
        self._answers.append(Answer(job, self._setup.names[reward], verdict))
        if reward + 1 == len(self._setup.names):
            del self._pairs[job]

    def _fail_all(self, reason: str) -> None:
        """Every job is waiting: there is no worker that could be at one."""
        while self._waiting:
            job, first = self._waiting.popleft()
            for reward in range(first, len(self._setup.names)):
                self._record(job, reward, Verdict(0.0, reason))
