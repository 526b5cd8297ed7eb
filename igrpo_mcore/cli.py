"""The command line: ``igrpo train | verify | export | config | plan | tiny | bench``."""

import os
import sys
import time
import traceback
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from igrpo_mcore.errors import UserError
from igrpo_mcore.loading import loading
from igrpo_mcore.quiet import quiet_libraries
from igrpo_mcore.stop_signal import REQUEUE_STATUS, Stopped

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="iGRPO training on Megatron-Core, with vLLM engines in the same ranks.",
)

CHECKED = "IGRPO_PREFLIGHT_DONE"
"""Set for the ranks that `igrpo train` starts itself: it has checked everything already."""


class ExportType(StrEnum):
    bfloat16 = "bfloat16"
    float32 = "float32"


Recipe = Annotated[Path, typer.Argument(help="YAML file of options, see recipes/.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Options as key=value, for example train.steps=10.")
]


@app.command()
def train(
    recipe: Recipe,
    overrides: Overrides = None,
    dry: Annotated[
        bool,
        typer.Option("--dry-run", help="Resolve, check, plan, print the job's script; start nothing."),
    ] = False,
    gpu: Annotated[str, typer.Option(help="With --dry-run: as in `igrpo plan`.")] = "h100-80g",
    nodes: Annotated[int | None, typer.Option(help="With --dry-run: none takes the script's.")] = None,
    gpus_per_node: Annotated[int, typer.Option(help="With --dry-run: GPUs a node.")] = 8,
) -> None:
    """Train by a recipe: starts the local ranks it needs, or joins torchrun's or srun's."""
    if dry:
        from igrpo_mcore.dry_run import dry_run

        raise SystemExit(dry_run(recipe, overrides, gpu, nodes, gpus_per_node))
    if nodes is not None or (gpu, gpus_per_node) != ("h100-80g", 8):
        raise UserError(
            "--gpu, --nodes and --gpus-per-node belong to --dry-run; sbatch or torchrun set a run's"
        )
    _in_ranks("train", recipe, overrides)


@app.command()
def verify(
    source: Annotated[Path, typer.Argument(metavar="RUN_OR_RECIPE", help="A recipe, or runs/NAME.")],
    overrides: Overrides = None,
) -> None:
    """Load, reshard and push, then compare every tensor and the log-probs of sampler and trainer."""
    _in_ranks("verify", source, overrides)


def _in_ranks(command: str, source: Path, overrides: list[str] | None) -> None:
    from igrpo_mcore.config.load import load_config
    from igrpo_mcore.export import config_of_run
    from igrpo_mcore.launch import adopt_slurm_environment, in_job, start_local_ranks
    from igrpo_mcore.report.run_folder import free_name

    with loading():
        from igrpo_mcore.preflight import local_ranks, preflight, steps_done

    if command == "verify" and source.is_dir():
        options = config_of_run(source, overrides)
    else:
        options = load_config(source, overrides)
        options.run.name = options.run.name or free_name(options.run, source.stem)
    adopt_slurm_environment()
    requeued = int(os.environ.get("SLURM_RESTART_COUNT", "0")) > 0
    if command == "train" and requeued and steps_done(options) >= options.train.steps:
        # Slurm may requeue a job whose last node failed after the last step: nothing is left to do
        if os.environ.get("RANK", "0") == "0":
            typer.echo(f"run {options.run.name} is complete: {options.train.steps} steps")
        return
    if in_job():
        if os.environ["RANK"] == "0" and os.environ.get(CHECKED) != "1":
            preflight(options, int(os.environ["WORLD_SIZE"]), writes_run=command == "train")
        with loading():
            from igrpo_mcore.trainer import Trainer
            from igrpo_mcore.verify import verify as verify_run

        if command == "train":
            Trainer(options).run()
        else:
            verify_run(options, of_run=source.is_dir())
        return
    ranks = local_ranks(options)
    preflight(options, ranks, writes_run=command == "train")
    os.environ[CHECKED] = "1"
    arguments = [command, str(source), *(overrides or []), f"run.name={options.run.name}"]
    raise SystemExit(start_local_ranks(ranks, arguments))


@app.command()
def config(recipe: Recipe, overrides: Overrides = None) -> None:
    """Print the resolved tree of options."""
    from igrpo_mcore.config.load import load_config, to_yaml

    typer.echo(to_yaml(load_config(recipe, overrides)), nl=False)


