"""slurm/common.sh with stand-ins for srun, scontrol and python: every branch in a second."""

import os
import shlex
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.support.ranks import ROOT

SRUN = r"""#!/bin/bash
printf '%q ' srun "$@" >>"$CALLS"; echo >>"$CALLS"
out=/dev/stdout
while [[ $1 == --* ]]; do [[ $1 != --output=* ]] || out=${1#--output=}; shift; done
SLURM_PROCID=0 "$@" >>"${out//%t/0}" 2>&1
"""
SCONTROL = r"""#!/bin/bash
if [ "$1" = show ]; then printf 'node1\nnode2\n'; exit; fi
printf '%q ' scontrol "$@" >>"$CALLS"; echo >>"$CALLS"
"""
PYTHON = r"""#!/bin/bash
if [ "$2" = igrpo_mcore ]; then echo "igrpo [rank 0 on node1]: A=1"; eval "$TRAIN"; fi
"""
NCCL_ERROR = "echo 'torch.distributed.DistBackendError: NCCL error in: X.cpp:94, remote error'; exit 1"


class Job:
    """What common.sh did with a job: its status, words, and the calls of srun and scontrol."""

    def __init__(self, folder: Path, train: str, **environment: str) -> None:
        calls = folder / "calls"
        calls.write_text("")
        inherited = {name: os.environ[name] for name in ("HOME", "PATH")}
        job = {
            "SLURM_JOB_ID": "77",
            "SLURM_JOB_NAME": "j",
            "SLURM_JOB_NODELIST": "node[1-2]",
            "SLURM_JOB_NUM_NODES": "2",
            "HF_HOME": str(folder / "hf"),
            "VENV": str(folder / "venv"),
            "CALLS": str(calls),
            "TRAIN": train,
        }
        job["PATH"] = f"{folder}/bin:{inherited['PATH']}"
        done = subprocess.run(
            ["bash", "slurm/common.sh", "recipe.yaml", "train.steps=3"],
            cwd=folder,
            env=inherited | job | environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        self.status, self.said = done.returncode, done.stderr + done.stdout
        self.calls = [shlex.split(line) for line in calls.read_text().splitlines()]
        self.requeued = ["scontrol", "requeue", "77"] in self.calls


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "slurm").mkdir()
    for script in (ROOT / "slurm").glob("*.sh"):
        shutil.copy(script, tmp_path / "slurm")
    (tmp_path / "recipe.yaml").touch()
    programs = {"bin/srun": SRUN, "bin/scontrol": SCONTROL, "bin/sleep": "#!/bin/sh\n"}
    for name, text in (programs | {"venv/bin/python": PYTHON, "bin/python": PYTHON}).items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    return tmp_path


def test_a_job_checks_its_nodes_asks_the_hub_once_and_trains(folder):
    job = Job(folder, "exit 0")
    assert job.status == 0, job.said
    modules = [call[call.index("-m") + 1] for call in job.calls if "-m" in call]
    assert modules == ["igrpo_mcore.health", "igrpo_mcore.health", "igrpo_mcore.fetch", "igrpo_mcore"]
    for call in (job.calls[0], job.calls[2], job.calls[3]):  # all of the same run
        assert call[-3:] == ["recipe.yaml", "run.name=j-77", "train.steps=3"]
    assert "--ntasks=1" in job.calls[2]


def test_what_a_rank_is_given(folder):
    told = "echo $PYTHONNOUSERSITE $HF_HOME $HF_HUB_OFFLINE $MASTER_PORT >told"
    assert Job(folder, told).status == 0
    user_site, home, offline, port = (folder / "told").read_text().split()
    assert (user_site, home, offline) == ("1", f"{folder}/hf", "1")
    assert 1024 < int(port) < 65536
    Job(folder, told, HF_HUB_OFFLINE="0")  # nodes with a cache of their own each
    assert (folder / "told").read_text().split()[2] == "0"


def test_a_container_is_imported_by_one_step_without_a_time_limit(folder):
    job = Job(folder, "exit 0", CONTAINER_IMAGE="registry#image", CONTAINER_MOUNTS="/data:/data")
    assert job.status == 0, job.said
    sruns = [call for call in job.calls if call[0] == "srun"]
    assert all("--container-name=igrpo-77" in call for call in sruns)
    mounts = f"--container-mounts={folder}:{folder},{folder}/hf:{folder}/hf,/data:/data"
    assert all(mounts in call for call in sruns)
    assert sruns[0][-1] == "true"
    assert not any(word.startswith("--time") for word in sruns[0])


@pytest.mark.parametrize(
    ("environment", "gpus"),
    [
        ({}, "0"),
        ({"SLURM_GPUS_PER_NODE": "h100:8"}, "8"),
        ({"SLURM_GPUS_ON_NODE": "4"}, "4"),  # --gres=gpu:4, or --gpus
        ({"SLURM_GPUS_PER_NODE": "0", "SLURM_GPUS_ON_NODE": "8"}, "0"),  # --exclusive gives all there are
        ({"SLURM_GPUS_PER_NODE": "0", "GPUS_PER_NODE": "8"}, "8"),  # a cluster that counts no GPUs
    ],
)
def test_how_many_gpus_the_node_check_asks_for(folder, environment, gpus):
    call = Job(folder, "exit 0", **environment).calls[0]
    assert call[call.index("--gpus") + 1] == gpus


