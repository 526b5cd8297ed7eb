"""Joining srun: the rendezvous variables from the job step's own, and the environment of a rank."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from igrpo_mcore.errors import UserError
from igrpo_mcore.launch import adopt_slurm_environment, in_job
from igrpo_mcore.rank_environment import VARIABLES, described, interface_to, set_rank_environment

STEP = {
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    "SLURM_STEP_NODELIST": "node[7-8]",
    "SLURM_JOB_ID": "123456",
}
RENDEZVOUS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture(autouse=True)
def step(monkeypatch, tmp_path) -> Path:
    for name in (*RENDEZVOUS, *VARIABLES):
        monkeypatch.setenv(name, "")  # so that what the code sets is undone
        monkeypatch.delenv(name)
    for name, value in STEP.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_the_places_of_a_rank(step):
    (step / "scontrol").write_text("#!/bin/sh\necho node7\necho node8\n")
    (step / "scontrol").chmod(0o755)
    adopt_slurm_environment()
    assert [os.environ[name] for name in RENDEZVOUS] == ["3", "4", "1", "2", "node7", "23456"]
    assert in_job()


def test_what_the_batch_script_set_stays(monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "10.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "5000")
    adopt_slurm_environment()
    assert (os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]) == ("10.0.0.1", "5000")


def test_without_scontrol_the_mend_is_said():
    with pytest.raises(UserError, match="set MASTER_ADDR"):
        adopt_slurm_environment()


def test_a_step_of_one_task_starts_its_own_ranks(monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    adopt_slurm_environment()
    assert not in_job()


def test_the_environment_of_a_rank(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(96)))
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")  # the user's
    set_rank_environment(local_ranks=8)
    assert described().split() == [
        "CUDA_DEVICE_MAX_CONNECTIONS=1",
        "TOKENIZERS_PARALLELISM=true",
        "TORCH_CPP_LOG_LEVEL=ERROR",
        "ONEDNN_PRIMITIVE_CACHE_CAPACITY=64",
        "LRU_CACHE_CAPACITY=64",
        "OMP_NUM_THREADS=12",
    ]


def test_more_ranks_than_cores_still_have_a_thread(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    set_rank_environment(local_ranks=8)
    assert os.environ["OMP_NUM_THREADS"] == "1"


def test_gloo_takes_the_interface_that_leads_to_the_first_node(monkeypatch):
    class Probe:
        def __init__(self, *_):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def connect(self, place):
            assert place == ("10.1.0.7", 9)

        def getsockname(self):
            return ("10.1.0.9", 40000)

    addresses = {
        name: [SimpleNamespace(address=address)]
        for name, address in (("lo", "127.0.0.1"), ("eth0", "192.168.0.9"), ("ib0", "10.1.0.9"))
    }
    monkeypatch.setattr("psutil.net_if_addrs", lambda: addresses)
    monkeypatch.setattr(socket, "socket", Probe)
    set_rank_environment(local_ranks=8, master="10.1.0.7")
    assert os.environ["GLOO_SOCKET_IFNAME"] == "ib0"


def test_loopback_and_what_cannot_be_reached_name_no_interface():
    assert interface_to("127.0.0.1") is None
    assert interface_to("no-such-host.invalid") is None


WARNED_EARLY = """
import os, signal
from igrpo_mcore.launch import enter_rank
from igrpo_mcore.run.stop_signal import StopSignal
enter_rank()
os.kill(os.getpid(), signal.SIGUSR1)  # while the model is still being loaded
print("goes on")
print("told", StopSignal()._received)
"""


def test_a_warning_that_comes_early_is_kept_and_does_not_end_the_rank(monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    done = subprocess.run([sys.executable, "-c", WARNED_EARLY], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    first, *rest = done.stdout.splitlines()
    assert first.startswith("igrpo [rank 3 on ")
    assert "CUDA_DEVICE_MAX_CONNECTIONS=1" in first
    assert rest == ["goes on", "told True"]
