"""Bad input is refused before a rank is started: one sentence with the cause and the mend."""

import json
import re
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from igrpo_mcore.cli import app
from igrpo_mcore.config.load import load_config
from igrpo_mcore.errors import UserError
from igrpo_mcore.preflight import local_ranks, preflight
from igrpo_mcore.run.checkpoint_folder import CheckpointFolder, Position
from tests.support.checkpoints import make_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("preflight") / "qwen3", "qwen3")


@pytest.fixture
def check(tmp_path: Path, checkpoint: Path):
    data = tmp_path / "problems.jsonl"
    data.write_text('{"problem": "1+1=", "answer": "2"}\n')
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"model: {{path: {checkpoint}, dtype: float32}}\ndata: {{path: {data}}}\n"
        f"parallel: {{tp: 2, pp: 2}}\nrollout: {{tp: 2, max_prompt_tokens: 64, max_completion_tokens: 32}}\n"
        f"run: {{name: r, dir: {tmp_path}/runs}}\n"
    )

    def run(*overrides: str, world_size: int | None = None) -> None:
        config = load_config(recipe, list(overrides))
        preflight(config, world_size or local_ranks(config))

    return run


def refused(check, message: str, *overrides: str, **keywords) -> None:
    with pytest.raises(UserError) as error:
        check(*overrides, **keywords)
    assert re.search(message, str(error.value)), str(error.value)
    assert "\n" not in str(error.value)


def test_a_good_recipe_passes(check):
    check()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["parallel.tp=3"],
            r"parallel.tp=3 does not divide the attention heads \(4\); choose one of \[1, 2, 4\]",
        ),
        (["parallel.tp=4"], r"parallel.tp=4 does not divide the key-value heads \(2\)"),
        (["parallel.pp=3"], r"parallel.pp=3 does not divide the layers \(4\)"),
        (["rollout.tp=3"], r"rollout.tp=3 does not divide"),
        (["parallel.cp=2"], r"parallel.cp=2 is not supported yet"),
        (["parallel.ep=2"], r"parallel.ep=2 needs a model with expert layers"),
        (["parallel.tp=1", "parallel.sp=true", "rollout.tp=1"], r"parallel.sp=true needs parallel.tp > 1"),
        (["parallel.pp=1", "parallel.vpp=2"], r"needs parallel.pp > 1"),
        (["reward.weights.acuracy=1"], r"acuracy.*accuracy"),
        (["reward.weights={'no.such.module:f': 1.0}"], r"no\.such\.module"),
        (["rollout.max_prompt_tokens=4"], r"max_prompt_tokens=4"),
        (
            ["rollout.max_completion_tokens=2000"],
            r"max_completion_tokens = 4079 .* max_position_embeddings 1024; lower",
        ),
        (["model.path=no/such/folder"], r"no/such/folder.*igrpo tiny"),
    ],
)
def test_refused(check, overrides, message):
    refused(check, message, *overrides)


def test_layout_against_the_world(check):
    refused(check, r"does not divide the 6 ranks; start a multiple of 4", world_size=6)
    refused(check, r"parallel.dp=2 .* needs 8 ranks, there are 4", "parallel.dp=2", world_size=4)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('{"problem": "1+1=", "answer": "2"}\n{"problem": \n', r"bad\.jsonl.*2"),
        ('{"problem": "1+1="}\n', r"bad\.jsonl.*1.*answer"),
        ("", r"bad\.jsonl.*(empty|no problem)"),
    ],
)
def test_malformed_data_names_file_and_line(check, tmp_path, lines, message):
    bad = tmp_path / "bad.jsonl"
    bad.write_text(lines)
    refused(check, message, f"data.path={bad}")


def damaged(checkpoint: Path, folder: Path, change) -> Path:
    folder.mkdir()
    for file in checkpoint.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_checkpoint_with_a_missing_or_misshapen_tensor(check, checkpoint, tmp_path):
    name = "model.layers.2.mlp.up_proj.weight"
    missing = damaged(checkpoint, tmp_path / "missing", lambda tensors: tensors.pop(name))
    refused(check, f"lacks tensor {name}", f"model.path={missing}")

    def transpose(tensors):
        tensors[name] = tensors[name].T.contiguous()

    misshapen = damaged(checkpoint, tmp_path / "misshapen", transpose)
    refused(check, rf"{name} of shape \[128, 256\]", f"model.path={misshapen}")


def test_unsupported_architecture(check, checkpoint, tmp_path):
    folder = damaged(checkpoint, tmp_path / "other", lambda tensors: None)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps(config | {"model_type": "gpt2", "architectures": ["GPT2"]})
    )
    refused(check, "model type 'gpt2' is not supported; supported are llama", f"model.path={folder}")


def test_run_folder_in_use(check, tmp_path):
    (tmp_path / "runs" / "r").mkdir(parents=True)
    (tmp_path / "runs" / "r" / "metrics.jsonl").write_text("{}\n")
    refused(check, r"runs/r is not empty.*run.name")


def test_a_disk_too_small_for_the_checkpoints(check, checkpoint, tmp_path, monkeypatch):
    parameters = sum(tensor.numel() for tensor in load_file(checkpoint / "model.safetensors").values())
    size = 16 * parameters  # fp32: parameters, their main copy, two moments
    usage = shutil.disk_usage(checkpoint)._replace(free=4 * size - 1)
    monkeypatch.setattr("igrpo_mcore.disk.shutil.disk_usage", lambda path: usage)
    alone = "run.journal=false"
    check("checkpoint.keep=2", alone)
    refused(check, r"checkpoints take up to .* GiB more .*run\.dir", "checkpoint.keep=3", alone)
    steps = ("checkpoint.every=0", "train.steps=1000000")  # nothing is forgotten on the way
    refused(check, r"its journal \d", "checkpoint.keep=2", *steps)
    check("checkpoint.keep=2", alone, *steps)
    written = tmp_path / "runs" / "r" / "checkpoints" / "step_000001"
    written.mkdir(parents=True)
    (written.parents[1] / "config.yaml").write_text("")
    (written / "position.json").write_text(
        json.dumps({"step": 1, "problems": 8, "updates": 1, "layout": {"tp": 2, "pp": 2, "dp": 1}})
    )
    with (written / "0.distcp").open("wb") as file:
        file.truncate(size)
    check("checkpoint.keep=3", alone)  # a run that goes on


def test_a_requeued_job_whose_run_is_complete_ends_well(check, tmp_path, monkeypatch):
    folder = CheckpointFolder(tmp_path / "runs" / "r" / "checkpoints")
    folder.begin(3)
    folder.publish(Position(3, 48, 3), {"tp": 2, "pp": 2, "dp": 1})
    (tmp_path / "runs" / "r" / "config.yaml").write_text("")
    refused(check, "run r has done 3 of train.steps=3 steps: raise train.steps", "train.steps=3")
    check("train.steps=4")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    result = CliRunner().invoke(app, ["train", str(tmp_path / "recipe.yaml"), "train.steps=3"])
    assert result.exit_code == 0
    assert result.output == "run r is complete: 3 steps\n"
