"""Worker processes that compute rewards: jobs in, verdicts out, without waiting unless asked to."""

import logging
import selectors
import time
from collections import deque
from typing import NamedTuple

from igrpo_mcore.errors import UserError
from igrpo_mcore.rewards.messages import Job, Loaded, Setup, Verdict, receive, send
from igrpo_mcore.rewards.worker_process import START_LIMIT_S, WorkerProcess
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
        for worker in list(self.processes):
            self._give(worker)
        answers, self._answers = self._answers, []
        return answers

    def _start(self) -> None:
        worker = WorkerProcess(self._setup)
        self.processes.append(worker)
        self._selector.register(worker.connection, selectors.EVENT_READ, worker)

    def _await_first_start(self, worker: WorkerProcess) -> None:
        try:
            loaded: Loaded = receive(worker.connection, worker.deadline)
        except (EOFError, OSError) as error:
            raise UserError(
                f"A reward worker ended while it imported {', '.join(self._setup.names)} (exit status "
                f"{worker.process.poll()}); its message stands above, mend the reward's module."
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
        worker.deadline = time.monotonic() + self._setup.time_limit_s
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
            message = receive(worker.connection, worker.deadline)
        except (EOFError, OSError):
            self._lost(worker, "the reward ended its process")
            return
        if isinstance(message, Loaded):
            if message.error is not None:
                self._lost(worker, message.error)
                return
            worker.loaded = True
        elif isinstance(message, Verdict) and worker.job is not None:
            self._record(worker.job, worker.reward, message)
            self._failed_starts = 0
            worker.reward += 1
            worker.deadline = time.monotonic() + self._setup.time_limit_s
            if worker.reward == len(self._setup.names):
                worker.job = None

    def _lost(self, worker: WorkerProcess, reason: str) -> None:
        """End a worker, count the call it was at, put back the rest of its job, start another."""
        self._selector.unregister(worker.connection)
        self.processes.remove(worker)
        worker.kill()
        if worker.job is not None:
            self._record(worker.job, worker.reward, Verdict(0.0, reason))
            if worker.reward + 1 < len(self._setup.names):
                self._waiting.appendleft((worker.job, worker.reward + 1))
        else:
            self._failed_starts += 1
            log.warning("a reward worker was lost outside of a call: %s", reason)
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
