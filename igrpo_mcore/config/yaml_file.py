"""YAML as people write it: refused where its aliases stand for more than any recipe holds."""

import io
from pathlib import Path

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf

LARGEST = 100_000
"""Values that a file may stand for with its aliases written out; a few lines of them reach 9 ** 9."""


def load_yaml(path: Path) -> DictConfig | ListConfig:
    """``OmegaConf.load``, in a time and memory that go with the file's size.

    Raises:
        YAMLError: as ``check_size``; and what else OmegaConf and PyYAML raise, a dozen unrelated classes.
    """
    text = path.read_text(encoding="utf-8")
    check_size(text)
    return OmegaConf.load(io.StringIO(text))


def check_size(text: str) -> None:
    """Raises ``YAMLError`` for YAML whose aliases stand for over ``LARGEST`` values."""
    if "&" not in text:  # no anchors, no aliases
        return
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is not None and _values(root, {}) > LARGEST:
        raise yaml.YAMLError(f"its aliases stand for more than {LARGEST:,} values")


def _values(node: yaml.Node, known: dict[int, int]) -> int:
    if id(node) not in known:
        known[id(node)] = LARGEST + 1  # until it is counted: one that holds itself has no end
        below = []
        if isinstance(node, yaml.SequenceNode):
            below = node.value
        elif isinstance(node, yaml.MappingNode):
            below = [child for pair in node.value for child in pair]
        known[id(node)] = 1 + sum(_values(child, known) for child in below)
    return known[id(node)]
