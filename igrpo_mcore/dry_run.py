"""``igrpo train --dry-run``: all that can be known before a job is submitted. Starts and writes nothing."""

import math
import os
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from igrpo_mcore.config.load import load_config
from igrpo_mcore.config.schema import Config, DType
from igrpo_mcore.errors import UserError
from igrpo_mcore.fetch import not_here

if TYPE_CHECKING:
    from igrpo_mcore.preflight import Check

SCRIPTS = Path("slurm")


def dry_run(
    recipe: Path,
    overrides: list[str] | None = None,
    gpu: str = "h100-80g",
    nodes: int | None = None,
    gpus_per_node: int = 8,
) -> int:
    """Resolve, check, plan and print the job's script.

    A recipe in float32 is one for machines without a GPU: it is planned and rendered on a single
    node with as many tasks as its layout has ranks.

    Args:
        nodes: none takes those of the recipe's own script, else the fewest for its layout.

    Returns:
        0; 2 where the plan does not fit.

    Raises:
        UserError: what a run would refuse.
    """
    # what is not on this machine is reported, not downloaded; the libraries read this when imported
    os.environ["HF_HUB_OFFLINE"] = "1"
    from igrpo_mcore.planning.command import check_nodes, planned_recipe, show_plan
    from igrpo_mcore.preflight import local_ranks, most_checkpoints
    from igrpo_mcore.run.checkpoint_folder import checkpoint_bytes

    check_nodes(nodes, gpus_per_node)
    config = load_config(recipe, overrides)
    on_cpu = config.model.dtype == DType.float32
    if on_cpu:
        nodes, gpus_per_node = 1, local_ranks(config)
    step = planned_recipe(recipe, config, gpu, nodes, gpus_per_node)
    world = step.layout.world
    for line in checked(config, world):
        print(line)
    print()
    status = show_plan(recipe, step)
    print()
    tasks = min(world, gpus_per_node)
    wanted = {
        "nodes": world // tasks,
        "ntasks-per-node": tasks,
        "gpus-per-node": 0 if on_cpu else tasks,
    }
    size = most_checkpoints(config) * checkpoint_bytes(step.model.table.parameters, config.model.dtype)
    print(rendered(recipe, overrides or [], wanted, math.ceil(size / 2**30)))
    return status


def checked(config: Config, world_size: int) -> list[str]:
    """What preflight finds, a line a check. What needs files of the hub that are not cached here is skipped.

    Disks are left to the job's health check: the machine that submits may have others.

    Raises:
        UserError: with the first thing that a run would refuse.
    """
    from igrpo_mcore.planning.catalogue import planned_model
    from igrpo_mcore.preflight import checks

    model = planned_model(config.model.path, config.model.dtype)
    named = bool(config.run.name)
    found = checks(config, model.hf_config, model.architecture, world_size, writes_run=named)
    return [f"ok       model: {model.source}", *map(_line, found)]


def _line(check: "Check") -> str:
    try:
        return f"ok       {check.what}: {check.find()}"
    except (UserError, OSError) as error:
        remote = not_here(error, check.reads)
        if not remote:  # what is cached and wrong is wrong here too
            raise
        reason = f"{' or '.join(remote)} is on the hub and not whole in this machine's cache"
        return f"skipped  {check.what}: {reason} ({type(error.__cause__ or error).__name__})"


def rendered(recipe: Path, overrides: list[str], wanted: dict[str, int], free_gib: int) -> str:
    """The sbatch command of a job, and its script with the header that the command leads to.

    ``wanted`` holds options of sbatch by name; those that the script's header has already are left out.
    """
    script = SCRIPTS / f"{recipe.stem}.sh"
    own = script.is_file()
    arguments = overrides if own else [str(recipe), *overrides]
    if not own:
        script = SCRIPTS / "igrpo_7b.sh"
    if not script.is_file():
        return f"no script: there is no folder {SCRIPTS} here; run this in the root of the checkout"
    text = script.read_text()
    options = {name: str(value) for name, value in wanted.items()}
    variables = "" if own else f"MIN_FREE_GIB={free_gib} "
    if not own:
        options = {"job-name": recipe.stem, **options}
    given = []
    for name, value in options.items():
        line = re.compile(rf"^#SBATCH --{name}=(.*)$", re.MULTILINE)
        found = line.search(text)
        if found is None or found[1] != value:
            given.append(f"--{name}={value}")
            text = line.sub(f"#SBATCH --{name}={value}", text)
    command = f"{variables}{shlex.join(['sbatch', *given, str(script), *arguments])}"
    return f"To submit: {command}\n\n--- {script} as submitted\n{text}"
