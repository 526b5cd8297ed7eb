"""``igrpo verify`` as a user types it: sound checkpoints, and what it says of damaged ones."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from igrpo_mcore.config.load import load_config
from igrpo_mcore.errors import UserError
from igrpo_mcore.preflight import preflight
from igrpo_mcore.weights.checkpoint import INDEX, SINGLE
from tests.support.checkpoints import make_checkpoint
from tests.support.ranks import igrpo

GATE, DOWN = "model.layers.1.mlp.gate_proj.weight", "model.layers.0.mlp.down_proj.weight"


def make_recipe(root: Path, family: str, layout: str) -> Path:
    """A small random checkpoint in ``root/checkpoint`` and a recipe that names it."""
    make_checkpoint(root / "checkpoint", family, layers=2)
    (root / "problems.jsonl").write_text('{"problem": "1+1=", "answer": "2"}\n' * 4)
    path = root / "recipe.yaml"
    path.write_text(
        f"model: {{path: {root}/checkpoint, dtype: float32}}\ndata: {{path: {root}/problems.jsonl}}\n"
        f"{layout}\ntrain: {{prompts_per_step: 2}}\n"
        f"run: {{name: verified, dir: {root}/runs, tensorboard: false}}\n"
    )
    return path


def rollout(tp: int) -> str:
    return f"rollout: {{tp: {tp}, num_drafts: 2, max_prompt_tokens: 64, max_completion_tokens: 16}}"


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / SINGLE)
    change(tensors)
    save_file(tensors, folder / SINGLE)


def truncate(folder: Path) -> None:
    contents = (folder / SINGLE).read_bytes()
    (folder / SINGLE).write_bytes(contents[: len(contents) // 2])


def lose_a_file(folder: Path) -> None:
    tensors = load_file(folder / SINGLE)
    (folder / SINGLE).unlink()
    names = sorted(tensors)
    save_file({name: tensors[name] for name in names[::2]}, folder / "model-00001-of-00002.safetensors")
    weight_map = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(names)}
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))


def set_config(folder: Path, field: str, value: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {field: value}))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (truncate, "model.safetensors cannot be read as safetensors"),
    "file missing": (lose_a_file, "model-00002-of-00002.safetensors, named by .*, is missing"),
    "index cut short": (lambda f: (f / INDEX).write_text('{"weight_map": {'), "cannot be read as an index"),
    "index of something else": (lambda f: (f / INDEX).write_text("[]"), "cannot be read as an index"),
    "dropped": (lambda f: rewrite(f, lambda t: t.pop(GATE)), f"lacks tensor {GATE}"),
    "misshapen": (
        lambda f: rewrite(f, lambda t: t.update({DOWN: t[DOWN].t().contiguous()})),
        rf"has tensor {DOWN} of shape \[256, 128\], its config asks for \[128, 256\]",
    ),
    "config cut short": (
        lambda f: (f / "config.json").write_text('{"model_type": "qwen3", '),
        "config.json' is not a valid JSON",
    ),
    "config of wrong type": (
        lambda f: set_config(f, "hidden_size", "wide"),
        "config.json cannot be used .*hidden_size.* expected int",
    ),
    "config of another model": (lambda f: set_config(f, "intermediate_size", 96), "do not belong together"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_told_before_ranks_start(tmp_path, kind):
    config = load_config(make_recipe(tmp_path, "qwen3", rollout(1)))
    preflight(config, 1)
    damage, message = DAMAGE[kind]
    damage(tmp_path / "checkpoint")
    with pytest.raises(UserError, match=message):
        preflight(config, 1)


def test_only_a_run_needs_its_folder_free(tmp_path):
    config = load_config(make_recipe(tmp_path, "qwen3", rollout(1)))
    (tmp_path / "runs" / "verified").mkdir(parents=True)
    (tmp_path / "runs" / "verified" / "metrics.jsonl").write_text("")
    preflight(config, 1, writes_run=False)
    with pytest.raises(UserError, match="is not empty"):
        preflight(config, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "layout", "tensors"),
    [
        ("qwen3", "parallel: {pp: 2}", 25),
        ("nemotron_h", "parallel: {tp: 2, sp: true}", 15),
    ],
)
def test_a_sound_checkpoint_passes(tmp_path, family, layout, tensors):
    """Of a recipe; tests/trainer/test_runs.py verifies a run."""
    recipe = make_recipe(tmp_path, family, f"{layout}\n{rollout(2)}")
    status, output = igrpo("verify", recipe)
    assert status == 0, output[-4000:]
    lines = output.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("family"))
    last = next(i for i, line in enumerate(lines) if line.startswith("log-probs"))
    rows = [line.split() for line in lines[first + 1 : last]]
    assert sum(int(row[1]) for row in rows) == sum(int(row[3]) for row in rows) == tensors
    assert all(int(row[4]) == 0 for row in rows)
    assert float(lines[last].split()[3].rstrip(",")) < 1e-4
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_values_that_are_not_finite_are_told_by_name(tmp_path):
    recipe = make_recipe(tmp_path, "qwen3", f"parallel: {{pp: 2}}\n{rollout(1)}")
    rewrite(tmp_path / "checkpoint", lambda tensors: tensors[GATE][7, 3].fill_(torch.nan))
    status, output = igrpo("verify", recipe)
    assert status == 2, output[-4000:]
    said = [line for line in output.splitlines() if line.startswith("igrpo")]
    assert said == [
        f"igrpo [rank 0]: checkpoint tensor {GATE} holds NaN or infinite values ({SINGLE}); fetch the "
        "checkpoint again, or take one from before its training diverged"
    ]


@pytest.mark.slow
def test_a_damaged_file_ends_the_command_with_one_sentence(tmp_path):
    recipe = make_recipe(tmp_path, "qwen3", rollout(1))
    truncate(tmp_path / "checkpoint")
    status, output = igrpo("verify", recipe)
    assert status == 2, output[-4000:]
    assert output.count("igrpo: ") == 1
    assert "Traceback" not in output
