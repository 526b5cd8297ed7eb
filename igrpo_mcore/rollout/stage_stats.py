"""What the sampling of a stage took."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class StageStats:
    """Completion tokens of a stage, the seconds that sampling them took, and those for which an engine
    stood still for their scores.

    Stages that run at the same time share an engine's decoding steps by the number of their sequences.
    """

    tokens: int
    seconds: float
    reward_seconds: float

    @property
    def rate(self) -> float | None:
        """Tokens a second; none where there are no tokens."""
        return self.tokens / self.seconds if self.tokens else None


def over_engines(parts: Sequence[Mapping[str, StageStats]]) -> dict[str, StageStats]:
    """Tokens add up; seconds are the slowest engine's, since all wait for it."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: _sum([part[name] for part in parts if name in part], max) for name in names}


def in_turn(parts: Sequence[Mapping[str, StageStats]]) -> dict[str, StageStats]:
    """Of one rollout after another: everything adds up."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: _sum([part[name] for part in parts if name in part], sum) for name in names}


def _sum(stats: Sequence[StageStats], seconds) -> StageStats:
    return StageStats(
        sum(s.tokens for s in stats),
        seconds(s.seconds for s in stats),
        seconds(s.reward_seconds for s in stats),
    )


class StageClock:
    """Books an engine's seconds to its stages."""

    def __init__(self) -> None:
        self._running: Counter[str] = Counter()
        self._tokens: Counter[str] = Counter()
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._waited: defaultdict[str, float] = defaultdict(float)

    def submitted(self, stage: str) -> None:
        self._running[stage] += 1
        self._seconds[stage] += 0.0  # stages in the order in which they begin

    def ended(self, stage: str, tokens: int = 0) -> None:
        """A sequence has left the engine; an aborted one is not known to have had ``tokens``."""
        self._running[stage] -= 1
        self._tokens[stage] += tokens

    def decoded(self, seconds: float, running: Mapping[str, int]) -> None:
        """A decoding step of ``running`` sequences by stage."""
        total = sum(running.values())
        for stage, count in running.items():
            self._seconds[stage] += seconds * count / total

    def waited(self, seconds: float, stages: Iterable[str]) -> None:
        """The engine stood still for scores of ``stages``, one entry a completion."""
        counted = Counter(stages)
        for stage, count in counted.items():
            self._waited[stage] += seconds * count / counted.total()

    @property
    def running(self) -> dict[str, int]:
        """Sequences in the engine by stage."""
        return {stage: count for stage, count in self._running.items() if count}

    def stats(self) -> dict[str, StageStats]:
        return {
            stage: StageStats(self._tokens[stage], seconds, self._waited[stage])
            for stage, seconds in self._seconds.items()
        }
