"""Problems that reasoning-gym generates, the same for the same seed, a part of them held out."""

import dataclasses
import difflib
import hashlib
import json
import os
import subprocess
import sys
import warnings
from functools import lru_cache
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
    Every rank and every start gets the same problems, see ``igrpo_mcore.data.generator``.

    Raises:
        UserError: reasoning-gym is not installed, a task or an option that it does not have, options that
            it refuses, a task without reference answers, and tasks that leave nothing.
    """
    tasks = [name.strip() for name in config.path.removeprefix(GENERATED).split(",")]
    given = {task for task, options in config.options.items() if options is not None}
    unknown = sorted(given - set(tasks))
    if unknown:
        raise UserError(
            f"data.options has options for {unknown[0]}, which data.path={config.path} does not name; add it "
            f"there, or set data.options.{unknown[0]}=null"
        )
    for task in tasks:
        _check_task(task, config)
    found: dict[str, Problem] = {}
    order = [{"task": task, "options": config.options.get(task) or {}} for task in tasks]
    entries = _entries(json.dumps({"tasks": order, "size": config.size, "seed": config.seed}))
    for task, of_task in zip(tasks, entries, strict=True):
        if all(entry["answer"] is None for entry in of_task):
            raise UserError(
                f"reasoning-gym's {task} gives no reference answers; take another task in data.path"
            )
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


def _check_task(task: str, config: DataConfig) -> None:
    """Raises ``UserError`` where reasoning-gym has no such task or refuses its options."""
    package = reasoning_gym()
    tasks = package.factory.DATASETS
    if task not in tasks:
        near = difflib.get_close_matches(task, tasks, 3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else "see its gallery of tasks"
        raise UserError(f"reasoning-gym has no task {task!r} (data.path={config.path}); {hint}")
    options = config.options.get(task) or {}
    known = [f.name for f in dataclasses.fields(tasks[task][1]) if f.name not in ("size", "seed")]
    if not isinstance(options, dict):
        raise UserError(
            f"data.options.{task}={options!r} must be a table of options, for example {{{known[0]}: …}}"
        )
    for option in options:
        if option not in known:
            raise UserError(
                f"data.options.{task}: reasoning-gym's {task} has no option {option!r}; it has "
                f"{', '.join(known)}"
            )
    try:
        package.create_dataset(task, size=config.size, seed=config.seed, **options)
    except Exception as error:  # its checks are assertions
        raise UserError(
            f"data.options.{task} is refused by reasoning-gym ({one_line(error)}); correct it"
        ) from error


@lru_cache(maxsize=8)
def _entries(order: str) -> list[list[dict[str, Any]]]:
    """The entries of each task of ``order`` (JSON), generated in a process with hash seed 0."""
    environment = os.environ | {
        "PYTHONHASHSEED": "0",
        "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)),
    }
    command = [sys.executable, "-W", "ignore", "-m", "igrpo_mcore.data.generator"]
    done = subprocess.run(command, input=order, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise UserError(
            "reasoning-gym's process ended without problems; its message stands above: correct data.options, "
            "or lower data.size"
        )
    answer = json.loads(done.stdout)
    if "error" in answer:  # a generator may fail on odd options that the task's own checks let through
        raise UserError(
            f"data.options.{answer['task']} is refused by reasoning-gym ({answer['error']}); correct it"
        )
    return answer["entries"]


def _is_held_out(text: str) -> bool:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % HELD_OUT_SHARE == 0
