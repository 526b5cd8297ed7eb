"""The table of ``igrpo doctor`` and its exit status."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from igrpo_mcore.config.load import load_config
from igrpo_mcore.config.schema import Config
from igrpo_mcore.doctor.environment import variables
from igrpo_mcore.doctor.finding import Finding, State
from igrpo_mcore.doctor.machine import gpus_here, hub_cache, memory_and_disks, torch_sees
from igrpo_mcore.doctor.packages import packages
from igrpo_mcore.doctor.paths import paths
from igrpo_mcore.doctor.recipe import model_of, recipe_checks

STYLES = {State.ok: "green", State.note: "yellow", State.fault: "bold red"}


def examine(recipe: Path | None, overrides: list[str] | None) -> dict[str, list[Finding]]:
    """All findings, by section.

    Raises:
        UserError: the recipe or an option cannot be read.
    """
    config = load_config(recipe, overrides) if recipe else Config()
    gpus, of_gpus = gpus_here()
    sections = {"Packages": packages(bool(gpus)), "Machine": [*of_gpus, *torch_sees(gpus)]}
    sections["Machine"] += memory_and_disks(Path(config.run.dir).expanduser(), bool(gpus))
    sections["Machine"].append(hub_cache())
    architecture, broken = model_of(config) if recipe else (None, [])
    sections["Paths"] = paths(config, architecture)
    sections["Environment"] = variables(_ranks_here(config, len(gpus)))
    if recipe:
        sections["Recipe"] = recipe_checks(config, architecture, len(gpus)) if architecture else broken
    return sections


def _ranks_here(config: Config, gpus: int) -> int:
    from igrpo_mcore.preflight import local_ranks

    return min(local_ranks(config), gpus) if gpus else local_ranks(config)


def run_doctor(recipe: Path | None = None, overrides: list[str] | None = None) -> int:
    """Print what was found; 0 where a run could start, else 1."""
    sections = examine(recipe, overrides)
    console = Console(highlight=False)
    table = Table("", "", "found", title="igrpo doctor", title_justify="left")
    for section, findings in sections.items():
        table.add_section()
        for one in findings:
            table.add_row(section, one.what, f"[{STYLES[one.state]}]{one.state}[/] {_plain(one.found)}")
            section = ""
    console.print(table)
    told = [one for findings in sections.values() for one in findings if one.mend]
    for one in sorted(told, key=lambda one: one.state != State.fault):
        console.print(f"[{STYLES[one.state]}]{one.state}[/] {_plain(f'{one.what}: {one.found}; {one.mend}')}")
    faults = sum(one.state == State.fault for one in told)
    start = f"{recipe} could start here" if recipe else "a run could start here"
    console.print(f"{faults} faults: mend them first" if faults else f"No faults: {start}")
    return 1 if faults else 0


def _plain(text: str) -> str:
    return " ".join(text.replace("[", r"\[").split())
