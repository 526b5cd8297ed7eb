"""Problems that reasoning-gym generates, the same for the same seed, a part of them held out."""

import dataclasses
import difflib
import hashlib
import json
import warnings
from typing import Any

from igrpo_mcore.config.schema import DataConfig
from igrpo_mcore.data.problems import GENERATED
from igrpo_mcore.errors import UserError, one_line
from igrpo_mcore.types import Problem

HELD_OUT_SHARE = 5
"""One problem in so many is held out, by a hash of its text, so that no seed puts it into training."""


def generated(config: DataConfig, *, held_out: bool) -> list[Problem]:
    """The problems of ``config.path``'s tasks, those for training or the held-out ones, each text once.

    The tasks take turns. ``Problem.entry`` is reasoning-gym's whole entry, which its verifier reads.

    Raises:
        UserError: reasoning-gym is not installed, a task or an option that it does not have, options that
            it refuses, and tasks that leave nothing.
    """
    tasks = [name.strip() for name in config.path.removeprefix(GENERATED).split(",")]
    unknown = sorted(set(config.options) - set(tasks))
    if unknown:
        raise UserError(
            f"data.options has options for {unknown[0]}, which data.path={config.path} does not name; add it "
            "there or remove its options"
        )
    found: dict[str, Problem] = {}
    entries = [_entries(task, config) for task in tasks]
    for number in range(config.size):
        for task, of_task in zip(tasks, entries, strict=True):
            entry = of_task[number]
            text = entry["question"]
            if _is_held_out(text) == held_out and entry["answer"] is not None:
                as_json = json.dumps(entry, default=str)
                found.setdefault(text, Problem(f"{task}-{number}", text, str(entry["answer"]), as_json))
    if not found:
        which = "held out" if held_out else "left for training"
        raise UserError(
            f"{config.path} with data.size={config.size} has no problems {which}; raise data.size"
        )
    return list(found.values())


def reasoning_gym() -> Any:
    """The package; raises ``UserError`` where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # of cellpylib
            import reasoning_gym as package
    except ImportError as error:
        raise UserError(
            f"reasoning-gym cannot be imported ({error}); install it with `make real-setup`, or "
            "pip install 'igrpo-mcore[real]'"
        ) from error
    return package


def _entries(task: str, config: DataConfig) -> list[dict[str, Any]]:
    package = reasoning_gym()
    tasks = package.factory.DATASETS
    if task not in tasks:
        near = difflib.get_close_matches(task, tasks, 3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else "see its gallery of tasks"
        raise UserError(f"reasoning-gym has no task {task!r} (data.path={config.path}); {hint}")
    options = config.options.get(task) or {}
    known = [f.name for f in dataclasses.fields(tasks[task][1]) if f.name not in ("size", "seed")]
    for option in options:
        if option not in known:
            raise UserError(
                f"data.options.{task}: reasoning-gym's {task} has no option {option!r}; it has "
                f"{', '.join(known)}"
            )
    try:
        dataset = package.create_dataset(task, size=config.size, seed=config.seed, **options)
        return [dataset[i] for i in range(config.size)]
    except Exception as error:  # its checks are assertions, and a generator may fail on odd options
        raise UserError(
            f"data.options.{task} is refused by reasoning-gym ({one_line(error)}); correct it"
        ) from error


def _is_held_out(text: str) -> bool:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % HELD_OUT_SHARE == 0
