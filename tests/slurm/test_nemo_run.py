"""recipes/launch.py: the script it renders, and 3 steps by NeMo-Run here and on a real Slurm."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.slurm.conftest import steps_of
from tests.slurm.local_slurm import LocalSlurm
from tests.support.ranks import ROOT

pytestmark = pytest.mark.slow

LIMIT_S = 500
LAUNCH = (sys.executable, "recipes/launch.py", "--factory")


def nemo(
    home: Path, *command: str, environment: dict[str, str] | None = None, limit_s: float = LIMIT_S
) -> str:
    """Run a command with NeMo-Run's records in ``home``; its output without the tables' frames."""
    variables = {
        **(environment or dict(os.environ)),
        "NEMORUN_HOME": str(home),
        "COLUMNS": "400",
        "OMP_NUM_THREADS": "1",
    }
    log = home / "command.log"
    home.mkdir(exist_ok=True)
    with log.open("w") as output:
        status = subprocess.run(
            command, cwd=ROOT, env=variables, stdout=output, stderr=subprocess.STDOUT, timeout=limit_s
        ).returncode
    text = log.read_text()
    assert status == 0, text[-6000:]
    return text


def as_options(overrides: list[str]) -> list[str]:
    return [f"config.{override}" for override in [*overrides, "train.steps=3", "run.name=nemo"]]


def command_of(script: str) -> str:
    """The rendered srun line; the console breaks it over lines."""
    return re.sub(r"\s+", " ", script[script.index("srun --output") :].split("exitcode")[0])


@pytest.mark.parametrize("recipe", ["igrpo_nemotron_h_8b", "tiny_qwen3"])
def test_dryrun_renders_the_script(tmp_path, recipe):
    """Slow to start, but without ranks."""
    script = nemo(
        tmp_path / "home",
        *(*LAUNCH, recipe, "config.train.steps=7", "run.executor=slurm", "run.executor.nodes=2"),
        *("--dryrun", "--yes"),
    )
    assert "#SBATCH --nodes=2" in script
    assert "#SBATCH --requeue" in script
    command = command_of(script)
    assert f"-m igrpo_mcore train recipes/{recipe}.yaml train.steps=7" in command
    assert re.search(rf"run\.name={recipe}-\d{{8}}-\d{{6}}", command)


@pytest.mark.parametrize(
    ("override", "said"),
    [("config.train.stps=7", "No parameter named 'stps'"), ("config.train.steps=many", "train.steps")],
)
def test_a_mistake_is_said_before_anything_is_submitted(tmp_path, override, said):
    command = (*LAUNCH, "tiny_qwen3", override, "run.executor=slurm", "--dryrun", "--yes")
    variables = os.environ | {"NEMORUN_HOME": str(tmp_path), "COLUMNS": "400"}
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 2
    assert said in done.stdout + done.stderr
    assert "SBATCH_SCRIPT" not in done.stdout


def test_a_run_that_fails_is_told_by_the_exit_status(tmp_path):
    command = (*LAUNCH, "tiny_qwen3", "config.parallel.tp=8", "run.executor=local", "--yes")
    variables = os.environ | {"NEMORUN_HOME": str(tmp_path), "COLUMNS": "400"}
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 1
    assert "the run did not succeed; see `nemo experiment logs igrpo-tiny_qwen3_" in done.stderr


@pytest.mark.timeout(1200)
def test_local_executor_trains_and_its_experiment_can_be_asked(tmp_path, small_run):
    runs, overrides = small_run
    options = [*as_options(overrides), "config.run.name=nemo-local", "config.parallel.pp=1"]
    nemo(tmp_path, *LAUNCH, "tiny_qwen3", *options, "run.executor=local", "--yes")
    assert steps_of(runs / "nemo-local") == [1, 2, 3]
    tool = str(Path(sys.executable).with_name("nemo"))
    assert "SUCCEEDED" in nemo(tmp_path, tool, "experiment", "status", "igrpo-tiny_qwen3")
    assert "TP = 2" in nemo(tmp_path, tool, "experiment", "logs", "igrpo-tiny_qwen3")


@pytest.mark.timeout(1200)
def test_slurm_executor_trains_over_two_nodes(slurm: LocalSlurm, tmp_path, small_run):
    runs, overrides = small_run
    path = f"{Path(__file__).parent}:{slurm.environment['PATH']}"  # sacct
    environment = slurm.environment | {"PATH": path}
    before = set(slurm.run("squeue", "-h", "-t", "all", "-o", "%i").split())
    nemo(
        tmp_path,
        *(*LAUNCH, "tiny_qwen3", *as_options(overrides), "run.executor=slurm", "run.executor.nodes=2"),
        *("run.executor.ntasks_per_node=2", "run.executor.gpus_per_node=0"),
        *("--detach", "--yes"),
        environment=environment,
    )
    (job,) = set(slurm.run("squeue", "-h", "-t", "all", "-o", "%i").split()) - before
    slurm.wait(job, LIMIT_S)
    logs = "\n".join(path.read_text() for path in tmp_path.rglob("*.out"))
    assert slurm.state(job)[:2] == ("COMPLETED", "0:0"), logs[-6000:]
    assert steps_of(runs / "nemo") == [1, 2, 3]
    tool = str(Path(sys.executable).with_name("nemo"))
    about = [tool, "experiment"]
    assert "SUCCEEDED" in nemo(tmp_path, *about, "status", "igrpo-tiny_qwen3", environment=environment)
    assert "TP = 2" in nemo(tmp_path, *about, "logs", "igrpo-tiny_qwen3", environment=environment)