@app.command()
def tiny(
    out: Annotated[Path, typer.Option(help="Folder to write; must be empty or new.")],
    family: Annotated[str, typer.Option(help="qwen3 or nemotron_h.")] = "qwen3",
    seed: Annotated[int, typer.Option(help="Same seed, same checkpoint.")] = 0,
) -> None:
    """Make a real Hugging Face checkpoint of under 3 M parameters that half knows arithmetic."""
    from igrpo_mcore.tiny.checkpoint import make_tiny_checkpoint

    stats = make_tiny_checkpoint(family, out, seed)
    typer.echo(
        f"{out}: {stats.parameters / 1e6:.2f} M parameters, {stats.steps} warm-up steps, "
        f"single-shot accuracy {stats.accuracy:.2f}"
    )


@app.command()
def plan(
    recipe: Recipe,
    overrides: Overrides = None,
    gpu: Annotated[str, typer.Option(help="h100-80g, h200, a100-80g or b200.")] = "h100-80g",
    nodes: Annotated[
        int | None, typer.Option(help="Nodes; none: those of the recipe's slurm script.")
    ] = None,
    gpus_per_node: Annotated[int, typer.Option(help="GPUs a node.")] = 8,
    search: Annotated[bool, typer.Option(help="Propose the best layouts for that many GPUs.")] = False,
    json: Annotated[bool, typer.Option(help="Print JSON.")] = False,
) -> None:
    """Say what each phase of a step needs and takes, and whether it fits, before submitting."""
    from igrpo_mcore.planning.command import run_plan

    raise SystemExit(run_plan(recipe, overrides, gpu, nodes, gpus_per_node, search, json))


@app.command()
def export(
    source: Annotated[
        Path, typer.Argument(metavar="RUN_OR_CHECKPOINT", help="runs/NAME, or one of its checkpoints.")
    ],
    out: Annotated[Path, typer.Option(help="Hugging Face folder to write; must be empty or new.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Another layout to load it at, for example parallel.tp=8.")
    ] = None,
    dtype: Annotated[ExportType, typer.Option(help="Type of the weights.")] = ExportType.bfloat16,
    step: Annotated[int | None, typer.Option(help="Step of the checkpoint; none takes the newest.")] = None,
) -> None:
    """Write a run's checkpoint as a Hugging Face folder that transformers and vLLM load; needs no GPU."""
    from igrpo_mcore.export import config_of_run, export_checkpoint, find_checkpoint, use_no_gpu
    from igrpo_mcore.launch import adopt_slurm_environment, in_job, start_local_ranks
    from igrpo_mcore.preflight import local_ranks

    use_no_gpu()
    checkpoint = find_checkpoint(source, step)
    options = config_of_run(checkpoint.parent.parent, [*(overrides or []), "parallel.dp=null"])
    adopt_slurm_environment()
    if in_job():
        import torch

        export_checkpoint(options, checkpoint, out, getattr(torch, dtype))
        return
    arguments = ["export", str(checkpoint), *(overrides or []), "--out", str(out), "--dtype", dtype]
    raise SystemExit(start_local_ranks(local_ranks(options), arguments))


bench = typer.Typer(no_args_is_help=True, help="Benchmarks.")
app.add_typer(bench, name="bench")


@bench.command("kernels", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def bench_kernels(context: typer.Context) -> None:
    """The loss kernels against their peers; options are those of `python -m igrpo_kernels.bench`."""
    from igrpo_kernels.bench.cli import main as run_bench

    raise SystemExit(run_bench(context.args))


def main() -> None:
    """Run the command; errors a user can mend become one sentence and exit status 2.

    A rank that fails leaves at once, without waiting for engine threads or collectives of the
    others, so that its launcher ends the job.
    """
    quiet_libraries()
    rank = os.environ.get("RANK")
    prefix = f"igrpo [rank {rank}]" if rank is not None else "igrpo"
    try:
        app(standalone_mode=True)
    except Stopped as stopped:
        _wait_for_main_rank(rank)
        said = f"igrpo: stopped on request after step {stopped.step}; the same command goes on from there"
        _leave(said if rank in (None, "0") else "", REQUEUE_STATUS)
    except UserError as error:
        _wait_for_main_rank(rank)
        _leave(f"{prefix}: {error}", 2)
    except Exception:
        _wait_for_main_rank(rank)
        _leave(f"{prefix}: {traceback.format_exc()}", 1)


def _wait_for_main_rank(rank: str | None) -> None:
    # every rank usually ends for the same reason: let rank 0 say it, the launcher then ends the others
    if rank not in (None, "0"):
        time.sleep(2)


def _leave(message: str, status: int) -> None:
    if message:
        print(message, file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(status)
