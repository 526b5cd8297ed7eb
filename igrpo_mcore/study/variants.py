"""From a sweep's file to its runs, every one resolved and checked before any starts."""

import copy
import itertools
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from igrpo_mcore.config.load import is_recipe, load_config
from igrpo_mcore.config.schema import Config, Resume
from igrpo_mcore.config.validate import validate
from igrpo_mcore.errors import UserError
from igrpo_mcore.study.options import flat_options, without_seed
from igrpo_mcore.study.sweep_file import OWNED, SweepFile

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


@dataclass(frozen=True)
class Variant:
    """A name and the options over the sweep's recipe that make it; ``baseline`` is the full name of the first
    variant at the same point of the grid, which it is compared with."""

    name: str
    options: tuple[str, ...]
    baseline: str = ""


@dataclass(frozen=True, eq=False)
class SweepRun:
    """One run of a sweep; its folder is ``runs/SWEEP/VARIANT-seedN``."""

    variant: Variant
    seed: int
    recipe: Path
    config: Config

    @property
    def name(self) -> str:
        return f"{self.variant.name}-seed{self.seed}"

    @property
    def folder(self) -> Path:
        return Path(self.config.run.dir) / self.name

    @property
    def arguments(self) -> list[str]:
        """What follows ``igrpo train`` or ``igrpo eval``: the recipe and every option over it."""
        own = (f"train.seed={self.seed}", f"run.dir={self.config.run.dir}", f"run.name={self.name}")
        return [str(self.recipe), *self.variant.options, *own]


def variants_of(sweep: SweepFile, beside: Path, more: tuple[str, ...] = ()) -> list[Variant]:
    """Every variant at every point of the grid, in the file's order; ``more`` options come last. Recipes
    among the options are found from the folder ``beside``, that of the sweep's file.

    Raises:
        UserError: a name that is no folder's name, two equal names, an option that the sweep gives itself.
    """
    named = sweep.variants or {"": []}
    variants = []
    baselines: dict[tuple[str, ...], str] = {}
    for name, options in named.items():
        for points in itertools.product(*(_points(axis, points) for axis, points in sweep.grid.items())):
            at = tuple(point for point, _ in points)
            chosen = itertools.chain.from_iterable(options for _, options in points)
            full = "-".join(part for part in (name, *at) if part) or Path(sweep.recipe).stem
            own = (located(option, beside) for option in (*sweep.options, *options, *chosen))
            variants.append(Variant(full, (*own, *more), baselines.setdefault(at if name else (), full)))
    for variant in variants:
        if not _NAME.fullmatch(variant.name):
            raise UserError(
                f"variant {variant.name!r} names a folder; use letters, digits and . _ + - (a point of a "
                "grid may be given a name: axis: {name: [key=value]})"
            )
        for option in variant.options:
            if option.partition("=")[0] in OWNED:
                raise UserError(
                    f"variant {variant.name}: {option} is given by the sweep itself (seeds, and the folder "
                    "runs/SWEEP/VARIANT-seedN); leave it out"
                )
    repeated = [name for name, count in Counter(variant.name for variant in variants).items() if count > 1]
    if repeated:
        raise UserError(f"two variants are called {repeated[0]}; give each its own name")
    return variants


def runs_of(sweep: SweepFile, folder: Path, beside: Path, more: tuple[str, ...] = ()) -> list[SweepRun]:
    """All runs, the first seed of every variant first, so that a sweep cut short is balanced.

    Args:
        folder: of the sweep, ``runs/SWEEP``.
        beside: that of the sweep's file.

    Raises:
        UserError: a wrong option of any variant, two variants with equal options.
    """
    runs = []
    variants = variants_of(sweep, beside, more)
    recipe = Path(located(sweep.recipe, beside))
    for variant in variants:
        try:
            first = load_config(recipe, [*variant.options, f"train.seed={sweep.seeds[0]}"])
        except UserError as error:
            raise UserError(f"variant {variant.name}: {error}") from error
        for seed in sweep.seeds:
            config = copy.deepcopy(first)
            config.train.seed = seed
            validate(config)
            run = SweepRun(variant, seed, recipe, config)
            config.run.dir, config.run.name = str(folder), run.name
            config.checkpoint.resume = Resume.auto
            runs.append(run)
    _check_distinct(runs)
    return sorted(runs, key=lambda run: sweep.seeds.index(run.seed))


def located(option: str, beside: Path) -> str:
    """A recipe's path as the command line takes it; other options as they are."""
    return os.path.normpath(beside / option) if is_recipe(option) else option


def _check_distinct(runs: list[SweepRun]) -> None:
    seen: dict[str, str] = {}
    for run in runs:
        key = repr(sorted(without_seed(flat_options(run.config)).items()))
        other = seen.setdefault(key, run.variant.name)
        if other != run.variant.name:
            raise UserError(f"variants {other} and {run.variant.name} have the same options; leave one out")


def _points(axis: str, points: Any) -> Iterator[tuple[str, list[str]]]:
    """Name and options of each point of an axis of the grid."""
    if isinstance(points, dict):
        yield from ((str(name), list(options)) for name, options in points.items())
        return
    for value in points:
        text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        yield f"{axis.rpartition('.')[2]}{text}" if _is_number(value) else text, [f"{axis}={text}"]


def _is_number(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float)
