"""The file of ``igrpo sweep``: a recipe, variants of it, grids of options, seeds."""

import difflib
from collections import Counter
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, cast

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from igrpo_mcore.config.yaml_file import load_yaml
from igrpo_mcore.errors import UserError, one_line

OWNED = ("run.name", "run.dir", "train.seed", "checkpoint.resume")
"""Options that a sweep gives to each of its runs itself."""


@dataclass
class SweepFile:
    """What a sweep's YAML may say; each combination of a variant, a point of the grid and a seed is a run."""

    recipe: str = MISSING
    """Recipe of every run, relative to this file."""
    options: list[str] = field(default_factory=list)
    """``key=value`` options, or recipes relative to this file, over the recipe in every run."""
    variants: dict[str, list[str]] = field(default_factory=dict)
    """Options of each variant by its name; the first is the baseline that the others are compared with,
    at each point of the grid its own."""
    grid: dict[str, Any] = field(default_factory=dict)
    """Axes that every variant is crossed with: ``option: [value, …]``, or ``axis: {name: [key=value, …], …}``
    where several options change together."""
    seeds: list[int] = field(default_factory=lambda: [0])
    """``train.seed`` of the runs of each variant."""
    equal_budget: bool = True
    """Refuse variants that sample different numbers of completions; false only notes it."""
    evaluate: bool = False
    """``igrpo eval`` of the start and of each final policy, as the recipe's ``eval`` section says."""
    keep_checkpoints: bool = True
    """False removes a run's checkpoints once its final policy is evaluated."""
    slurm: dict[str, str] = field(default_factory=dict)
    """Options of sbatch by name (``nodes: 2``) over the header of the recipe's script; of ``--slurm``."""


def read_sweep(path: Path) -> SweepFile:
    """Read and check a sweep's file; options of runs are checked where they are resolved.

    Raises:
        UserError: no such file, no YAML, unknown key, wrong type, no recipe, a repeated name or seed, an
            option that the sweep gives itself.
    """
    if not path.is_file():
        raise UserError(f"there is no sweep file {path}; give a YAML file such as recipes/studies/tiny.yaml")
    try:
        written = load_yaml(path)
    except Exception as error:
        duplicate = str(error).partition("found duplicate key ")[2].partition("\n")[0]
        if duplicate:
            raise UserError(f"{path}: {duplicate!r} stands there twice; give each its own name") from error
        raise UserError(f"{path} is not valid YAML ({one_line(error)}); mend it") from error
    if not isinstance(written, DictConfig):
        raise UserError(f"{path} must hold a mapping with recipe and variants, see recipes/studies/tiny.yaml")
    known = [option.name for option in fields(SweepFile)]
    for key in map(str, written):
        if key not in known:
            near = difflib.get_close_matches(key, known, 1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            raise UserError(f"{path}: unknown key {key}; {hint}")
    if "recipe" not in written:
        raise UserError(f"{path} names no recipe; add recipe: PATH, relative to the file")
    try:
        merged = OmegaConf.merge(OmegaConf.structured(SweepFile), written)
        sweep = cast(SweepFile, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        raise UserError(f"{path}: {error.full_key}: {one_line(error)}") from error
    _check(path, sweep)
    return sweep


def _check(path: Path, sweep: SweepFile) -> None:
    if not sweep.seeds:
        raise UserError(f"{path}: seeds is empty; give at least one, for example seeds: [0]")
    repeated = [seed for seed, count in Counter(sweep.seeds).items() if count > 1]
    if repeated:
        raise UserError(
            f"{path}: seed {repeated[0]} stands in seeds more than once; runs of it would be equal"
        )
    for axis, points in sweep.grid.items():
        if not points or not isinstance(points, list | dict):
            raise UserError(
                f"{path}: grid.{axis} must be a list of values or a mapping of names to lists of options"
            )
        if isinstance(points, list) and "." not in axis:
            raise UserError(
                f"{path}: grid.{axis} lists values, so {axis} must be an option such as optimizer.lr; for "
                "several options at a time give names to lists of key=value"
            )
        for point, options in points.items() if isinstance(points, dict) else ():
            if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
                raise UserError(f"{path}: grid.{axis}.{point} must be a list of key=value options")
    if not sweep.keep_checkpoints and not sweep.evaluate:
        raise UserError(
            f"{path}: keep_checkpoints: false needs evaluate: true, or nothing of a run's policy is left"
        )
