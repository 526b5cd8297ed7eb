"""The sbatch scripts themselves, submitted to a real Slurm: two nodes of two ranks each."""

import json
import math
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from safetensors import safe_open

from igrpo_mcore.config.schema import DType
from igrpo_mcore.run.checkpoint_folder import checkpoint_bytes
from tests.slurm.conftest import steps_of
from tests.slurm.local_slurm import LocalSlurm
from tests.support.ranks import ROOT, igrpo

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SCRIPT, RECIPE = "slurm/igrpo_14b.sh", "recipes/tiny_qwen3.yaml"
SMALL = ["--nodes=2", "--ntasks-per-node=2", "--gpus-per-node=0", "--export=ALL,MIN_FREE_GIB=1"]
A_RANK_A_NODE = ["--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=0"]
"""With parallel.pp=1, half the ranks: where the layout is not what a test is about."""
START_LIMIT_S = 400.0
"""Until the first step of 4 ranks on 2 busy cores; a poll's limit, not a claim."""


@pytest.fixture
def submit(slurm: LocalSlurm):
    """Submit the script as a user does; gives job ids, and removes the jobs' logs in the end."""
    jobs: list[str] = []

    def _submit(*arguments: str, cwd: Path = ROOT) -> str:
        jobs.append(slurm.sbatch(*arguments, cwd=cwd))
        return jobs[-1]

    yield _submit
    for job in jobs:
        if slurm.state(job)[0] not in ("COMPLETED", "FAILED", "CANCELLED"):
            slurm.run("scancel", job)
            slurm.wait(job, 120)
        for log in (ROOT / "slurm/logs").glob(f"*-{job}*"):  # job ids of this Slurm are all as long
            shutil.rmtree(log) if log.is_dir() else log.unlink()


def log_of(job: str, name: str = "igrpo_14b") -> str:
    path = ROOT / f"slurm/logs/{name}-{job}.log"
    return path.read_text() if path.exists() else ""


def wait_for_step(slurm: LocalSlurm, job: str, run: Path, step: int) -> None:
    def reached() -> bool:
        assert slurm.state(job)[0] in ("PENDING", "RUNNING", "COMPLETING"), log_of(job)[-6000:]
        return step in steps_of(run)

    slurm.wait_for(reached, START_LIMIT_S, f"step {step} of job {job}")


def test_trains_over_two_nodes_and_goes_on_after_the_warning_signal(slurm, submit, small_run):
    runs, overrides = small_run
    steps = 16  # long enough that the first start does not reach the end before it is stopped
    job = submit(*SMALL, SCRIPT, RECIPE, *overrides, f"train.steps={steps}", "checkpoint.every=1")
    run = runs / f"igrpo_14b-{job}"
    wait_for_step(slurm, job, run, 3)  # trained over two nodes
    slurm.run("scancel", "--signal=USR1", job)  # what --signal=USR1@900 sends before the time limit
    slurm.wait_for(lambda: slurm.state(job)[2] == 1, START_LIMIT_S, "the job to requeue itself")
    assert "asks to go on: the job is requeued" in log_of(job)
    assert slurm.wait(job, 2 * START_LIMIT_S) == "COMPLETED", log_of(job)[-6000:]
    assert steps_of(run) == list(range(1, steps + 1))
    log = log_of(job)
    assert len(re.findall(r"^igrpo: job .* start \d", log, re.MULTILINE)) == 2
    assert log.count("igrpo health: 2 nodes are well") == 2
    assert "TP = 2" in log  # rank 0's own lines
    folder = ROOT / f"slurm/logs/igrpo_14b-{job}"
    logs = [folder / f"rank-{rank}.log" for rank in range(4)]
    assert sorted(folder.glob("rank-*.log")) == logs
    for rank, path in enumerate(logs):
        lines = [line for line in path.read_text().splitlines() if line.startswith(f"igrpo [rank {rank} on ")]
        assert len(lines) == 2
        for name in ("CUDA_DEVICE_MAX_CONNECTIONS=1", "TOKENIZERS_PARALLELISM=false", "OMP_NUM_THREADS=1"):
            assert name in lines[0].split()


