"""One Slurm for the tests of this folder, and a recipe small enough for 4 ranks on 2 cores."""

import json
from pathlib import Path

import pytest

from tests.slurm.local_slurm import LocalSlurm, missing
from tests.support.checkpoints import make_checkpoint
from tests.support.small_recipe import sums

REWARD = "reward.weights={'tests.support.rewards:digit_share': 1.0, accuracy: 0.0, format: 0.0}"


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    reason = missing()
    if reason:
        pytest.skip(reason)
    with LocalSlurm(tmp_path_factory.mktemp("slurm") / "slurm") as running:
        yield running


@pytest.fixture(scope="session")
def small_run(tmp_path_factory) -> tuple[Path, list[str]]:
    """Folder of the runs, and what turns recipes/tiny_qwen3.yaml (TP 2 x PP 2) into seconds a step."""
    root = tmp_path_factory.mktemp("jobs")
    checkpoint = make_checkpoint(root / "checkpoint", "qwen3", layers=2)
    overrides = [
        f"model.path={checkpoint}",
        f"data.path={sums(root)}",
        f"run.dir={root / 'runs'}",
        "run.tensorboard=false",
        "train.prompts_per_step=4",
        "rollout.num_drafts=2",
        "rollout.num_refinements=2",
        "rollout.max_completion_tokens=8",
        REWARD,
    ]
    return root / "runs", overrides


def steps_of(run: Path) -> list[int]:
    """The steps in a run's metrics.jsonl, in the order of its lines; none before the first."""
    path = run / "metrics.jsonl"
    if not path.is_file():
        return []
    # the last line may be in the middle of being written
    lines = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return [json.loads(line)["step"] for line in lines]
