"""What training is for: single-shot reward rises, by the command a user types.

docs/experiments.md shows longer runs beside the paper's setting, with their commands.
"""

import json
import math
from pathlib import Path
from statistics import fmean, variance

import pytest

from tests.support.checkpoints import make_checkpoint
from tests.support.ranks import ROOT, igrpo

pytestmark = pytest.mark.slow

# two ranks hold a policy replica and an engine each: the fastest layout on 2 cores
LAYOUT = [
    *("parallel.tp=1", "parallel.pp=1", "parallel.dp=2", "parallel.sp=false"),
    *("rollout.tp=1", "run.tensorboard=false", "parity.every=10"),
]


def train(folder: Path, checkpoint: Path, *options: str) -> list[dict]:
    """The steps of a run; every tenth is checked to have sampler and trainer agree."""
    status, output = igrpo(
        "train",
        "recipes/tiny_qwen3.yaml",
        f"model.path={checkpoint}",
        f"data.path={checkpoint}/problems.jsonl",
        *(f"run.dir={folder}", "run.name=learns"),
        *LAYOUT,
        *options,
        timeout_s=1100,
    )
    assert status == 0, output[-4000:]
    steps = [json.loads(line) for line in (folder / "learns" / "metrics.jsonl").read_text().splitlines()]
    parity = [step["parity/logprob_max_abs_diff"] for step in steps]
    measured = [difference for difference in parity if difference is not None]
    assert len(measured) == 1 + len(steps) // 10
    assert max(measured) < 1e-4
    return steps


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """The demo's checkpoint where it is cached, else made here by the same command."""
    cached = ROOT / ".cache/tiny/qwen3"
    if (cached / "config.json").exists():
        return cached
    made = tmp_path_factory.mktemp("tiny") / "qwen3"
    status, output = igrpo("tiny", "--family", "qwen3", "--out", made)
    assert status == 0, output[-3000:]
    return made


@pytest.mark.timeout(1200)
def test_plain_grpo_raises_accuracy_on_the_tiny_task(tiny, tmp_path):
    """The last fifth of the steps against the first: more than chance does, and visibly."""
    steps = train(
        *(tmp_path, tiny, "rollout.selection=none", "train.steps=60"),
        *("train.prompts_per_step=32", "optimizer.lr=2e-4"),
    )
    rewards = [step["drafts/reward_mean"] for step in steps]
    fifth = len(rewards) // 5
    before, after = rewards[:fifth], rewards[-fifth:]
    gain, error = fmean(after) - fmean(before), math.sqrt((variance(before) + variance(after)) / fifth)
    assert gain > 0.06
    assert gain > 3 * error


@pytest.mark.timeout(1200)
def test_igrpo_raises_single_shot_reward_where_drafts_are_trained_too(tmp_path):
    """A reward that a random model finds at once, so that a few steps show it: the share of digits."""
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "qwen3", layers=2, sharpen=1.5)
    problems = [f'{{"problem": "{i}+{i}=", "answer": "{2 * i}"}}\n' for i in range(100)]
    (checkpoint / "problems.jsonl").write_text("".join(problems))
    reward = "reward.weights={'tests.support.rewards:digit_share': 1.0, accuracy: 0.0, format: 0.0}"
    steps = train(
        *(tmp_path, checkpoint, reward, "objective.draft_weight=1", "train.steps=10", "optimizer.lr=3e-3"),
        *("rollout.max_prompt_tokens=64", "rollout.max_completion_tokens=16"),
    )
    rewards = [step["drafts/reward_mean"] for step in steps]
    assert rewards[0] < 0.3
    assert fmean(rewards[-2:]) > rewards[0] + 0.3
