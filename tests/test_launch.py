"""Joining srun: the rendezvous variables from the job step's own."""

import os
from pathlib import Path

import pytest

from igrpo_mcore.errors import UserError
from igrpo_mcore.launch import adopt_slurm_environment, in_job

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
    for name in RENDEZVOUS:
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
