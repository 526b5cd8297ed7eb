"""A sweep as one Slurm array: a task a run, each by slurm/common.sh as any job."""

import math
import re
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from igrpo_mcore.config.schema import DType
from igrpo_mcore.dry_run import SCRIPTS
from igrpo_mcore.errors import UserError, cannot_write
from igrpo_mcore.study.variants import SweepRun

SCRIPT_FILE, JOB_FILE = "array.sh", "array.job"
_HEADER = re.compile(r"^#SBATCH --([\w-]+)(?:=(.*))?$", re.MULTILINE)


def array_script(name: str, runs: Sequence[SweepRun], options: dict[str, str], at_a_time: int | None) -> str:
    """The script of an array with a task for each of ``runs``; the header is that of the recipe's own script
    in slurm/ (else of igrpo_7b.sh) with ``options`` over it.

    Raises:
        UserError: no such script here, or runs of different layouts, which one header cannot serve.
    """
    from igrpo_mcore.planning.catalogue import planned_model
    from igrpo_mcore.preflight import local_ranks, most_checkpoints
    from igrpo_mcore.run.checkpoint_folder import checkpoint_bytes

    first = runs[0].config
    ranks = {local_ranks(run.config): run.variant.name for run in runs}
    if len(ranks) > 1:
        said = " and ".join(f"{variant} {count}" for count, variant in ranks.items())
        raise UserError(f"one array needs runs of one size, and ranks differ ({said}): make a sweep of each")
    base = SCRIPTS / f"{runs[0].recipe.stem}.sh"
    base = base if base.is_file() else SCRIPTS / "igrpo_7b.sh"
    if not base.is_file():
        raise UserError(f"there is no folder {SCRIPTS} here; run this in the root of the checkout")
    header: dict[str, str | None] = {key: value or None for key, value in _HEADER.findall(base.read_text())}
    if first.model.dtype == DType.float32:  # a recipe for machines without a GPU
        header |= {"nodes": "1", "ntasks-per-node": str(next(iter(ranks))), "gpus-per-node": "0"}
    header |= {"job-name": name, "output": "slurm/logs/%x-%A_%a.log", **options}
    header["array"] = f"0-{len(runs) - 1}" + (f"%{at_a_time}" if at_a_time else "")
    sbatch = [f"#SBATCH --{key}" + (f"={value}" if value else "") for key, value in header.items()]
    parameters = planned_model(first.model.path, first.model.dtype).table.parameters
    room = most_checkpoints(first) * checkpoint_bytes(parameters, first.model.dtype)
    tasks = [f"  {shlex.quote(shlex.join(run.arguments))} # {run.name}" for run in runs]
    return "\n".join(
        [
            "#!/usr/bin/env bash",
            f"# The runs of the sweep {name}, a task each. Written by `igrpo sweep`; submit it from the root",
            "# of the checkout. A run that is requeued, or submitted again, goes on from its checkpoint.",
            *sbatch,
            "",
            f"export MIN_FREE_GIB=${{MIN_FREE_GIB:-{math.ceil(room / 2**30)}}} # the checkpoints of one run",
            "[ -f slurm/common.sh ] || {",
            '  echo "igrpo: there is no slurm/common.sh in $PWD; submit from the root of the checkout" >&2',
            "  exit 2",
            "}",
            "runs=(",
            *tasks,
            ")",
            'eval "set -- ${runs[SLURM_ARRAY_TASK_ID]}"',
            'exec bash slurm/common.sh "$@"',
            "",
        ]
    )


def submit(folder: Path, script: str) -> str:
    """Write ``folder/array.sh``, submit it, and return the array's job id.

    Raises:
        UserError: an earlier array of the sweep is still there, no sbatch, or sbatch refuses.
    """
    job_file, path = folder / JOB_FILE, folder / SCRIPT_FILE
    if job_file.is_file():
        earlier = job_file.read_text().strip()
        asked = subprocess.run(["squeue", "--noheader", f"--jobs={earlier}"], capture_output=True, text=True)
        if asked.returncode == 0 and asked.stdout.strip():
            raise UserError(
                f"the array {earlier} of this sweep is still there: wait for it, or scancel {earlier}"
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(script)
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        done = subprocess.run(
            ["sbatch", "--parsable", str(path)], capture_output=True, text=True, check=True, timeout=120
        )
    except FileNotFoundError as error:
        raise UserError(
            "there is no sbatch here: submit from a node that has it, or leave --slurm out"
        ) from error
    except subprocess.CalledProcessError as error:
        raise UserError(f"sbatch refused {path}: {error.stderr.strip()}") from error
    job = done.stdout.strip().partition(";")[0]
    job_file.write_text(f"{job}\n")
    return job
