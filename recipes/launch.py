"""Launch a recipe by NeMo-Run: here, on Slurm (from its login node or over SSH), Kubernetes or SkyPilot.

    python recipes/launch.py --factory igrpo_14b config.train.steps=10 run.executor=slurm \
        run.executor.account=ACCOUNT run.executor.partition=PARTITION [--dryrun] [--yes] [--detach]

``--factory`` is a recipe's name, ``config.*`` its options as in `igrpo train`, ``run.executor`` one of the
factories below with ``run.executor.*`` its fields. Then `nemo experiment status|logs|cancel ID`.
Every rank runs `python -m igrpo_mcore train RECIPE key=value ...`; see docs/launch.md.
"""

import dataclasses
import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import nemo_run as run

from igrpo_mcore.config.load import load_config
from igrpo_mcore.config.schema import Config
from igrpo_mcore.errors import UserError

MAX_RESTARTS = 50
"""Requeues of a Slurm job that asks to go on."""
ROOT = Path(__file__).resolve().parents[1]
RECIPES = sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml") if path.stem != "paper")

# ---- options -----------------------------------------------------------------------------------

# The sections of Config with every option as text, empty where it is left to the recipe: NeMo-Run's
# command line refuses unknown names by it, and load_config reads the values as `igrpo train` does.
SECTIONS = {
    section.name: dataclasses.make_dataclass(
        section.type.__name__,
        [(option.name, str, "") for option in dataclasses.fields(section.type)],
    )
    for section in dataclasses.fields(Config)
}
Options = dataclasses.make_dataclass("Options", list(SECTIONS.items()))


def options_of(config: Options) -> list[str]:
    """The options that were set, as ``key=value``."""
    return [
        f"{section}.{name}={value}"
        for section in SECTIONS
        for name, value in dataclasses.asdict(getattr(config, section)).items()
        if value
    ]


# ---- executors: run.executor=NAME --------------------------------------------------------------


@run.cli.factory
def local() -> run.Config[run.LocalExecutor]:
    """This machine; `igrpo train` starts the ranks of the layout itself."""
    return run.Config(run.LocalExecutor)


def _slurm(tunnel: run.Config, packager: run.Config) -> run.Config:
    return run.Config(
        run.SlurmExecutor,
        account=os.environ.get("SBATCH_ACCOUNT"),
        partition=os.environ.get("SBATCH_PARTITION"),
        nodes=1,
        ntasks_per_node=8,
        gpus_per_node=8,
        exclusive=True,
        mem="0",
        time="04:00:00",
        signal="USR1@900",  # to the ranks: finish the step, write a checkpoint, ask to be requeued
        job_name_prefix="igrpo-",
        # srun starts the ranks, igrpo_mcore/launch.py gives each its place; containers lack scontrol
        setup_lines="export MASTER_ADDR=$head_node MASTER_PORT=$((20000 + SLURM_JOB_ID % 10000))\n"
        # a rank that asks to go on ends with 75
        f"trap '[ $? != 75 ] || [ ${{SLURM_RESTART_COUNT:-0}} -ge {MAX_RESTARTS} ] || "
        "scontrol requeue $SLURM_JOB_ID' EXIT",
        # the ranks that end with 75 first must not have the others killed; NeMo-Run's --wait=60 still
        # ends a job whose rank failed
        srun_args=["--kill-on-bad-exit=0", "--cpu-bind=none"],
        additional_parameters={"requeue": True},
        tunnel=tunnel,
        packager=packager,
    )


@run.cli.factory
def slurm() -> run.Config[run.SlurmExecutor]:
    """Slurm, from a node that has sbatch. This checkout and NEMORUN_HOME must be on a shared file system."""
    return _slurm(run.Config(run.LocalTunnel, job_dir=""), run.Config(run.Packager))


@run.cli.factory
def slurm_ssh(host: str, user: str, job_dir: str) -> run.Config[run.SlurmExecutor]:
    """Slurm over SSH: slurm_ssh(host=LOGIN,user=NAME,job_dir=SHARED_FOLDER); ships the last commit."""
    tunnel = run.Config(run.SSHTunnel, host=host, user=user, job_dir=job_dir)
    return _slurm(tunnel, run.Config(run.GitArchivePackager))


@run.cli.factory(target=run.Executor)
def kubeflow() -> run.Config[run.KubeflowExecutor]:
    """Kubernetes by Kubeflow's training operator (needs nemo_run[kubeflow]); image= starts in a checkout."""
    return run.Config(
        run.KubeflowExecutor, launcher="torchrun", num_nodes=1, nprocs_per_node=8, gpus_per_node=8
    )


