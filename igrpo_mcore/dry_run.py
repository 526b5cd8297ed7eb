"""``igrpo train --dry-run``: all that can be known before a job is submitted. Starts and writes nothing."""

import math
import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path

from igrpo_mcore.config.load import load_config
from igrpo_mcore.config.schema import Config, DType
from igrpo_mcore.errors import UserError

SCRIPTS = Path("slurm")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


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
    from igrpo_mcore.planning.parameters import parameter_count
    from igrpo_mcore.policy.checkpoint_folder import checkpoint_bytes
    from igrpo_mcore.preflight import local_ranks

    check_nodes(nodes, gpus_per_node)
    config = load_config(recipe, overrides)
    on_cpu = config.model.dtype == DType.float32
    if on_cpu:
        nodes, gpus_per_node = 1, local_ranks(config)
    step = planned_recipe(recipe, config, gpu, nodes, gpus_per_node)
    world = step.layout.world
    for line in checks(config, world):
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
    size = (config.checkpoint.keep + 1) * checkpoint_bytes(parameter_count(step.model), config.model.dtype)
    print(rendered(recipe, overrides or [], wanted, math.ceil(size / 2**30)))
    return status


def checks(config: Config, world_size: int) -> list[str]:
    """Preflight, a line a check. What needs files of the hub that are not cached here is skipped.

    Raises:
        UserError: with the first thing that a run would refuse.
    """
    from igrpo_mcore.data.problems import load_problems
    from igrpo_mcore.planning.catalogue import planned_model
    from igrpo_mcore.policy.architecture import check_layout
    from igrpo_mcore.preflight import check_checkpoint, check_prompts, check_steps_left
    from igrpo_mcore.report.run_folder import check_run_folder
    from igrpo_mcore.rewards.registry import load_reward
    from igrpo_mcore.rollout.limits import check_engine

    model = planned_model(config.model.path, config.model.dtype)
    check_layout(model.architecture, config.parallel, config.rollout.tp, world_size)
    check_engine(model.hf_config, config.rollout)
    lines = [f"ok       model and layout: {config.model.path} on {world_size} ranks ({model.source})"]
    for name in config.reward.weights:
        load_reward(name)
    lines.append(f"ok       rewards: {', '.join(config.reward.weights)}")
    if config.run.name:
        check_run_folder(config)
        check_steps_left(config)
        lines.append(f"ok       run folder: {Path(config.run.dir) / config.run.name}")
    problems = []

    def read_problems() -> str:
        problems.extend(load_problems(config.data))
        return f"{len(problems)} problems"

    def read_prompts() -> str:
        check_prompts(config, problems)
        return f"all within rollout.max_prompt_tokens={config.rollout.max_prompt_tokens}"

    def read_checkpoint() -> str:
        check_checkpoint(config.model.path, model.hf_config)
        return "every tensor is there with its shape"

    lines.append(_unless_remote("data", config.data.path, read_problems))
    if problems:
        lines.append(_unless_remote("prompts", config.model.path, read_prompts))
    else:
        lines.append("skipped  prompts: they need the data")
    lines.append(_unless_remote("checkpoint names", config.model.path, read_checkpoint))
    return lines


def _unless_remote(what: str, path: str, check: Callable[[], str]) -> str:
    try:
        return f"ok       {what}: {check()}"
    except (UserError, OSError) as error:
        if Path(path).exists() or not HUB_ID.fullmatch(path):
            raise
        reason = f"{path} is on the hub and not whole in this machine's cache"
        return f"skipped  {what}: {reason} ({type(error.__cause__ or error).__name__})"


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
