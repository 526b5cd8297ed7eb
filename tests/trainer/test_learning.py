"""From one tiny checkpoint, what training is for: single-shot accuracy rises.

docs/experiments.md shows these runs beside the paper's setting, with their commands.
"""

import json
from pathlib import Path
from statistics import fmean

import pytest

from tests.support.ranks import ROOT, igrpo

pytestmark = pytest.mark.slow

# two ranks hold a policy replica and an engine each: the fastest layout on 2 cores
LAYOUT = [
    *("parallel.tp=1", "parallel.pp=1", "parallel.dp=2", "parallel.sp=false"),
    *("rollout.tp=1", "run.tensorboard=false", "parity.every=10"),
]
VARIANTS = {
    "plain-grpo": ["rollout.selection=none", "train.steps=60"],
    "drafts-trained": ["objective.draft_weight=1", "train.steps=90"],
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """The demo's checkpoint where it is cached, else made here by the same command."""
    cached = ROOT / ".cache/tiny/qwen3"
    if (cached / "config.json").exists():
        return cached
    made = tmp_path_factory.mktemp("tiny") / "qwen3"
    status, output = igrpo("tiny", "--family", "qwen3", "--out", made)
    assert status == 0, output[-3000:]
    return made


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("variant", VARIANTS)
def test_single_shot_accuracy_rises(variant, checkpoint, tmp_path):
    status, output = igrpo(
        "train",
        "recipes/tiny_qwen3.yaml",
        f"model.path={checkpoint}",
        f"data.path={checkpoint}/problems.jsonl",
        *(f"run.dir={tmp_path}", f"run.name={variant}"),
        *LAYOUT,
        *VARIANTS[variant],
        *("train.prompts_per_step=32", "optimizer.lr=2e-4"),
        timeout_s=1100,
    )
    assert status == 0, output[-4000:]
    steps = [json.loads(line) for line in (tmp_path / variant / "metrics.jsonl").read_text().splitlines()]
    single_shot = [step["drafts/reward_mean"] for step in steps]
    fifth = len(steps) // 5
    assert fmean(single_shot[-fifth:]) >= fmean(single_shot[:fifth]) + 0.1
    parity = [step["parity/logprob_max_abs_diff"] for step in steps]
    measured = [difference for difference in parity if difference is not None]
    assert len(measured) == 1 + len(steps) // 10
    assert max(measured) < 1e-4
