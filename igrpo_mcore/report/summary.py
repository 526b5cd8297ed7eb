"""What a run came to, in a few numbers: the closing table and the head of the page."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Record = Mapping[str, float | None]
"""One line of metrics.jsonl."""

_AFTER_SAMPLING = ("gather", "logprobs", "ref_logprobs", "update", "push")


def phases_of(records: Sequence[Record]) -> tuple[str, ...]:
    """The phases of a step in the order in which they run, each with ``time/PHASE_s``: sampling and scoring
    of each stage, then the rest."""
    keys = dict.fromkeys(key for record in records for key in record)
    stages = [key[len("time/") : -len("_rewards_s")] for key in keys if key.endswith("_rewards_s")]
    return (*(phase for stage in stages for phase in (stage, f"{stage}_rewards")), *_AFTER_SAMPLING)


@dataclass(frozen=True)
class Change:
    """Mean of a metric over the first and over the last fifth of the steps; None if never measured."""

    first: float | None
    last: float | None

    @property
    def difference(self) -> float | None:
        return None if self.first is None or self.last is None else self.last - self.first


@dataclass(frozen=True)
class Summary:
    """The figures of the closing table.

    ``seconds`` is the total by phase, ``step_seconds`` the total of all steps, ``parity`` the
    largest sampler–trainer log-prob difference in nats.
    """

    steps: int
    fifth: int
    drafts: Change
    refinements: Change
    zero_std: Change
    parity: float | None
    seconds: dict[str, float]
    step_seconds: float


def summarize(records: Sequence[Record]) -> Summary:
    """The summary of a run's steps, in order; works on any number of them, none included."""
    fifth = max(1, len(records) // 5)
    parity = values_of(records, "parity/logprob_max_abs_diff")
    seconds = {phase: math.fsum(values_of(records, f"time/{phase}_s")) for phase in phases_of(records)}
    return Summary(
        steps=len(records),
        fifth=fifth,
        drafts=_change(records, fifth, "drafts/reward_mean"),
        refinements=_change(records, fifth, "refinements/reward_mean"),
        zero_std=_change(records, fifth, "groups/zero_std_share"),
        parity=max(parity) if parity else None,
        seconds={phase: total for phase, total in seconds.items() if total > 0},
        step_seconds=math.fsum(values_of(records, "time/step_s")),
    )


def values_of(records: Sequence[Record], name: str) -> list[float]:
    """The measured values of one metric, in order of the steps."""
    return [value for record in records if (value := record.get(name)) is not None]


def _change(records: Sequence[Record], fifth: int, name: str) -> Change:
    first, last = values_of(records[:fifth], name), values_of(records[-fifth:], name)
    return Change(statistics.fmean(first) if first else None, statistics.fmean(last) if last else None)
