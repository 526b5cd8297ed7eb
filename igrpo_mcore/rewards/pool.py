"""Score completions in worker processes: a reward that hangs, raises or dies costs its own score only."""

import contextlib
import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import igrpo_mcore
from igrpo_mcore.config.schema import RewardConfig
from igrpo_mcore.errors import UserError
from igrpo_mcore.rewards.messages import Job, Loaded, Setup, Verdict, receive, send
from igrpo_mcore.rewards.options import RewardOptions, options_of
from igrpo_mcore.rewards.registry import check_name
from igrpo_mcore.run.progress import beat
from igrpo_mcore.types import Completion, Problem, Score

log = logging.getLogger(__name__)

START_LIMIT_S = 120.0
"""Seconds that importing the rewards may take; sympy from a cold network disk is slow."""
MAX_FAILED_STARTS = 3
"""Workers in a row that a pool may lose outside of a call before it stops replacing them."""
MAX_LOGGED = 20
"""Distinct failure messages logged for one reward."""
EXIT_GRACE_S = 0.5
MOST_WORKERS = 4
"""Workers by default: each imports the rewards anew (sympy for the accuracy)."""


class _Worker:
    """One process and what it is doing; ``deadline`` bounds its next answer."""

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


def default_workers() -> int:
    """The cores that this machine has for each of its ranks, at least 1 and at most ``MOST_WORKERS``: a
    worker is one busy core while an engine's completions are scored."""
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(MOST_WORKERS, max(1, len(os.sched_getaffinity(0)) // ranks))


class RewardPool:
    """``config.workers`` processes that score completions by the rewards of ``config.weights``.

    The processes import neither torch nor the trainer. ``score`` never raises for what a reward does
    and never waits longer than ``config.time_limit_s`` for one call. Use it as a context manager or
    call ``close``; a pool whose owner was killed leaves no process behind either. Without a number
    given it has ``default_workers`` processes. ``options`` of the registered rewards: none takes those of
    ``config``.

    Raises ``UserError`` for a reward that does not exist or cannot be imported.
    """

    def __init__(self, config: RewardConfig, options: RewardOptions | None = None) -> None:
        self._weights = dict(config.weights)
        self._time_limit_s = config.time_limit_s
        for name in self._weights:
            check_name(name)
        self._setup = Setup(tuple(self._weights), options or options_of(config), config.time_limit_s)
        self._logged: set[tuple[str, str]] = set()
        self._failed_starts = 0
        self._selector = selectors.DefaultSelector()
        self._workers: list[_Worker] = []
        for _ in range(config.workers or default_workers()):
            self._start_worker()
        try:
            for worker in self._workers:
                self._await_first_start(worker)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "RewardPool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every worker; the pool cannot be used afterwards. Harmless when called twice."""
        for worker in self._workers:
            worker.stop()
        self._workers = []
        self._selector.close()

    def score(self, problems: Sequence[Problem], completions: Sequence[Completion]) -> list[Score]:
        """The score of each completion (to the problem at the same place), in order."""
        run = _Run(list(zip(problems, completions, strict=True)), len(self._weights))
        while run.open_jobs:
            for worker in list(self._workers):
                self._give(worker, run)
            if not self._workers:
                run.fail_rest("no reward worker could be started again")
                break
            now = time.monotonic()
            wait = min(worker.deadline for worker in self._workers if self._busy(worker)) - now
            for key, _ in self._selector.select(max(0.0, wait)):
                if key.data in self._workers:
                    self._answer(key.data, run)
            now = time.monotonic()
            for worker in [w for w in self._workers if self._busy(w) and w.deadline <= now]:
                limit = self._time_limit_s if worker.loaded else START_LIMIT_S
                self._lost(worker, run, f"no answer within {limit:g} s")
        return [self._score(verdicts) for verdicts in run.verdicts]

    # Workers

    @staticmethod
    def _busy(worker: _Worker) -> bool:
        return worker.job is not None or not worker.loaded

    def _start_worker(self) -> _Worker:
        worker = _Worker(self._setup)
        self._workers.append(worker)
        self._selector.register(worker.connection, selectors.EVENT_READ, worker)
        return worker

    def _await_first_start(self, worker: _Worker) -> None:
        try:
            loaded: Loaded = receive(worker.connection, worker.deadline)
        except (EOFError, OSError) as error:
            raise UserError(
                f"A reward worker ended while it imported {', '.join(self._weights)} (exit status "
                f"{worker.process.poll()}); its message stands above, mend the reward's module."
            ) from error
        if loaded.error is not None:
            raise UserError(loaded.error)
        worker.loaded = True

    def _give(self, worker: _Worker, run: "_Run") -> None:
        """The next job to a worker that waits for one."""
        if not worker.loaded or worker.job is not None or not run.waiting:
            return
        worker.job, worker.reward = run.waiting.popleft()
        problem, completion = run.pairs[worker.job]
        worker.deadline = time.monotonic() + self._time_limit_s
        worker.connection.settimeout(self._time_limit_s)
        try:
            send(worker.connection, Job(problem, completion, worker.reward))
        except OSError:  # it died while it had nothing to do, which is not this reward's fault
            run.waiting.appendleft((worker.job, worker.reward))
            worker.job = None
            self._lost(worker, run, "it died while idle")

    def _answer(self, worker: _Worker, run: "_Run") -> None:
        """Read what a worker said."""
        try:
            message = receive(worker.connection, worker.deadline)
        except (EOFError, OSError):
            self._lost(worker, run, "the reward ended its process")
            return
        if isinstance(message, Loaded):
            if message.error is not None:
                self._lost(worker, run, message.error)
                return
            worker.loaded = True
        elif isinstance(message, Verdict) and worker.job is not None:
            run.record(worker.job, worker.reward, message)
            beat()
            self._failed_starts = 0
            worker.reward += 1
            worker.deadline = time.monotonic() + self._time_limit_s
            if worker.reward == len(self._weights):
                worker.job = None

    def _lost(self, worker: _Worker, run: "_Run", reason: str) -> None:
        """End a worker, count the call it was at, put back the rest of its job, start another."""
        self._selector.unregister(worker.connection)
        self._workers.remove(worker)
        worker.kill()
        if worker.job is not None:
            run.record(worker.job, worker.reward, Verdict(0.0, reason))
            if worker.reward + 1 < len(self._weights):
                run.waiting.appendleft((worker.job, worker.reward + 1))
        else:
            self._failed_starts += 1
            log.warning("a reward worker was lost outside of a call: %s", reason)
        while self._failed_starts < MAX_FAILED_STARTS:
            try:
                self._start_worker()
                break
            except OSError as error:  # no process to be had, for example
                self._failed_starts += 1
                log.warning("a reward worker could not be started: %s", error)

    # Scores

    def _score(self, verdicts: list[Verdict]) -> Score:
        parts = {name: verdict.value for name, verdict in zip(self._weights, verdicts, strict=True)}
        failures = []
        for name, verdict in zip(self._weights, verdicts, strict=True):
            if verdict.error is not None:
                failures.append(name)
                self._log_once(name, verdict.error)
        total = sum(self._weights[name] * value for name, value in parts.items())
        return Score(total=total, parts=parts, failures=tuple(failures))

    def _log_once(self, name: str, message: str) -> None:
        logged = sum(known == name for known, _ in self._logged)
        if (name, message) not in self._logged and logged < MAX_LOGGED:
            self._logged.add((name, message))
            log.warning("reward %s failed and counts as 0: %s (logged once)", name, message)


class _Run:
    """One call of ``score``: the completions, what is known of them, and what is still to do."""

    def __init__(self, pairs: list[tuple[Problem, Completion]], rewards: int) -> None:
        self.pairs = pairs
        self.rewards = rewards
        self.verdicts: list[list[Verdict]] = [[] for _ in pairs]
        self.open_jobs = len(pairs) if rewards else 0
        self.waiting: deque[tuple[int, int]] = deque((job, 0) for job in range(self.open_jobs))

    def record(self, job: int, reward: int, verdict: Verdict) -> None:
        assert len(self.verdicts[job]) == reward, "verdicts of a job come in order"
        self.verdicts[job].append(verdict)
        if len(self.verdicts[job]) == self.rewards:
            self.open_jobs -= 1

    def fail_rest(self, reason: str) -> None:
        for verdicts in self.verdicts:
            verdicts.extend([Verdict(0.0, reason)] * (self.rewards - len(verdicts)))
        self.open_jobs = 0


def _environment() -> dict[str, str]:
    """The parent's, with its module search path, so that a worker finds the user's modules too."""
    package_root = str(Path(igrpo_mcore.__file__).parent.parent)
    search_path = [*(os.path.abspath(entry) for entry in sys.path), package_root]
    return os.environ | {"PYTHONPATH": os.pathsep.join(search_path), "OMP_NUM_THREADS": "1"}
