"""The page of a run that goes on."""

import os
from pathlib import Path

from igrpo_mcore.report.live_page import LivePage
from igrpo_mcore.report.page import PAGE_FILE


def run_folder(path: Path) -> Path:
    (path / "metrics.jsonl").write_text('{"step": 1, "drafts/reward_mean": 0.25, "time/step_s": 1.0}\n')
    return path


def test_the_page_is_drawn_beside_the_run_and_whole(tmp_path: Path):
    live = LivePage(run_folder(tmp_path), every_s=0.0)
    live.refresh()
    first = live._drawing
    live.refresh()
    assert live._drawing is first  # one at a time
    assert first.wait(120) == 0
    assert (tmp_path / PAGE_FILE).read_text().rstrip().endswith("</html>")
    assert sorted(os.listdir(tmp_path)) == ["metrics.jsonl", PAGE_FILE]


def test_a_page_is_not_drawn_at_every_step_and_ends_with_the_run(tmp_path: Path):
    live = LivePage(run_folder(tmp_path), every_s=3600.0)
    live.refresh()
    assert live._drawing is None
    live = LivePage(tmp_path, every_s=0.0)
    live.refresh()
    live.close()
    assert live._drawing.returncode is not None