@pytest.mark.parametrize(
    ("train", "fault"),
    [
        (NCCL_ERROR, "NCCL error in: X.cpp:94, remote error"),
        ("echo 'RuntimeError: CUDA error: uncorrectable ECC error encountered'; exit 1", "uncorrectable ECC"),
        ("kill -ABRT $BASHPID", "ended by signal 6"),
        ("exit 70", "a hang, by the watchdog"),
        ("echo 'ValueError: shapes'; exit 1", None),
        ("echo 'CUDA error: out of memory'; exit 1", None),
        ("echo 'igrpo: NCCL error is no option'; exit 2", None),
        ("kill -KILL $BASHPID", None),  # out of memory, mostly
    ],
)
def test_a_machines_fault_requeues_and_the_programs_own_does_not(folder, train, fault):
    job = Job(folder, train)
    assert job.requeued == (fault is not None)
    assert "rank 0 ended first" in job.said
    if fault:
        assert fault in job.said
        assert "a machine's fault, 1 of at most 3" in job.said


def test_faults_are_counted_over_restarts(folder):
    jobs = [Job(folder, NCCL_ERROR, SLURM_RESTART_COUNT=str(start)) for start in range(4)]
    assert [job.requeued for job in jobs] == [True, True, True, False]
    assert jobs[-1].status == 1
    assert jobs[-1].said.count("start ") >= 4
    assert not Job(folder, NCCL_ERROR, SLURM_RESTART_COUNT="50", MAX_FAULTS="9").requeued


def test_a_fault_of_an_earlier_start_is_not_this_ones(folder):
    Job(folder, NCCL_ERROR)
    assert not Job(folder, "echo 'ValueError: shapes'; exit 1", SLURM_RESTART_COUNT="1").requeued


def test_a_run_that_asks_to_go_on(folder):
    assert Job(folder, "exit 75").requeued
    last = Job(folder, "exit 75", SLURM_RESTART_COUNT="50")
    assert not last.requeued
    assert last.status == 75
    assert "the last by MAX_RESTARTS; submit it again with the same run.name (run.name=j-77" in last.said


def test_a_warning_before_python_listens_leaves_the_rank_alive(folder):
    """The wrapper's shell has the signal ignored, which the rank inherits."""
    assert Job(folder, f"kill -{signal.SIGUSR1.value} $BASHPID; exit 0").status == 0


# ---- rendezvous.sh ------------------------------------------------------------------------------


def sourced(command: str, folder: Path | None = None) -> str:
    path = {"PATH": f"{folder}/bin:{os.environ['PATH']}" if folder else os.environ["PATH"]}
    text = f"source {ROOT}/slurm/rendezvous.sh; {command}"
    return subprocess.run(
        ["bash", "-euc", text], env=path, capture_output=True, text=True, check=True, timeout=30
    ).stdout.strip()


@pytest.mark.parametrize(
    ("range_", "least", "most"),
    [
        ("32768 60999", 20000, 29999),
        ("15000 65000", 5000, 14999),
        ("1024 60999", 61000, 65535),
        ("9000 65500", 1024, 8999),
        ("1024 65535", 20000, 29999),  # nothing is left
    ],
)
def test_the_port_lies_outside_of_what_the_kernel_hands_out(tmp_path, range_, least, most):
    (tmp_path / "range").write_text(range_.replace(" ", "\t") + "\n")
    ports = {int(sourced(f"free_port {job} {tmp_path}/range")) for job in (1, 4711, 19999)}
    assert all(least <= port <= most for port in ports)
    assert len(ports) == 3


def test_a_port_in_use_is_passed_over(tmp_path):
    (tmp_path / "range").write_text("32768 60999\n")
    port = int(sourced(f"free_port 123 {tmp_path}/range"))
    with socket.create_server(("127.0.0.1", port)):
        assert int(sourced(f"free_port 123 {tmp_path}/range")) > port


@pytest.mark.parametrize(
    ("own", "expected"),
    [("10.0.0.1", "node1"), ("127.0.1.1", "10.0.0.1")],
)
def test_the_master_address_is_one_that_others_reach(folder, own, expected):
    (folder / "bin/getent").write_text(
        f'#!/bin/bash\n[ "$2" = node1 ] && echo "{own} STREAM node1" || echo "10.0.0.2 STREAM node2"\n'
    )
    (folder / "bin/ip").write_text(
        '#!/bin/bash\n[ "$*" = "-4 route get 10.0.0.2" ] && echo "10.0.0.2 dev ib0 src 10.0.0.1 uid 0"\n'
    )
    for name in ("getent", "ip"):
        (folder / "bin" / name).chmod(0o755)
    assert sourced("master_address node1 node2", folder) == expected
    assert sourced("master_address node1", folder) == "node1"
