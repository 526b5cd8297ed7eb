"""Which runs repeat each other: equal options but for the seed."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from igrpo_mcore.errors import UserError
from igrpo_mcore.run.folder import CONFIG_FILE
from igrpo_mcore.study.loaded_run import LoadedRun, load_run
from igrpo_mcore.study.manifest import read_manifest
from igrpo_mcore.study.options import differing, without_seed

_SEED = re.compile(r"-seed\d+$")


@dataclass(frozen=True)
class RunGroup:
    """A variant: its runs, by seed. ``baseline``: the name of the group that it is set against; none takes
    the first."""

    name: str
    runs: tuple[LoadedRun, ...]
    baseline: str = ""

    @property
    def unfinished(self) -> int:
        return sum(not run.finished for run in self.runs)


def load_groups(sources: Sequence[Path]) -> tuple[list[RunGroup], list[str]]:
    """The groups of all runs in ``sources``, runs' folders or sweeps', and what is missing of sweeps.

    Raises:
        UserError: a folder that is neither, a run without steps, two runs of a group with the same seed.
    """
    runs: list[LoadedRun] = []
    names: dict[Path, str] = {}
    baselines: dict[str, str] = {}
    missing: list[str] = []
    not_begun: list[str] = []
    for source in sources:
        variants = read_manifest(source)
        if not variants and not (source / CONFIG_FILE).is_file():
            raise UserError(f"{source} is neither a run's folder nor a sweep's; give runs/NAME or runs/SWEEP")
        if not variants:
            runs.append(load_run(source))
        for variant in variants:
            baselines[variant.name] = variant.baseline
            for name in variant.runs:
                try:
                    runs.append(load_run(source / name, source / variant.start))
                    names[source / name] = variant.name
                except UserError:
                    not_begun.append(name)
    if not runs:
        raise UserError(f"no run of {', '.join(map(str, sources))} has a finished step; let the sweep begin")
    grouped: dict[str, list[LoadedRun]] = {}
    for run in runs:
        grouped.setdefault(repr(sorted(without_seed(run.options).items())), []).append(run)
    several = list(grouped.values())
    labels = _labels([[names.get(run.folder) for run in group] for group in several], several)
    groups = [
        RunGroup(label, tuple(sorted(group, key=lambda run: run.seed)), baselines.get(label, ""))
        for label, group in zip(labels, several, strict=True)
    ]
    for group in groups:
        seeds = [run.seed for run in group.runs]
        twice = next((seed for seed in seeds if seeds.count(seed) > 1), None)
        if twice is not None:
            both = " and ".join(str(run.folder) for run in group.runs if run.seed == twice)
            raise UserError(f"{both} have the same options and the same seed {twice}; give one of them")
        missing += [
            f"{r.folder.name}: {r.steps} of {r.options['train.steps']} steps"
            for r in group.runs
            if not r.finished
        ]
    if not_begun:
        shown = ", ".join(not_begun[:3]) + (" …" if len(not_begun) > 3 else "")
        missing.append(f"{len(not_begun)} not begun ({shown})")
    return groups, missing


def _labels(named: list[list[str | None]], groups: list[list[LoadedRun]]) -> list[str]:
    """The sweep's name of each group, else its runs' common name, else what its options differ in."""
    labels = [
        given[0] or _SEED.sub("", runs[0].folder.name) for given, runs in zip(named, groups, strict=True)
    ]
    if len(set(labels)) == len(labels):
        return labels
    columns = differing([without_seed(runs[0].options) for runs in groups])
    return [", ".join(f"{name}={values[i]}" for name, values in columns.items()) for i in range(len(groups))]