@run.cli.factory
def skypilot() -> run.Config[run.SkypilotExecutor]:
    """SkyPilot, on Kubernetes or a cloud (needs nemo_run[skypilot]); set container_image=, infra=."""
    return run.Config(
        run.SkypilotExecutor,
        launcher="torchrun",
        gpus="H100",
        gpus_per_node=8,
        num_nodes=1,
        packager=run.Config(run.GitArchivePackager),
    )


class Context(run.cli.RunContext):
    """NeMo-Run's own ends with status 0 on an error, and shows the whole tree of options for a wrong one."""

    def cli_execute(self, *arguments: Any, **options: Any) -> None:
        try:
            super().cli_execute(*arguments, **options)
        except Exception as error:
            message = str(error) if isinstance(error, UserError) else str(error).split(" exists for ")[0]
            print(f"launch: {message}", file=sys.stderr)
            raise SystemExit(2) from None


# ---- the experiment ----------------------------------------------------------------------------


def program(recipe: str, options: list[str], executor: run.Executor, python: str) -> run.Script:
    """``python -m igrpo_mcore train recipe options`` for every rank of an executor."""
    arguments = ["train", recipe, *options]
    if not isinstance(executor, run.LocalExecutor) and not any(o.startswith("run.name=") for o in options):
        # fixed here, so that a job that is started again resumes
        arguments.append(f"run.name={Path(recipe).stem}-{time.strftime('%Y%m%d-%H%M%S')}")
    if isinstance(executor, run.SlurmExecutor) and executor.launcher is None:
        arguments = [shlex.quote(argument) for argument in arguments]  # NeMo-Run's torchrun does it itself
    return run.Script("igrpo_mcore", m=True, entrypoint=python, args=arguments)


def settle(executor: run.Executor, python: str) -> str:
    """Have an executor run where igrpo_mcore and the recipes are found; returns its python."""
    container = getattr(executor, "container_image", None) or getattr(executor, "image", None)
    if isinstance(executor, run.LocalExecutor) or type(executor.packager) is run.Packager:
        python = python or ("python" if container else sys.executable)
    if type(executor.packager) is not run.Packager:  # a shipped copy is the working directory
        executor.env_vars["PYTHONPATH"] = ".:kernels"
    elif isinstance(executor, run.SlurmExecutor):
        if container:
            executor.container_mounts.append(f"{ROOT}:{ROOT}")
            executor.env_vars["PYTHONPATH"] = f"{ROOT}:{ROOT}/kernels"
        flag = "--container-workdir" if container else "--chdir"
        executor.srun_args = [*(executor.srun_args or []), f"{flag}={ROOT}"]
    return python or "python"


def train(
    ctx: Context,
    recipe: str,
    config: Options,
    python: str = "",
) -> None:
    """Train by a recipe.

    Args:
        recipe: YAML file of options; relative to the checkout.
        config: options over it.
        python: the interpreter there; empty takes this one, or the container's.
    """
    os.chdir(ROOT)
    options = options_of(config)
    load_config(recipe, options)  # a mistake is said here, not an hour into the queue
    executor = ctx.executor
    python = settle(executor, python)
    with run.Experiment(f"igrpo-{Path(recipe).stem}") as experiment:
        experiment.add(program(recipe, options, executor, python), executor=executor, name=Path(recipe).stem)
        ctx.launch(experiment)
    if not (ctx.dryrun or ctx.detach):
        jobs = (experiment.status(return_dict=True) or {}).values()
        if any(str(job["status"]) != "SUCCEEDED" for job in jobs):
            print(
                f"launch: the run did not succeed; see `nemo experiment logs {experiment._id}`",
                file=sys.stderr,
            )
            raise SystemExit(1)


def _recipe_factory(name: str):
    def factory() -> run.Partial:
        empty = run.Config(Options, **{section: run.Config(kind) for section, kind in SECTIONS.items()})
        return run.Partial(train, recipe=f"recipes/{name}.yaml", config=empty)

    return factory


train = run.cli.entrypoint(namespace="igrpo", type="experiment", run_ctx_cls=Context)(train)
for _name in RECIPES:
    run.cli.factory(_recipe_factory(_name), target=train, name=_name)

if __name__ == "__main__":
    run.cli.main(train, default_factory=_recipe_factory("tiny_qwen3"), default_executor=local())
