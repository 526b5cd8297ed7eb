"""What was planned beside what was measured, on a machine with a GPU and on one without."""

import json
from pathlib import Path

import pytest

from igrpo_mcore.report.page import write_report
from igrpo_mcore.report.plan_table import plan_table, write_plan

PLAN = {
    "gpu": "h100-80g",
    "measured_on": "NVIDIA H100 80GB HBM3",
    "comparable": True,
    "fits": True,
    "seconds": {"drafts": 10.0, "logprobs": 2.0, "push": 0.5, "step": 20.0},
    "gib": {"rollout": 60.0, "refit": 30.0, "update": 70.0},
}
TIMES = ("step", "time/drafts_s", "time/logprobs_s", "time/ref_logprobs_s", "time/step_s")
STEPS = [dict(zip(TIMES, row, strict=True)) for row in [(1, 8.0, 2.0, 1.0, 20.0), (2, 12.0, 2.0, 3.0, 30.0)]]
MEMORY = [{"memory/rollout_gib": 50.0, "memory/push_gib": 33.0}, {"memory/rollout_gib": 54.0}]


def test_measured_are_means_a_step_and_peaks_of_all(tmp_path: Path) -> None:
    write_plan(tmp_path, PLAN)
    table = plan_table(tmp_path, [step | memory for step, memory in zip(STEPS, MEMORY, strict=True)])
    assert table is not None
    assert {row.phase: row.measured for row in table.seconds} == {
        "drafts": 10.0,
        "logprobs": 4.0,  # the policy's and the reference's
        "push": None,
        "step": 25.0,
    }
    assert {row.phase: row.measured for row in table.gib} == {"rollout": 54.0, "refit": 33.0, "update": None}
    assert {row.phase: row.ratio for row in table.gib} == pytest.approx(
        {"rollout": 0.9, "refit": 1.1, "update": None}
    )


def test_a_run_without_a_plan_or_without_steps(tmp_path: Path) -> None:
    assert plan_table(tmp_path, STEPS) is None
    write_plan(tmp_path, PLAN)
    table = plan_table(tmp_path, [])
    assert table is not None
    assert all(row.measured is None for row in table.seconds)


@pytest.mark.parametrize("comparable", [True, False])
def test_the_page_shows_both(tmp_path: Path, comparable: bool) -> None:
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in STEPS))
    write_plan(tmp_path, PLAN | {"comparable": comparable})
    page = write_report(tmp_path).read_text()
    assert "Plan against measured" in page
    assert "<td>drafts</td><td>10.00</td><td>10.00</td>" in page
    assert ("not comparable" in page) is not comparable
    assert ("<td>4.00</td><td>2.00</td>" in page) is comparable  # log-probs took twice as long as planned
