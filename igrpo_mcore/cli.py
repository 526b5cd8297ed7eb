"""The command line: ``igrpo train | config | tiny``."""

import os
import sys
import time
import traceback
from pathlib import Path
from typing import Annotated

import typer

from igrpo_mcore.errors import UserError
from igrpo_mcore.quiet import quiet_libraries

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="iGRPO training on Megatron-Core, with vLLM engines in the same ranks.",
)

CHECKED = "IGRPO_PREFLIGHT_DONE"
"""Set for the ranks that `igrpo train` starts itself: it has checked everything already."""

Recipe = Annotated[Path, typer.Argument(help="YAML file of options, see recipes/.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Options as key=value, for example train.steps=10.")
]


@app.command()
def train(recipe: Recipe, overrides: Overrides = None) -> None:
    """Train by a recipe: starts the local ranks it needs, or joins torchrun's or srun's."""
    from igrpo_mcore.config.load import load_config
    from igrpo_mcore.launch import adopt_slurm_environment, in_job, start_local_ranks
    from igrpo_mcore.preflight import local_ranks, preflight
    from igrpo_mcore.report.run_folder import free_name

    config = load_config(recipe, overrides)
    config.run.name = config.run.name or free_name(config.run, recipe.stem)
    adopt_slurm_environment()
    if in_job():
        if os.environ["RANK"] == "0" and os.environ.get(CHECKED) != "1":
            preflight(config, int(os.environ["WORLD_SIZE"]))
        from igrpo_mcore.trainer import Trainer

        Trainer(config).run()
        return
    ranks = local_ranks(config)
    preflight(config, ranks)
    os.environ[CHECKED] = "1"
    arguments = ["train", str(recipe), *(overrides or []), f"run.name={config.run.name}"]
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
    except UserError as error:
        _wait_for_main_rank(rank)
        _leave(f"{prefix}: {error}", 2)
    except Exception:
        _wait_for_main_rank(rank)
        _leave(f"{prefix}: {traceback.format_exc()}", 1)


def _wait_for_main_rank(rank: str | None) -> None:
    # the same mistake is usually met by every rank: let rank 0 say it and end the job
    if rank not in (None, "0"):
        time.sleep(2)


def _leave(message: str, status: int) -> None:
    print(message, file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(status)
