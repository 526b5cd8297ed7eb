"""`igrpo doctor`: a machine without a GPU is well, and every fault is told with its mend."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement

from igrpo_mcore.config.schema import Config
from igrpo_mcore.doctor import machine, packages
from igrpo_mcore.doctor.command import run_doctor
from igrpo_mcore.doctor.environment import harmful
from igrpo_mcore.doctor.finding import State
from igrpo_mcore.doctor.packages import judged, requirements
from igrpo_mcore.doctor.paths import paths
from igrpo_mcore.gpu_state import Gpu
from igrpo_mcore.rank_environment import VARIABLES
from tests.support.checkpoints import make_checkpoint

WELL = Gpu("580.95.05", "NVIDIA H100 80GB HBM3", 81559, 4, 0, 16, 16)


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in VARIABLES:  # so that what the command sets is undone
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("PYTHONNOUSERSITE", "1")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("doctor")
    checkpoint = make_checkpoint(folder / "checkpoint", "qwen3", layers=2)
    data = folder / "problems.jsonl"
    data.write_text("".join(f'{{"problem": "{i}+{i}=", "answer": "{2 * i}"}}\n' for i in range(5)))
    path = folder / "mine.yaml"
    path.write_text(
        f"model: {{path: {checkpoint}, dtype: float32}}\ndata: {{path: {data}}}\n"
        "parallel: {tp: 2, pp: 2}\nrollout: {tp: 2, max_prompt_tokens: 64, max_completion_tokens: 16}\n"
        f"run: {{dir: {folder}/runs, name: mine}}\n"
    )
    return path


@pytest.fixture
def gpus(monkeypatch):
    """Makes the driver list these GPUs."""

    def install(*listed: Gpu) -> None:
        monkeypatch.setattr(machine, "read_gpus", lambda: (list(listed), None))
        monkeypatch.setattr(machine, "nvlinks", lambda: [18] * len(listed))
        monkeypatch.setattr(machine, "fatal_xids", lambda: [])

    return install


def test_this_machine_is_well_with_and_without_a_recipe(recipe, capsys):
    assert run_doctor() == 0
    said = capsys.readouterr().out
    assert "ranks run on the CPU" in said
    assert "igrpo_mcore.device.CpuFusedAdam" in said  # what the optimizer of a run here is
    assert "attention: PyTorch" in said
    assert run_doctor(recipe) == 0
    said = capsys.readouterr().out
    assert "CPUAttentionBackend" in said
    assert "every tensor is there with its shape" in said
    assert "could start here" in said


@pytest.mark.slow
def test_the_command(recipe):
    from tests.support.ranks import igrpo

    assert igrpo("doctor", recipe)[0] == 0
    status, said = igrpo("doctor", recipe, "data.path=/no/such.jsonl", "parallel.tp=3")
    assert status == 1
    assert "2 faults" in said


def test_faults_of_a_recipe_are_told_together(recipe, capsys):
    assert run_doctor(recipe, ["data.path=/no/such.jsonl", "reward.weights={no_such_reward: 1.0}"]) == 1
    said = capsys.readouterr().out
    assert "fault rewards: " in said
    assert "fault data: There is no file /no/such.jsonl; correct data.path." in said
    assert run_doctor(recipe, ["model.path=/no/such/model"]) == 1
    assert "fault model: " in capsys.readouterr().out


def test_a_disk_without_room_and_a_model_that_is_not_cached(recipe, monkeypatch, capsys):
    usage = machine.shutil.disk_usage("/")._replace(free=0)
    monkeypatch.setattr("igrpo_mcore.disk.shutil.disk_usage", lambda path: usage)
    assert run_doctor(recipe) == 1
    assert "GiB free and the run's checkpoints take up to" in capsys.readouterr().out
    monkeypatch.undo()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert run_doctor(recipe, ["model.path=some/model"]) == 1
    assert "some/model not in the hub's cache; unset HF_HUB_OFFLINE" in capsys.readouterr().out


def test_versions(monkeypatch):
    found = {"a": "2.13.0+cu130", "b": "1.0"}

    def version(name: str) -> str:
        if name not in found:
            raise packages.importlib.metadata.PackageNotFoundError(name)
        return found[name]

    monkeypatch.setattr(packages.importlib.metadata, "version", version)
    assert judged(Requirement("a==2.13.0"), True, "gpu").state == State.ok
    old = judged(Requirement("b>=1.4"), False, "gpu")
    assert (old.state, old.found) == (State.fault, "1.0 (wanted: >=1.4)")
    assert old.mend.startswith("pip install 'b>=1.4' (the gpu extra")
    assert judged(Requirement("c"), True, "").state == State.fault
    assert judged(Requirement("c"), False, "gpu").state == State.note


def test_floors_are_those_of_pyproject():
    base, gpu = ({str(one.name): str(one.specifier) for one in some} for some in requirements("gpu"))
    assert base["torch"] == "==2.13.0"
    assert gpu["vllm"] == "==0.32.0"
    assert "vllm" not in base


def test_gpus_that_torch_does_not_see_and_one_that_is_broken(gpus, capsys):
    gpus(WELL, replace(WELL, ecc_errors=3))
    assert run_doctor() == 1
    said = capsys.readouterr().out
    assert "2 x NVIDIA H100 80GB HBM3, 80 GiB" in said
    assert "fault GPUs: GPU 1 counts 3 uncorrected ECC errors" in said
    assert f"torch {torch.__version__} sees none of 2" in said
    assert "fault vllm: not installed; pip install 'vllm==0.32.0' (the gpu extra" in said


def test_a_gpu_in_use_is_told_and_is_no_fault(gpus):
    gpus(replace(WELL, used_mib=70000))
    _, found = machine.gpus_here()
    told = [one for one in found if one.state != State.ok]
    assert [one.state for one in told] == [State.note]
    assert "68.4 GiB in use" in told[0].found


def test_layers_that_would_be_slow_on_a_gpu(monkeypatch):
    """CUDA as it is where Transformer Engine did not install: the refusal is that of a run."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    (layers, *_) = paths(Config(), None)
    assert layers.state == State.fault
    assert "transformer_engine does not import" in layers.found
    assert "install transformer-engine[pytorch]" in layers.mend


def test_a_small_shm(monkeypatch, tmp_path):
    usage = machine.shutil.disk_usage("/")._replace(total=64 * 2**20)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: usage)
    states = []
    for on_gpu in (True, False):
        (shm,) = (one for one in machine.memory_and_disks(tmp_path, on_gpu) if one.what == "/dev/shm")
        states.append(shm.state)
    assert states == [State.fault, State.ok]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb:512,expandable_segments:True"),
        ("CUDA_LAUNCH_BLOCKING", "1"),
        ("CUDA_VISIBLE_DEVICES", ""),
    ],
)
def test_variables_that_do_harm(monkeypatch, name, value):
    assert name not in {one.what for one in harmful()}
    monkeypatch.setenv(name, value)
    (told,) = (one for one in harmful() if one.what == name)
    assert told.mend
