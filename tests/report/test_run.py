"""A run's folder and page, made from random rollouts."""

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from igrpo_mcore.config.load import load_config
from igrpo_mcore.config.schema import Config, Resume
from igrpo_mcore.errors import UserError
from igrpo_mcore.report.charts import running_mean
from igrpo_mcore.report.page import write_report
from igrpo_mcore.report.plan_table import PLAN_FILE
from igrpo_mcore.report.records import read_metrics
from igrpo_mcore.report.rollout_metrics import rollout_metrics
from igrpo_mcore.report.run import RunReport
from igrpo_mcore.types import PromptRollout
from tests.support.rollouts import random_rollouts

VOID = {"meta", "br", "link", "img", "hr", "input"}


def config(tmp_path: Path) -> Config:
    config = Config()
    config.model.path, config.data.path = "some/model", "set.jsonl"
    config.run.dir, config.run.name, config.run.tensorboard = str(tmp_path / "runs"), "first", False
    config.train.steps = 3
    return config


def step_metrics(step: int, rollouts: list) -> dict[str, float | None]:
    return {
        **rollout_metrics(rollouts),
        "policy/lr": 1e-6,
        "policy/kl": None,
        "parity/logprob_max_abs_diff": 2e-6 if step % 2 else None,
        "time/drafts_s": 0.5,
        "time/update_s": 1.5,
        "time/step_s": 2.5,
    }


def play(config: Config, first: int, last: int) -> RunReport:
    report = RunReport(config, lambda ids: f"<prompt of {len(ids)}>", first_step=first)
    report.start()
    for step in range(first, last + 1):
        rollouts = random_rollouts(step)
        report.step(step, rollouts, step_metrics(step, rollouts))
    return report


def test_a_run_goes_on_without_a_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> dict:
        raise ZeroDivisionError("no such GPU")

    report = RunReport(config(tmp_path), str)
    report.plan(broken)
    assert "no plan of this run (no such GPU)" in capsys.readouterr().out
    assert not (report.folder / PLAN_FILE).exists()


class Checker(HTMLParser):
    """Counts elements; fails on a tag closed out of order and on anything loaded from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        for name, value in attrs:
            if name in ("src", "href"):
                pytest.fail(f"the page loads {value}")
            if name == "xlink:href":
                assert (value or "").startswith("#")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def checked(page: Path) -> tuple[str, Checker]:
    html = page.read_text(encoding="utf-8")
    checker = Checker()
    checker.feed(html)
    assert checker.open == []
    return html, checker


def test_a_whole_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    asked = config(tmp_path)
    asked.parallel.tp = asked.parallel.pp = asked.rollout.tp = 2
    play(asked, 1, 3).finish()
    said = capsys.readouterr().out
    folder = tmp_path / "runs" / "first"
    assert "TP = 2, PP = 2, DP = 1 on 4 ranks, 2 engines of TP = 2" in said
    assert sum(line.startswith("step ") for line in said.splitlines()) == 3
    assert "mean refinement reward" in said
    assert [record["step"] for record in read_metrics(folder)] == [1, 2, 3]
    assert load_config(folder / "config.yaml") == asked

    versions = json.loads((folder / "versions.json").read_text())
    assert (
        versions["layout"] | {"tp": 2, "pp": 2, "dp": 1, "engines": 2, "world_size": 4} == versions["layout"]
    )
    assert {"torch", "transformers", "megatron-core"} <= set(versions["packages"])
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    if head.returncode == 0:
        assert versions["git"]["commit"] == head.stdout.strip()

    html, page = checked(folder / "report.html")
    assert page.seen.count("svg") >= 8
    assert "KL to the reference" not in html  # never measured
    assert "<2+3>" not in html
    assert "&lt;b&gt;5 &amp; 6&lt;/b&gt;" in html
    assert "&lt;prompt of 7&gt;" in html
    assert "not finished" not in html
    for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
        ElementTree.fromstring(svg)


def test_a_used_folder_is_refused_unless_resumed(tmp_path: Path) -> None:
    asked = config(tmp_path)
    play(asked, 1, 2).finish(completed=False)
    asked.checkpoint.resume = Resume.never
    with pytest.raises(UserError, match=r"runs/first holds a run already.*set another run\.name"):
        RunReport(asked, str)
    asked.checkpoint.resume = Resume.auto
    folder = tmp_path / "runs" / "first"
    assert "2 of 3 steps (not finished)" in (folder / "report.html").read_text()
    play(asked, 2, 3).finish()
    assert [record["step"] for record in read_metrics(folder)] == [1, 2, 3]
    assert len(json.loads((folder / "versions.json").read_text())["earlier_starts"]) == 1


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "first"
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_text("")
    with pytest.raises(UserError, match=r"runs/first is not empty: set another run\.name"):
        RunReport(config(tmp_path), str)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where the folder should be")
    with pytest.raises(UserError, match="cannot be written"):
        RunReport(config(tmp_path), str)


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"metrics.jsonl": '{"step": 1}\n{"step": 2, "policy/en'},
        {"metrics.jsonl": '{"step": 1, "policy/entropy": 0.5}\n', "samples.jsonl": "{"},
        {"metrics.jsonl": '{"step": 1, "parity/logprob_max_abs_diff": 0.0}\n'},
        {"config.yaml": "train:\n  steps: 5\n"},
    ],
)
def test_a_page_of_what_a_crash_left(tmp_path: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    html, _ = checked(write_report(tmp_path))
    assert ("No step was finished" in html) == ("metrics.jsonl" not in files)


def test_a_long_run_with_gaps_and_plain_grpo(tmp_path: Path) -> None:
    with (tmp_path / "metrics.jsonl").open("w") as lines:
        for step in range(1, 101):
            rollouts = random_rollouts(step, two_stage=False)
            lines.write(json.dumps({"step": step, **step_metrics(step, rollouts)}) + "\n")
    _, page = checked(write_report(tmp_path))
    assert page.seen.count("svg") >= 8


def test_a_draft_that_went_to_another_problem_is_said_to_have(tmp_path: Path) -> None:
    drafts, refinements = random_rollouts(3, prompts=1)[0].stages
    other = (replace(drafts.group.completions[0], text="<of another>"), drafts.group.scores[0])
    report = play(config(tmp_path), 1, 0)
    crossed = [PromptRollout((replace(drafts, foreign=other), refinements))]
    report.step(1, crossed, step_metrics(1, crossed))
    report.finish()
    folder = tmp_path / "runs/first"
    (record,) = map(json.loads, (folder / "samples.jsonl").read_text().splitlines())
    assert record["stages"][0]["foreign_draft"] == "<of another>"
    html, _ = checked(folder / "report.html")
    assert html.count("went to another problem") == 1


def test_the_page_can_be_written_by_hand(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "igrpo_mcore.report.page", str(tmp_path)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(tmp_path / "report.html")
    with pytest.raises(UserError, match="no run folder"):
        write_report(tmp_path / "absent")


def test_running_mean() -> None:
    assert running_mean([1.0, 2.0, 6.0, 3.0], 1) == [1.5, 3.0, 11 / 3, 4.5]
    assert running_mean([1.0, 2.0], 0) == [1.0, 2.0]
