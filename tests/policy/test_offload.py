"""Offloading the optimizer between updates changes no update; on the CPU the gradient buffers really go."""

import json

import pytest

from tests.support.checkpoints import make_checkpoint
from tests.support.ranks import run_ranks


@pytest.mark.slow
def test_updates_are_the_same_and_the_buffers_go_in_between(tmp_path):
    checkpoint = make_checkpoint(tmp_path / "qwen3", "qwen3", layers=2)
    output = run_ranks("tests.policy.offload_worker", 2, checkpoint)
    found = json.loads(next(line for line in output.splitlines() if line.startswith("RESULT "))[7:])
    assert len(set(found["kept"])) == 1
    held, away, still_away, back = found["away"]
    assert held == back == found["kept"][0] >= found["parameter_bytes"]  # fp32, padded
    assert away == still_away == 0
    assert found["same_logprobs"]
    assert found["same_weights"]
    assert found["grad_norms"][0] == found["grad_norms"][1] > 0
