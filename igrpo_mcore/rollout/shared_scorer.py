"""Rewards run once an engine: its first rank scores, the others receive."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

import torch.distributed as dist

from igrpo_mcore.types import Completion, Problem, SampleKey, Score


class BackgroundScorer(Protocol):
    """Scores in the background, as ``RewardPool`` does."""

    def submit(self, key: Hashable, problem: Problem, completion: Completion) -> None: ...
    def poll(self) -> list[tuple[Any, Score]]:
        """What was scored since the last call."""
        ...

    def wait(self, timeout: float | None = None) -> list[tuple[Any, Score]]:
        """The same, waiting for the first one."""
        ...


class SharedScorer:
    """A :class:`~igrpo_mcore.rollout.scheduler.Scorer` for all ranks of one engine.

    ``scorer`` works on the group's first rank only (other ranks may pass ``None``) and its scores are
    broadcast over ``group``; what it raises is raised on every rank.
    """

    def __init__(self, scorer: BackgroundScorer | None, group: dist.ProcessGroup) -> None:
        self._scorer, self._group = scorer, group
        self._source = dist.get_process_group_ranks(group)[0]
        self._scored: dict[SampleKey, Score] = {}
        self._dropped: set[SampleKey] = set()

    def submit(self, key: SampleKey, problem: Problem, completion: Completion) -> None:
        if self._scorer:
            self._scorer.submit(key, problem, completion)

    def advance(self) -> None:
        if self._scorer:
            self._keep(self._scorer.poll())

    def take(self, keys: Sequence[SampleKey]) -> list[Score]:
        return self._agreed(lambda: self._wait_for(keys))

    def ready(self) -> list[tuple[SampleKey, Score]]:
        return self._agreed(self._collect)

    def drop(self, keys: Sequence[SampleKey]) -> None:
        if self._scorer:
            there = {key for key in keys if self._scored.pop(key, None) is not None}
            self._dropped |= set(keys) - there

    def _wait_for(self, keys: Sequence[SampleKey]) -> list[Score]:
        assert self._scorer
        self._keep(self._scorer.poll())
        while any(key not in self._scored for key in keys):
            self._keep(self._scorer.wait())
        return [self._scored.pop(key) for key in keys]

    def _collect(self) -> list[tuple[SampleKey, Score]]:
        self.advance()
        found, self._scored = self._scored, {}
        return list(found.items())

    def _keep(self, found: Sequence[tuple[SampleKey, Score]]) -> None:
        for key, score in found:
            if key in self._dropped:
                self._dropped.remove(key)
            else:
                self._scored[key] = score

    def _agreed[T](self, of_first_rank: Callable[[], T]) -> T:
        """What the first rank finds, on every rank. Collective over the engine."""
        outcome: list[T | Exception | None] = [None]
        if dist.get_rank() == self._source:
            assert self._scorer is not None, "the engine's first rank needs a scorer"
            try:
                outcome = [of_first_rank()]
            except Exception as error:
                outcome = [error]
        if dist.get_world_size(self._group) > 1:
            dist.broadcast_object_list(outcome, src=self._source, group=self._group)
        (result,) = outcome
        if isinstance(result, Exception):
            raise result
        return result  # type: ignore[return-value]
