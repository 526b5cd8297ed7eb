"""The options of runs as flat tables, to be compared."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from igrpo_mcore.config.load import TABLES
from igrpo_mcore.config.schema import Config
from igrpo_mcore.config.yaml_file import load_yaml
from igrpo_mcore.errors import UserError, one_line
from igrpo_mcore.run.folder import CONFIG_FILE

Options = Mapping[str, Any]
NOT_OF_TRAINING = ("run.", "checkpoint.", "eval.")
"""Sections that change nothing of what a run samples and learns."""


def flat_options(config: Config) -> dict[str, Any]:
    """Every option by its dotted name, enums as text."""
    return _flat(OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True))


def read_options(run_dir: Path) -> dict[str, Any]:
    """The options of a run, from its config.yaml; those that did not exist then have today's default.

    Raises:
        UserError: there is no such file, or it is no YAML.
    """
    path = run_dir / CONFIG_FILE
    if not path.is_file():
        raise UserError(f"{run_dir} is no run's folder: it has no {CONFIG_FILE}")
    try:
        written = _flat(OmegaConf.to_container(load_yaml(path)))
    except Exception as error:
        raise UserError(
            f"{path} cannot be read ({one_line(error)}); restore it or leave the run out"
        ) from error
    return flat_options(Config()) | written


def without_seed(options: Options) -> dict[str, Any]:
    """What makes runs repetitions of each other: all that training depends on but ``train.seed``."""
    return {
        name: value
        for name, value in options.items()
        if name != "train.seed" and not name.startswith(NOT_OF_TRAINING)
    }


def differing(several: Sequence[Options]) -> dict[str, list[Any]]:
    """The options that are not the same everywhere, each with its value in every one of ``several``."""
    names = dict.fromkeys(name for options in several for name in options)
    columns = {name: [options.get(name) for options in several] for name in names}
    return {name: values for name, values in columns.items() if any(v != values[0] for v in values)}


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in node.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and name not in TABLES:
            flat |= _flat(value, f"{name}.")
        else:
            flat[name] = value
    return flat
