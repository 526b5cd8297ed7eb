"""Score completions away from the trainer: a reward that hangs, raises or dies costs its own score only."""

import itertools
import logging
import os
import selectors
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from types import TracebackType

from igrpo_mcore.config.schema import RewardConfig
from igrpo_mcore.rewards.judge import Judge
from igrpo_mcore.rewards.messages import Setup, Verdict
from igrpo_mcore.rewards.options import RewardOptions, options_of
from igrpo_mcore.rewards.registry import JUDGE, check_name
from igrpo_mcore.rewards.workers import Workers
from igrpo_mcore.run.progress import beat
from igrpo_mcore.types import Completion, Problem, Score

log = logging.getLogger(__name__)

MAX_LOGGED = 20
"""Distinct failure messages logged for one reward."""
MOST_WORKERS = 4
"""Workers by default: each imports the rewards anew (sympy for the accuracy)."""


def default_workers() -> int:
    """The cores that this machine has for each of its ranks, at least 1 and at most ``MOST_WORKERS``: a
    worker is one busy core while an engine's completions are scored."""
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(MOST_WORKERS, max(1, len(os.sched_getaffinity(0)) // ranks))


class RewardPool:
    """``config.workers`` processes that score completions by the rewards of ``config.weights``.

    ``score`` waits for all its scores. ``submit`` hands over one completion and ``poll`` or ``wait`` give
    the scores that are there since, in the order in which they were finished; a score itself does not
    depend on that order or on which worker computed it. ``poll`` must be called often while anything is
    ``pending`` (each decoding step is often enough): workers get their next job there.

    The processes import neither torch nor the trainer. Nothing here raises for what a reward does, and no
    call takes longer than ``config.time_limit_s``. Use it as a context manager or call ``close``; a pool
    whose owner was killed leaves no process behind either. Without a number given it has
    ``default_workers`` processes. ``options`` of the registered rewards: none takes those of ``config``.

    Not for several threads. Raises ``UserError`` for a reward that does not exist or cannot be imported.
    """

    def __init__(self, config: RewardConfig, options: RewardOptions | None = None) -> None:
        self._weights = dict(config.weights)
        for name in self._weights:
            check_name(name)
        self._numbers = itertools.count()
        self._open: dict[int, _Job] = {}
        self._finished: list[tuple[Hashable, Score]] = []
        self._logged: set[tuple[str, str]] = set()
        self._selector = selectors.DefaultSelector()
        self._judge: Judge | None = None
        self._workers: Workers | None = None
        local = tuple(name for name in self._weights if name != JUDGE)
        try:
            if local:
                setup = Setup(local, options or options_of(config), config.time_limit_s, config.limits)
                self._workers = Workers(setup, config.workers or default_workers(), self._selector)
            if JUDGE in self._weights:
                self._judge = Judge(config.judge)
                self._selector.register(self._judge.connection, selectors.EVENT_READ)
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
        if self._workers:
            self._workers.close()
        if self._judge:
            self._judge.close()
        self._selector.close()

    def score(self, problems: Sequence[Problem], completions: Sequence[Completion]) -> list[Score]:
        """The score of each completion (to the problem at the same place), in order.

        What was submitted before goes on meanwhile; its scores wait for the next ``poll``.
        """
        pairs = list(zip(problems, completions, strict=True))
        mine = {_OfScore(place): None for place in range(len(pairs))}
        for key, (problem, completion) in zip(mine, pairs, strict=True):
            self.submit(key, problem, completion)
        scores: dict[Hashable, Score] = {}
        others: list[tuple[Hashable, Score]] = []
        while len(scores) < len(mine):
            for finished, score in self.wait():
                if finished in mine:
                    scores[finished] = score
                else:
                    others.append((finished, score))
        self._finished = others + self._finished
        return [scores[key] for key in mine]

    def submit(self, key: Hashable, problem: Problem, completion: Completion) -> None:
        """Begin to score one completion; its score comes back with ``key``, which the pool only hands on."""
        job = next(self._numbers)
        self._open[job] = _Job(key)
        if self._judge:  # first: it is the slowest, and needs nothing of this machine
            self._judge.submit(job, problem, completion)
        if self._workers:
            self._workers.submit(job, problem, completion)
        if not self._weights:
            self._finish(job)

    @property
    def pending(self) -> int:
        """Completions that were submitted and whose scores ``poll`` has not given yet."""
        return len(self._open) + len(self._finished)

    def poll(self) -> list[tuple[Hashable, Score]]:
        """The scores that are finished and were not given before; does not wait."""
        return self.wait(0.0)

    def wait(self, timeout: float | None = None) -> list[tuple[Hashable, Score]]:
        """The same, waiting for the first one: at most ``timeout`` seconds, none as long as it takes.

        Empty where nothing is pending, or the time is over.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            left = 60.0 if end is None else end - time.monotonic()
            if self._open:
                self._advance(0.0 if self._finished else max(0.0, left))
            if self._finished or not self._open or (end is not None and left <= 0):
                finished, self._finished = self._finished, []
                return finished

    def _advance(self, timeout: float) -> None:
        """Take the verdicts that there are, waiting at most that long for something to happen."""
        if self._workers:
            for answer in self._workers.advance(timeout):
                self._record(answer.job, answer.reward, answer.verdict)
        else:
            self._selector.select(timeout)
        if self._judge:
            if self._judge.happened():
                beat()  # also where a request has only failed and is tried again
            for judged in self._judge.take():
                self._open[judged.job].use = judged.use.metrics()
                self._record(judged.job, JUDGE, judged.verdict)

    def _record(self, job: int, reward: str, verdict: Verdict) -> None:
        verdicts = self._open[job].verdicts
        verdicts[reward] = verdict
        beat()
        if len(verdicts) == len(self._weights):
            self._finish(job)

    def _finish(self, job: int) -> None:
        of_job = self._open.pop(job)
        verdicts = of_job.verdicts
        parts = {name: verdicts[name].value for name in self._weights}
        failures = []
        for name in self._weights:
            error = verdicts[name].error
            if error is not None:
                failures.append(name)
                self._log_once(name, error)
        total = sum(self._weights[name] * value for name, value in parts.items())
        self._finished.append((of_job.key, Score(total, parts, tuple(failures), of_job.use)))

    def _log_once(self, name: str, message: str) -> None:
        logged = sum(known == name for known, _ in self._logged)
        if (name, message) not in self._logged and logged < MAX_LOGGED:
            self._logged.add((name, message))
            log.warning("reward %s failed and counts as 0: %s (logged once)", name, message)


@dataclass
class _Job:
    """A completion that is being scored, and what is known of it."""

    key: Hashable
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    use: dict[str, float] = field(default_factory=dict)


class _OfScore:
    """A key of one call of ``score``: equal to no other."""

    def __init__(self, place: int) -> None:
        self.place = place
