"""The summary by hand-made numbers, and what is printed of it."""

import io

import pytest
from rich.console import Console

from igrpo_mcore.report.progress import Progress, closing_table
from igrpo_mcore.report.summary import Change, summarize


def record(step: int, **more: float | None) -> dict[str, float | None]:
    return {
        "step": step,
        "drafts/reward_mean": 0.5,
        "refinements/reward_mean": step / 10,
        "groups/zero_std_share": 0.25,
        "parity/logprob_max_abs_diff": None if step % 2 else step * 1e-6,
        "time/drafts_s": 1.0,
        "time/drafts_rewards_s": 0.0,
        "time/update_s": 2.0,
        "time/step_s": 4.0,
        **more,
    }


RECORDS = [record(step) for step in range(1, 12)]


def plain() -> tuple[Console, io.StringIO]:
    buffer = io.StringIO()
    return Console(file=buffer, width=80, highlight=False), buffer


def test_a_fifth_of_eleven_steps_is_two() -> None:
    summary = summarize(RECORDS)
    assert (summary.steps, summary.fifth) == (11, 2)
    assert summary.refinements == Change(pytest.approx(0.15), pytest.approx(1.05))
    assert summary.refinements.difference == pytest.approx(0.9)
    assert summary.drafts.difference == 0.0
    assert summary.parity == pytest.approx(1e-5)
    assert summary.seconds == {"drafts": 11.0, "update": 22.0}
    assert summary.step_seconds == 44.0


@pytest.mark.parametrize("count", [0, 1, 4])
def test_short_runs_have_a_summary(count: int) -> None:
    summary = summarize(RECORDS[:count])
    assert summary.fifth == 1
    assert summary.refinements.first == (pytest.approx(0.1) if count else None)
    assert (summary.parity is None) == (count < 2)


def test_a_step_is_one_plain_line_off_a_terminal() -> None:
    console, buffer = plain()
    progress = Progress(120, console)
    progress.step(record(3, **{"policy/entropy": None, "policy/grad_norm": 0.5, "rewards/failures": 2.0}))
    progress.step(record(4))
    first, second = buffer.getvalue().splitlines()
    for part in ("step   3/120", "drafts 0.500", "refinements 0.300", "zero-std 25%", "entropy –", "Δlogp –"):
        assert part in first
    assert "failed reward calls: 2" in first
    assert "Δlogp 4.0e-06" in second
    assert "left 0:07:44" in second  # 116 steps of 4 s
    assert "failed" not in second
    assert "\x1b" not in buffer.getvalue()


def test_the_closing_table() -> None:
    console, buffer = plain()
    console.print(closing_table(RECORDS, "TP = 2, PP = 2"))
    rows = [[cell.strip() for cell in line.split("│")] for line in buffer.getvalue().splitlines()]
    cells = {row[1]: row[2:5] for row in rows if len(row) == 6}
    assert "11 steps, TP = 2, PP = 2" in buffer.getvalue()
    assert cells["mean refinement reward"] == ["0.150", "1.050", "+0.900"]
    assert cells["mean draft reward (single-shot)"] == ["0.500", "0.500", "+0.000"]
    assert "1.00e-05" in buffer.getvalue()
    assert cells["seconds in update"] == ["", "22.0", ""]
    console.print(closing_table([], "TP = 1"))
