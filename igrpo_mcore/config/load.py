"""From a recipe and command-line overrides to a checked ``Config``."""

import difflib
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from textwrap import shorten
from typing import Any, cast, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from igrpo_mcore.config.schema import Config
from igrpo_mcore.config.validate import validate
from igrpo_mcore.config.yaml_file import check_size, load_yaml
from igrpo_mcore.errors import UserError, one_line

BASE_KEY = "base"
TABLES = ("reward.weights", "data.options")
"""Options that are tables of the user's own keys."""


def load_config(recipe: str | Path, overrides: list[str] | None = None) -> Config:
    """Read a recipe over the defaults of ``igrpo_mcore.config.schema``, apply ``key=value`` overrides.

    A recipe may name others that it builds on as ``base: other.yaml`` or ``base: [one.yaml, other.yaml]``
    (relative to itself, later ones win). An override that ends in ``.yaml`` is a recipe too, laid over what
    stands before it: ``igrpo train recipes/tiny_qwen3.yaml recipes/objectives/dapo.yaml train.steps=10``.

    Raises:
        UserError: unreadable recipe, unknown key, wrong type, missing or impossible value; names the
            field and the nearest valid name.
    """
    return resolve(_read_recipe(Path(recipe)), overrides, str(recipe))


def resolve(layers: list[tuple[str, DictConfig]], overrides: list[str] | None, recipe: str) -> Config:
    """The same of options that come from anywhere; each layer has the name that an error gives it."""
    layers = [*layers]
    for text in overrides or []:
        layers += _read_recipe(Path(text)) if is_recipe(text) else [_parse_override(text)]
    merged = OmegaConf.structured(Config)
    for source, layer in layers:
        for key in _flat_keys(layer):
            _check_key(key, source)
        try:
            merged = cast(DictConfig, OmegaConf.merge(merged, layer))
        except OmegaConfBaseException as error:
            field = f"{error.full_key}: " if error.full_key else ""
            reason = one_line(error)
            raise UserError(
                f"{source}: {field}{reason}; see `igrpo config {recipe}` for the types"
            ) from error
    try:
        missing = sorted(OmegaConf.missing_keys(merged))
        if missing:
            unset = ", ".join(missing)
            raise UserError(f"{recipe} leaves {unset} unset; set it there or as {missing[0]}=VALUE")
        config = cast(Config, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        raise UserError(f"{recipe}: {error.full_key}: {one_line(error)}; write the value out") from error
    _check_elements(config, recipe)
    validate(config)
    return config


def _check_elements(config: Config, recipe: str) -> None:
    """Types inside lists and tables, which OmegaConf looks at when it makes them and not when it merges."""
    for section in fields(config):
        try:
            OmegaConf.structured(getattr(config, section.name))
        except OmegaConfBaseException as error:
            raise UserError(
                f"{section.name}.{error.full_key}: {one_line(error)}; `igrpo config {recipe}` shows the types"
            ) from error


def to_yaml(config: Config) -> str:
    """The resolved tree, readable by ``load_config`` again."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def _read_recipe(path: Path, above: tuple[Path, ...] = ()) -> list[tuple[str, DictConfig]]:
    if not path.is_file():
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.yaml")], 1)
        hint = f"did you mean {path.parent / near[0]}?" if near else "give the path of a YAML file"
        raise UserError(f"there is no recipe {path}; {hint}")
    try:
        layer = load_yaml(path)
    except Exception as error:
        raise UserError(f"{path} is not valid YAML ({one_line(error)}); mend it") from error
    if not isinstance(layer, DictConfig):
        raise UserError(f"{path} must hold a mapping of options, see recipes/tiny_qwen3.yaml")
    named = layer.pop(BASE_KEY, None)
    bases = list(named) if OmegaConf.is_list(named) else [named] if named is not None else []
    if not all(isinstance(base, str) for base in bases) or path.resolve() in above:
        raise UserError(
            f"{path}: {BASE_KEY} must name other recipes, for example {BASE_KEY}: [paper.yaml, "
            "objectives/dapo.yaml], and not lead back to itself"
        )
    before = [found for base in bases for found in _read_recipe(path.parent / base, (*above, path.resolve()))]
    return [*before, (str(path), layer)]


def is_recipe(text: str) -> bool:
    """Whether an override is the path of a recipe to lay over the others."""
    return text.endswith((".yaml", ".yml")) and "=" not in text


def _parse_override(text: str) -> tuple[str, DictConfig]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise UserError(f"override {text!r} is not of the form key=value, for example train.steps=10")
    try:
        check_size(value)
        return f"override {text}", OmegaConf.from_dotlist([text])
    except (OmegaConfBaseException, YAMLError) as error:
        quoted = f"{key}='{shorten(value, 100)}'"
        raise UserError(
            f"override {shorten(text, 100)!r} is not valid YAML ({one_line(error)}); quote the value: "
            f'"{quoted}"'
        ) from error


def _flat_keys(layer: DictConfig, prefix: str = "") -> list[str]:
    keys = []
    for key in map(str, layer):
        name = f"{prefix}{key}"
        if name not in TABLES and OmegaConf.is_dict(layer._get_node(key)):
            keys += _flat_keys(layer[key], f"{name}.")
        else:
            keys.append(name)
    return keys


@cache
def all_keys(node: type = Config, prefix: str = "") -> list[str]:
    """Every option as its dotted name."""
    keys = []
    for name, kind in _field_types(node).items():
        if is_dataclass(kind):
            keys += all_keys(cast(type, kind), f"{prefix}{name}.")
        else:
            keys.append(f"{prefix}{name}")
    return keys


def _field_types(node: type) -> dict[str, Any]:
    hints = get_type_hints(node)
    types = {field.name: hints[field.name] for field in fields(node)}
    optional = {n: t for n, t in types.items() if get_origin(t) is not list}  # a list is one option
    return types | {n: next((a for a in get_args(t) if is_dataclass(a)), t) for n, t in optional.items()}


def _check_key(key: str, source: str) -> None:
    valid = all_keys()
    if key in valid:
        return
    # the right option in the wrong section, else the nearest spelling
    near = [k for k in valid if k.rsplit(".", 1)[-1] == key.rsplit(".", 1)[-1]]
    near = near or difflib.get_close_matches(key, valid, 1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else "`igrpo config` lists the options of a recipe"
    raise UserError(f"{source}: unknown option {key}; {hint}")
