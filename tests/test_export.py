"""Which checkpoint `igrpo export` takes, and what it refuses before a rank is started."""

from pathlib import Path

import pytest

from igrpo_mcore.config.load import load_config, to_yaml
from igrpo_mcore.errors import UserError
from igrpo_mcore.export import find_checkpoint
from igrpo_mcore.run.folder import config_of_run
from tests.support.ranks import ROOT


@pytest.fixture
def run(tmp_path) -> Path:
    folder = tmp_path / "moved" / "here"
    for step in (1, 2):
        (folder / "checkpoints" / f"step_{step:06d}").mkdir(parents=True)
    recipe = load_config(ROOT / "recipes" / "tiny_qwen3.yaml", ["run.name=elsewhere"])
    (folder / "config.yaml").write_text(to_yaml(recipe))
    return folder


def test_a_run_gives_its_newest_checkpoint_or_that_of_a_step(run):
    checkpoints = run / "checkpoints"
    assert find_checkpoint(run, None) == checkpoints / "step_000002"
    assert find_checkpoint(run, 1) == checkpoints / "step_000001"
    assert find_checkpoint(checkpoints / "step_000001", None) == checkpoints / "step_000001"


def test_what_is_not_there_is_refused_with_what_is(run, tmp_path):
    with pytest.raises(UserError, match=r"no checkpoint of step 7 \(it has step_000001, step_000002\)"):
        find_checkpoint(run, 7)
    with pytest.raises(UserError, match="neither a run's folder nor"):
        find_checkpoint(tmp_path, None)


def test_a_step_of_one_checkpoint_is_refused(run):
    with pytest.raises(UserError, match="is one checkpoint already: leave --step out"):
        find_checkpoint(run / "checkpoints" / "step_000001", 2)


def test_a_moved_run_is_taken_where_it_lies(run):
    config = config_of_run(run, ["parallel.tp=1"])
    assert (config.run.dir, config.run.name) == (str(run.parent.resolve()), "here")
    assert config.parallel.tp == 1
