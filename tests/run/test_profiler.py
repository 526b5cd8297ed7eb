"""Traces of chosen steps."""

import json
from pathlib import Path

import pytest
import torch

from igrpo_mcore.errors import UserError
from igrpo_mcore.run.profiler import profiled


def test_a_chosen_step_leaves_a_chrome_trace_of_its_operations(tmp_path: Path):
    for step in (1, 2, 3):
        with profiled(step, [2], tmp_path, rank=1):
            torch.ones(8, 8) @ torch.ones(8, 8)
    (path,) = (tmp_path / "traces").iterdir()
    assert path.name == "step_000002_rank_1.json"
    names = {event.get("name") for event in json.loads(path.read_text())["traceEvents"]}
    assert "aten::matmul" in names


def test_a_trace_that_cannot_be_written_is_said(tmp_path: Path):
    (tmp_path / "traces").write_text("a file")
    with pytest.raises(UserError, match="traces"), profiled(1, [1], tmp_path, rank=0):
        pass
