"""The rows of a comparison: one a variant."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from igrpo_mcore.study.bands import colour, css_line
from igrpo_mcore.study.bootstrap import Estimate, estimate
from igrpo_mcore.study.figures import HeldOut, completions, held_out, seconds
from igrpo_mcore.study.groups import RunGroup

SAMPLES = 2
"""Final prompts of a variant that the page shows."""


@dataclass(frozen=True)
class Row:
    """A variant in the table of results and where its samples stand. ``colour`` and ``line`` (of CSS) are
    those of its curves, the same at every point of a grid."""

    name: str
    colour: str
    line: str
    seeds: int
    held_out: HeldOut | None
    without_gradient: Estimate | None
    entropy: Estimate | None
    seconds: float
    completions: int | None
    first_seed: int
    samples: list[dict[str, Any]]
    runs: list[tuple[str, int, int]]
    against: str


def rows_of(groups: Sequence[RunGroup]) -> list[Row]:
    """A row a variant, set against its baseline, or the first where that has no run."""
    rows = []
    by_name = {group.name: group for group in groups}
    places: Counter[str] = Counter()
    for group in groups:
        baseline = by_name.get(group.baseline, groups[0])
        last = {
            name: [v for run in group.runs if (v := run.fifth(name, last=True)) is not None]
            for name in ("groups/zero_std_share", "policy/entropy")
        }
        rows.append(
            Row(
                name=group.name,
                colour=colour(places[baseline.name]),
                line=css_line(places[baseline.name]),
                seeds=len(group.runs),
                held_out=held_out(group, baseline),
                without_gradient=estimate(last["groups/zero_std_share"]),
                entropy=estimate(last["policy/entropy"]),
                seconds=seconds(group),
                completions=completions(group),
                first_seed=group.runs[0].seed,
                samples=group.runs[0].last_samples(SAMPLES),
                runs=[(str(run.folder), run.seed, run.steps) for run in group.runs],
                against=baseline.name,
            )
        )
        places[baseline.name] += 1
    return rows


def by_baseline[T](rows: Sequence[Row], of_rows: Sequence[T]) -> dict[str, list[T]]:
    """What belongs to the rows, by the name of the variant that they are set against, in order."""
    found: dict[str, list[T]] = {}
    for row, item in zip(rows, of_rows, strict=True):
        found.setdefault(row.against, []).append(item)
    return found


def baseline_of(rows: Sequence[Row]) -> str:
    """What the rows are set against, as a column's head says it."""
    names = {row.against for row in rows}
    return names.pop() if len(names) == 1 else "the first variant at its point of the grid"
