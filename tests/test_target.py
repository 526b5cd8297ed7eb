"""What ``igrpo eval`` is pointed at."""

import json

import pytest

from igrpo_mcore.errors import UserError
from igrpo_mcore.run.checkpoint_folder import CheckpointFolder, Position
from igrpo_mcore.target import target_of


@pytest.fixture
def hf(tmp_path):
    folder = tmp_path / "MyModel"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 4096}))
    return folder


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "runs" / "mine"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(
        "model: {path: m}\ndata: {path: d}\nrun: {name: other, dir: elsewhere}\n"
    )
    checkpoints = CheckpointFolder(folder / "checkpoints", keep=9)
    for step, accuracy in ((1, 0.2), (2, 0.6), (3, None)):
        checkpoints.begin(step)
        if accuracy is not None:
            checkpoints.evaluated(step, accuracy)
        checkpoints.publish(Position(step, 0, 0), {"tp": 1})
    return folder


def test_a_hugging_face_folder(hf):
    found = target_of(hf, ["parallel.dp=2", "eval.samples=3"], None)
    config = found.config
    assert (found.checkpoint, found.step) == (None, 0)
    assert config.run.name == "MyModel-start"
    assert (config.model.path, config.parallel.dp, config.eval.samples) == (str(hf), 2, 3)
    assert config.rollout.longest_sequence == 4096  # all positions that there are, and no second stage
    assert config.reward.accuracy_from == "boxed"
    assert "\\boxed{}" in config.eval.template
    assert target_of(hf, ["run.name=tried"], None).config.run.name == "tried-start"
    again = target_of(hf, ["run.name=tried-start"], None)  # as the ranks are started
    assert again.config.run.name == "tried-start"


def test_a_run_and_its_checkpoints(run):
    assert target_of(run, None, None).step == 3
    assert target_of(run, None, 1).step == 1
    best = target_of(run, None, "best")
    assert (best.step, best.checkpoint) == (2, run / "checkpoints" / "step_000002")
    itself = target_of(run / "checkpoints" / "step_000001", ["eval.samples=2"], None)
    assert (itself.step, itself.config.eval.samples) == (1, 2)
    assert (itself.config.run.dir, itself.config.run.name) == (str(run.parent), "mine")


def test_a_recipe(tmp_path):
    recipe = tmp_path / "small.yaml"
    recipe.write_text("model: {path: m}\ndata: {path: d}\n")
    found = target_of(recipe, None, None)
    assert (found.config.run.name, found.checkpoint, found.step) == ("small-start", None, 0)


def test_what_is_refused(tmp_path, hf, run):
    (hf / "config.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    for source, step, said in (
        (hf, None, "max_position_embeddings"),
        (tmp_path / "empty", None, "no Hugging Face folder"),
        (tmp_path / "missing.yaml", None, "there is no recipe"),
        (tmp_path / "missing.yaml", 3, "--step 3 asks for a run's checkpoint"),
        (run, 7, "no checkpoint of step 7"),
        (run / "checkpoints" / "step_000001", 2, "one checkpoint already"),
    ):
        with pytest.raises(UserError) as caught:
            target_of(source, None, step)
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)