@pytest.fixture
def small_disk(tmp_path):
    """Makes a file system of so many bytes."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(size: int) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "igrpo-tests", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
        return folder

    yield mount
    subprocess.run(["umount", "--lazy", str(folder)], capture_output=True, check=False)


def test_a_requeued_job_goes_on_on_a_small_disk_and_scancel_leaves_a_whole_checkpoint(
    slurm, submit, small_run, small_disk, tmp_path
):
    """With two checkpoints on the disk less is free than the job asked for when it started: its own node
    check passes all the same."""
    _, overrides = small_run
    model = Path(overrides[0].removeprefix("model.path="))
    with safe_open(model / "model.safetensors", "pt") as tensors:
        parameters = sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    asked = 3 * checkpoint_bytes(parameters, DType.float32)  # checkpoint.keep and the one being written
    runs = small_disk(asked + 6 * 2**20)
    run = runs / "tight"
    options = [f"run.dir={runs}", "run.name=tight", "checkpoint.every=1", "train.steps=1000", "parallel.pp=1"]
    gib = asked / 2**30
    job = submit(*A_RANK_A_NODE, f"--export=ALL,MIN_FREE_GIB={gib}", SCRIPT, RECIPE, *overrides, *options)
    wait_for_step(slurm, job, run, 4)
    slurm.run("scontrol", "requeue", job)  # no warning: what the step in progress did is lost
    slurm.wait_for(lambda: slurm.state(job)[2] == 1, START_LIMIT_S, "the requeue")
    checked = "igrpo health: 2 nodes are well"
    slurm.wait_for(lambda: log_of(job).count(checked) == 2, START_LIMIT_S, "the second start's check")
    wait_for_step(slurm, job, run, max(steps_of(run)) + 1)
    answers = ROOT / f"slurm/logs/igrpo_14b-{job}/health-1.jsonl"
    nodes = [json.loads(line) for line in answers.read_text().splitlines()]
    assert len(nodes) == 2
    assert all(node["free_gib"][str(runs)] < gib for node in nodes)

    slurm.run("scancel", job)
    assert slurm.wait(job, 120) == "CANCELLED"
    assert steps_of(run) == list(range(1, max(steps_of(run)) + 1))
    checkpoints = sorted(path.name for path in (run / "checkpoints").glob("step_*"))
    assert checkpoints
    assert all(re.fullmatch(r"step_\d{6}", checkpoint) for checkpoint in checkpoints)
    # whole: every tensor of the newest can be read, at another layout
    status, output = igrpo("export", run, "parallel.tp=1", "parallel.sp=false", "--out", tmp_path / "hf")
    assert status == 0, output[-4000:]
    assert checkpoints[-1] in output


def test_a_bad_node_ends_the_job_with_its_reason(slurm, submit):
    """The script as it is, on nodes that promise 8 GPUs and have none."""
    job = submit(SCRIPT)
    assert slurm.wait(job, 180) == "FAILED"
    assert slurm.state(job)[1:] == ("1:0", 0)  # ended, not requeued
    log = log_of(job)
    for node in ("node1", "node2"):
        assert f"igrpo health: {node}: 0 GPUs seen, 8 expected" in log
    assert log.splitlines()[-1].startswith("igrpo: a node is not fit")


def test_a_failing_rank_gives_the_job_its_status(slurm, submit, small_run):
    _, overrides = small_run
    job = submit(*SMALL, SCRIPT, RECIPE, *overrides, "parallel.tp=8")
    assert slurm.wait(job, START_LIMIT_S) == "FAILED"
    assert slurm.state(job)[1:] == ("2:0", 0)
    last = log_of(job).splitlines()[-1]
    assert last == (f"igrpo: rank 0 ended first, with status 2; see slurm/logs/igrpo_14b-{job}/rank-0.log")


def test_submitted_from_elsewhere(slurm, submit, tmp_path):
    job = slurm.sbatch("--output=job.log", *SMALL, str(ROOT / SCRIPT), cwd=tmp_path)
    assert slurm.wait(job, 60) == "FAILED"
    assert "submit from the root of the checkout, or with --chdir=ROOT" in (tmp_path / "job.log").read_text()
    job = submit(f"--chdir={ROOT}", *SMALL, str(ROOT / SCRIPT), "recipes/no_such.yaml", cwd=tmp_path)
    assert slurm.wait(job, 60) == "FAILED"
    assert "there is no recipe recipes/no_such.yaml" in log_of(job)  # where the jobs' logs lie


def test_unknown_recipe(slurm, submit):
    job = submit(*SMALL, SCRIPT, "recipes/no_such.yaml")
    assert slurm.wait(job, 60) == "FAILED"
    assert "there is no recipe recipes/no_such.yaml" in log_of(job)


def test_slurm_takes_what_a_dry_run_prints(slurm, small_run, tmp_path):
    _, overrides = small_run
    status, said = igrpo("train", RECIPE, *overrides, "--dry-run")
    assert status == 0, said
    command, script = said.split("To submit: ")[1].split("\n\n--- slurm/igrpo_7b.sh as submitted\n")
    variable, program, *arguments = shlex.split(command)
    assert (variable, program) == ("MIN_FREE_GIB=1", "sbatch")
    assert arguments[-len(overrides) :] == overrides
    slurm.run("sbatch", "--test-only", *arguments, cwd=ROOT)
    (tmp_path / "job.sh").write_text(script)
    slurm.run("sbatch", "--test-only", str(tmp_path / "job.sh"), cwd=ROOT)
