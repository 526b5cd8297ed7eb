"""The figures of the tables: means over seeds with intervals, and differences to the first variant."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from igrpo_mcore.report.summary import values_of
from igrpo_mcore.study.bootstrap import Estimate, estimate
from igrpo_mcore.study.groups import RunGroup


@dataclass(frozen=True)
class Measure:
    """A metric of metrics.jsonl that the tables show by its first and last fifth of the steps."""

    label: str
    name: str


MEASURES = (
    Measure("single-shot accuracy while training", "drafts/accuracy"),
    Measure("single-shot reward", "drafts/reward_mean"),
    Measure("reward of the trained group", "refinements/reward_mean"),
    Measure("share of groups without a gradient", "groups/zero_std_share"),
    Measure("entropy, nats", "policy/entropy"),
    Measure("completion tokens", "drafts/length_mean"),
    Measure("truncated share", "drafts/truncated_share"),
    Measure("refinements that repeat their draft's text", "refinements/repeat_text"),
)
HACKING = (
    Measure("rewarded completions that repeat the expression", "hacking/drafts_expression_share"),
    Measure("the same of the trained group", "hacking/expression_share"),
    Measure("distinct texts in a group", "hacking/drafts_distinct_texts"),
    Measure("the same of the trained group", "hacking/distinct_texts"),
    Measure("tokens of a rewarded completion", "hacking/drafts_rewarded_length"),
)


@dataclass(frozen=True)
class HeldOut:
    """Single-shot accuracy on held-out problems: of the start, of the final policies, what training gained,
    and how much more than the first variant's on the same seeds and problems."""

    problems: int
    start: Estimate | None
    final: Estimate | None
    gain: Estimate | None
    difference: Estimate | None
    by_seed: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Change:
    """First and last fifth, and their difference, each over seeds."""

    measure: Measure
    first: Estimate | None
    last: Estimate | None
    change: Estimate | None


def changes(group: RunGroup, measures: Sequence[Measure]) -> list[Change]:
    """A row a measure; None where no run measured it."""
    rows = []
    for measure in measures:
        first, last = ([run.fifth(measure.name, last=at) for run in group.runs] for at in (False, True))
        both = [(a, b) for a, b in zip(first, last, strict=True) if a is not None and b is not None]
        rows.append(Change(measure, _of(first), _of(last), estimate([b - a for a, b in both])))
    return rows


def held_out(group: RunGroup, baseline: RunGroup) -> HeldOut | None:
    """The held-out figures over the problems that every evaluated run of both groups has, if any."""
    evaluated = [run for run in group.runs if run.final]
    if not evaluated:
        return None
    others = {run.seed: run for run in baseline.runs if run.final}
    problems = list(evaluated[0].final)
    problems = [p for p in problems if all(p in run.final for run in [*evaluated, *others.values()])]
    if not problems:
        return None
    final = [[run.final[p] for p in problems] for run in evaluated]
    from_start = [run for run in evaluated if all(p in run.start for p in problems)]
    pairs = [] if group is baseline else [(run, others[run.seed]) for run in evaluated if run.seed in others]
    return HeldOut(
        problems=len(problems),
        # runs begin at the same weights, so the start has no spread over seeds
        start=estimate([[from_start[0].start[p] for p in problems]]) if from_start else None,
        final=estimate(final),
        gain=estimate([[run.final[p] - run.start[p] for p in problems] for run in from_start]),
        difference=estimate([[run.final[p] - other.final[p] for p in problems] for run, other in pairs]),
        by_seed=tuple((run.seed, fmean(row)) for run, row in zip(evaluated, final, strict=True)),
    )


def seconds(group: RunGroup) -> float:
    """Seconds that a run took in its steps, mean over runs."""
    return fmean(math.fsum(values_of(run.records, "time/step_s")) for run in group.runs)


def completions(group: RunGroup) -> int | None:
    """Completions that a finished run of the group samples, by its options; None where options are older."""
    from igrpo_mcore.config.schema import RolloutConfig, Selection
    from igrpo_mcore.config.stages import stages_of

    options = group.runs[0].options
    try:
        rollout = RolloutConfig(
            num_drafts=options["rollout.num_drafts"],
            draft_rounds=options["rollout.draft_rounds"],
            num_refinements=options["rollout.num_refinements"],
            selection=Selection(options["rollout.selection"]),
        )
    except (KeyError, ValueError):
        return None
    a_prompt = sum(stage.num_samples for stage in stages_of(rollout))
    return int(options["train.steps"] * options["train.prompts_per_step"] * a_prompt)


def _of(values: Sequence[float | None]) -> Estimate | None:
    return estimate([value for value in values if value is not None])
