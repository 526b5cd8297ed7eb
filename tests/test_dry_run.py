"""What `igrpo train --dry-run` says, and that it leaves nothing behind."""

import shutil
from pathlib import Path

import pytest

from igrpo_mcore.dry_run import dry_run, rendered
from igrpo_mcore.errors import UserError
from tests.support.checkpoints import make_checkpoint
from tests.support.ranks import ROOT, igrpo


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("dry")


@pytest.fixture(scope="module")
def recipe(folder) -> Path:
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


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_a_recipe_for_cpus(recipe, folder, capsys):
    before = sorted(folder.rglob("*"))
    assert dry_run(recipe, ["train.steps=3"]) == 0
    said = capsys.readouterr().out
    assert "ok       data: 5 problems" in said
    assert "ok       checkpoint: every tensor" in said
    assert "Fits:" in said
    command = next(line for line in said.splitlines() if line.startswith("To submit: "))
    assert "sbatch --job-name=mine --ntasks-per-node=4 --gpus-per-node=0 slurm/igrpo_7b.sh" in command
    assert command.endswith(f"{recipe} train.steps=3")
    script = said.split("as submitted\n")[1]
    assert "#SBATCH --ntasks-per-node=4\n" in script
    assert "#SBATCH --gpus-per-node=0\n" in script
    assert sorted(folder.rglob("*")) == before


def test_what_the_checks_refuse(recipe, folder):
    with pytest.raises(UserError, match="parallel"):
        dry_run(recipe, ["parallel.tp=3"])
    with pytest.raises(UserError, match=r"correct data\.path"):
        dry_run(recipe, [f"data.path={folder}/none.jsonl"])
    with pytest.raises(UserError, match="no_such_reward"):
        dry_run(recipe, ["reward.weights={no_such_reward: 1.0}"])
    with pytest.raises(UserError, match="max_prompt_tokens"):
        dry_run(recipe, ["rollout.max_prompt_tokens=2"])


def test_a_damaged_checkpoint_is_refused(recipe, folder):
    other = make_checkpoint(folder / "other", "qwen3", layers=1)
    (other / "config.json").write_text((folder / "checkpoint" / "config.json").read_text())
    with pytest.raises(UserError, match="lacks tensor"):
        dry_run(recipe, [f"model.path={other}"])


def test_the_recipes_own_script_and_nodes():
    text = rendered(
        Path("recipes/igrpo_14b.yaml"),
        ["reward.weights={accuracy: 1.0}"],
        {"nodes": 4, "ntasks-per-node": 8, "gpus-per-node": 8},
        free_gib=1,
    )
    first, _, script = text.partition("\n")
    assert first == "To submit: sbatch --nodes=4 slurm/igrpo_14b.sh 'reward.weights={accuracy: 1.0}'"
    assert "#SBATCH --nodes=4\n" in script
    assert "#SBATCH --nodes=2\n" not in script


@pytest.mark.slow
def test_a_hub_id_that_is_not_cached_skips_what_needs_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    status, said = igrpo("train", "recipes/igrpo_14b.yaml", "--dry-run")
    assert status == 0, said
    assert "skipped  data: DigitalLearningGmbH/MATH-lighteval is on the hub and not whole in" in said
    assert "skipped  checkpoint: nvidia/OpenMath-Nemotron-14B is on the hub" in said
    assert "To submit: sbatch slurm/igrpo_14b.sh\n" in said


@pytest.mark.slow
def test_what_is_cached_and_wrong_is_refused(recipe, folder, tmp_path, monkeypatch):
    snapshot = tmp_path / "hub" / "models--some--model" / "snapshots" / "0123"
    shutil.copytree(folder / "checkpoint", snapshot)
    refs = snapshot.parent.parent / "refs"
    refs.mkdir()
    (refs / "main").write_text("0123")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    status, said = igrpo("train", recipe, "model.path=some/model", "rollout.max_prompt_tokens=2", "--dry-run")
    assert status == 2, said
    assert "rollout.max_prompt_tokens" in said.splitlines()[-1]


@pytest.mark.slow
def test_exit_status_and_options_of_the_command_line(recipe):
    too_small = ("--gpu", "a100-80g", "--nodes", "1")
    status, said = igrpo(
        "train", "recipes/igrpo_14b.yaml", "rollout.memory_fraction=0.95", "--dry-run", *too_small
    )
    assert status == 2, said
    assert "Does not" in said
    assert igrpo("train", recipe, "train.stps=1", "--dry-run")[0] == 2
    status, said = igrpo("train", recipe, "--nodes", "2")
    assert status == 2
    assert "belong to --dry-run" in said
