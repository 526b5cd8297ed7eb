"""``igrpo plan``: from a recipe to a printed plan and an exit status."""

import re
import sys
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from igrpo_mcore.config.load import load_config
from igrpo_mcore.config.schema import Config
from igrpo_mcore.errors import UserError
from igrpo_mcore.planning.advice import advise
from igrpo_mcore.planning.comparison import compared
from igrpo_mcore.planning.efficiency import Efficiency
from igrpo_mcore.planning.epoch import epoch_of, known_problems
from igrpo_mcore.planning.gpus import gpu_named
from igrpo_mcore.planning.limits import limits
from igrpo_mcore.planning.plan import PlannedStep, planned_step
from igrpo_mcore.planning.report import Report, print_plan, to_json
from igrpo_mcore.planning.search import search as best_layouts
from igrpo_mcore.planning.workload import Lengths, assumed_lengths

FITS, DOES_NOT_FIT = 0, 2
PLAIN_WIDTH = 110


def run_plan(
    recipe: Path,
    overrides: list[str] | None = None,
    gpu: str = "h100-80g",
    nodes: int | None = None,
    gpus_per_node: int = 8,
    search: bool = False,
    as_json: bool = False,
    completion_tokens: int | None = None,
    efficiency: float | None = None,
    problems: int | None = None,
) -> int:
    """Plan a recipe and print it. Needs no GPU, no weights and no network.

    Args:
        nodes: none takes those of the recipe's script in slurm/, else the fewest that hold its layout.
        completion_tokens: mean length of completions; none assumes half their budget.
        efficiency: share of the peak FLOP/s that the trainer reaches, over 0 and at most 1.
        problems: of an epoch; none takes those of the recipe's data where they are known.

    Returns:
        0 where it fits, 2 where it does not.

    Raises:
        UserError: unknown recipe, option, model or GPU, or a layout that a run would refuse.
    """
    check_nodes(nodes, gpus_per_node)
    config = load_config(recipe, overrides)
    step = planned_recipe(
        recipe,
        config,
        gpu,
        nodes,
        gpus_per_node,
        lengths=_lengths(config, completion_tokens),
        efficiency=_efficiency(efficiency),
    )
    if problems is not None and problems < 1:
        raise UserError(f"--problems {problems} must be at least 1")
    return show_plan(recipe, step, search, as_json, problems)


def _lengths(config: Config, completion: int | None) -> Lengths | None:
    if completion is None:
        return None
    limit = config.rollout.max_completion_tokens
    if not 1 <= completion <= limit:
        raise UserError(
            f"--completion-tokens {completion} must be 1 to rollout.max_completion_tokens={limit}; "
            "give a mean length within it"
        )
    return replace(assumed_lengths(config), completion=completion)


def _efficiency(share: float | None) -> Efficiency | None:
    if share is None:
        return None
    if not 0 < share <= 1:
        raise UserError(
            f"--efficiency {share:g} is a share of the peak FLOP/s: give more than 0 and at most 1"
        )
    return Efficiency(update_flops=share)


def check_nodes(nodes: int | None, gpus_per_node: int) -> None:
    """Raises ``UserError`` for a cluster of nothing."""
    if gpus_per_node < 1 or (nodes is not None and nodes < 1):
        raise UserError("--nodes and --gpus-per-node must be at least 1")


def planned_recipe(
    recipe: Path,
    config: Config,
    gpu: str,
    nodes: int | None,
    gpus_per_node: int,
    lengths: Lengths | None = None,
    efficiency: Efficiency | None = None,
) -> PlannedStep:
    """The plan of a recipe whose options are ``config``; arguments and errors as of ``run_plan``."""
    if nodes is None and config.parallel.dp is None:
        nodes = script_nodes(recipe)
    world = nodes * gpus_per_node if nodes else None
    return planned_step(
        config,
        gpu=gpu_named(gpu),
        world=world,
        gpus_per_node=gpus_per_node,
        lengths=lengths,
        efficiency=efficiency,
    )


def script_nodes(recipe: Path) -> int | None:
    """The nodes that the recipe's own script, ``slurm/<its name>.sh`` of the checkout, asks for."""
    script = recipe.resolve().parent.parent / "slurm" / f"{recipe.stem}.sh"
    found = re.search(r"^#SBATCH --nodes=(\d+)$", script.read_text(), re.M) if script.is_file() else None
    return int(found[1]) if found else None


def show_plan(
    recipe: Path,
    step: PlannedStep,
    search: bool = False,
    as_json: bool = False,
    problems: int | None = None,
) -> int:
    """Print a plan; 0 where it fits, 2 where it does not."""
    problems = problems or known_problems(step.config)
    report = Report(
        recipe=str(recipe),
        step=step,
        limits=limits(step),
        changes=advise(step),
        proposals=best_layouts(step) if search else None,
        epoch=epoch_of(step, problems) if problems else None,
        schedules=compared(step),
        notes=notes_of(step),
    )
    if as_json:
        print(to_json(report))
    else:
        print_plan(Console(file=sys.stdout, width=None if sys.stdout.isatty() else PLAIN_WIDTH), report)
    return FITS if step.fits else DOES_NOT_FIT


def notes_of(step: PlannedStep) -> list[str]:
    """What a reader should know beside the numbers."""
    notes = []
    rollout = step.config.rollout
    longest = rollout.longest_sequence
    positions = step.model.hf_config.max_position_embeddings
    if longest > positions:
        notes.append(
            f"the longest prompt and completion are {longest} tokens, over the checkpoint's "
            f"max_position_embeddings {positions}: `igrpo train` refuses that"
        )
    if step.config.train.micro_batch_tokens < longest:
        notes.append(
            f"a sequence may have {longest} tokens, more than train.micro_batch_tokens="
            f"{step.config.train.micro_batch_tokens}: memory is planned for one such sequence"
        )
    return notes
