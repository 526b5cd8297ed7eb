"""Runs side by side: who belongs together, what the tables say, and the page."""

import base64
import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest

from igrpo_mcore.errors import UserError
from igrpo_mcore.study.bands import band
from igrpo_mcore.study.compare import run_compare
from igrpo_mcore.study.figures import MEASURES, changes, held_out
from igrpo_mcore.study.forest import forest
from igrpo_mcore.study.groups import load_groups
from igrpo_mcore.study.manifest import MANIFEST_FILE
from igrpo_mcore.study.markdown import tables
from igrpo_mcore.study.rows import rows_of
from tests.report.test_run import checked
from tests.study.fake_runs import NASTY, config, write_evaluation, write_run

UP, FLAT = [0.1 * step for step in range(1, 11)], [0.3] * 10


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two variants, two seeds each; problems a and b of four completions."""
    for seed in (0, 1):
        shift = 0.05 * seed
        best = [value + shift for value in UP]
        write_run(
            tmp_path / f"plain-seed{seed}", config("none", seed), FLAT, {"a": [1, 0, 0, 0], "b": [1, 1, 0, 0]}
        )
        write_run(
            tmp_path / f"with-seed{seed}",
            config("best", seed),
            best,
            {"b": [1, 1, 1, 1], "a": [1, seed, 0, 0]},
        )
    return tmp_path


def folders(runs: Path) -> list[Path]:
    return sorted(runs.glob("*-seed*"))


def test_runs_are_grouped_by_all_options_but_the_seed(runs):
    groups, missing = load_groups(folders(runs))
    assert [(group.name, [run.seed for run in group.runs]) for group in groups] == [
        ("plain", [0, 1]),
        ("with", [0, 1]),
    ]
    assert missing == []
    # names that say nothing are told apart by what differs
    for number, folder in enumerate(folders(runs)):
        folder.rename(runs / f"x-seed{number}")
    names = [group.name for group in load_groups(folders(runs))[0]]
    assert names == ["rollout.selection=none", "rollout.selection=best"]


def test_figures_are_those_of_the_files(runs):
    plain, with_drafts = load_groups(folders(runs))[0]
    accuracy = next(c for c in changes(with_drafts, MEASURES) if c.measure.name == "drafts/accuracy")
    assert accuracy.first.mean == pytest.approx(fmean([0.1, 0.2, 0.15, 0.25]))
    assert accuracy.last.mean == pytest.approx(fmean([0.9, 1.0, 0.95, 1.05]))
    assert accuracy.change.mean == pytest.approx(0.8)
    found = held_out(with_drafts, plain)
    # problems are matched by their ids, not by their lines
    assert found.by_seed == ((0, 0.625), (1, 0.75))
    assert found.final.mean == pytest.approx(0.6875)
    assert found.difference.mean == pytest.approx(0.6875 - 0.375)
    assert (found.start, found.gain) == (None, None)
    assert held_out(plain, plain).difference is None
    curve = band(with_drafts, "drafts/accuracy")
    assert curve.steps == list(range(1, 11))
    np.testing.assert_allclose(curve.low, UP)
    np.testing.assert_allclose(np.subtract(curve.high, curve.low), 0.05)


def test_a_sweep_has_names_starts_and_runs_that_have_not_begun(runs):
    variants = [
        {
            "name": "iGRPO",
            "options": [],
            "runs": ["with-seed0", "with-seed1", "with-seed2"],
            "start": "s-start",
            "completions": 640,
        },
        {
            "name": "GRPO",
            "options": [],
            "runs": ["plain-seed0", *(f"plain-seed{seed}" for seed in range(5, 9))],
            "start": "s-start",
            "completions": 640,
        },
    ]
    (runs / MANIFEST_FILE).write_text(json.dumps({"variants": variants}))
    write_evaluation(runs / "s-start", 0, {"a": [0, 0], "b": [1, 0]})
    write_run(runs / "with-seed2", config("best", 2), UP[:4])
    groups, missing = load_groups([runs])
    assert [(group.name, len(group.runs)) for group in groups] == [("iGRPO", 3), ("GRPO", 1)]
    assert missing == [
        "with-seed2: 4 of 10 steps",
        "4 not begun (plain-seed5, plain-seed6, plain-seed7 …)",
    ]
    found = held_out(groups[0], groups[0])
    assert (found.start.mean, found.gain.mean) == (0.25, pytest.approx(0.6875 - 0.25))
    # only seeds that both have are set against each other
    assert held_out(groups[1], groups[0]).difference.mean == pytest.approx(0.375 - 0.625)


def test_every_point_of_a_grid_is_set_against_its_own_baseline(tmp_path):
    variants = []
    for size, start in (("small", 0.2), ("large", 0.6)):
        for name, gain in (("grpo", 0.1), ("best", 0.3)):
            options = config("best" if name == "best" else "none")
            options.model.path = size
            write_run(tmp_path / f"{name}-{size}-seed0", options, UP, {"a": [start + gain]})
            variants.append(
                {
                    "name": f"{name}-{size}",
                    "options": [],
                    "runs": [f"{name}-{size}-seed0"],
                    "start": "none",
                    "completions": 640,
                    "baseline": f"grpo-{size}",
                }
            )
    (tmp_path / MANIFEST_FILE).write_text(json.dumps({"variants": variants}))
    groups, missing = load_groups([tmp_path])
    rows = {row.name: row for row in rows_of(groups)}
    assert {name: row.against for name, row in rows.items()} == {
        "grpo-small": "grpo-small",
        "best-small": "grpo-small",
        "grpo-large": "grpo-large",
        "best-large": "grpo-large",
    }
    looks = {name: (row.colour, row.line) for name, row in rows.items()}
    assert looks["grpo-small"] == looks["grpo-large"] != looks["best-small"] == looks["best-large"]
    assert len(forest(list(rows.values())).axes) == 2
    run_compare([tmp_path], None, None)
    html = (tmp_path / "compare.html").read_text()
    for name in ("grpo-small", "grpo-large"):  # a chart a point of the grid
        assert f"Single-shot accuracy while training ({name} and others)" in html
    assert "against the first variant at its point of the grid" in tables(
        list(rows.values()), groups, missing
    )


def test_the_page_is_self_contained_and_nothing_on_it_is_executed(runs, capsys):
    run_compare(folders(runs), runs / "page.html", None)
    html, page = checked(runs / "page.html")  # closed in order, nothing loaded from elsewhere
    assert "script" not in page.seen
    assert "&lt;/pre&gt;&lt;script&gt;" in html
    assert (
        "49"
        not in re.sub(r"<svg.*?</svg>", "", html, flags=re.DOTALL).split("Final samples")[1].split("Runs")[0]
    )
    svgs = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(svgs) >= 6
    for svg in svgs:
        root = ElementTree.fromstring(svg)
        for image in root.iter("{http://www.w3.org/2000/svg}image"):
            data = image.get("{http://www.w3.org/1999/xlink}href")
            assert base64.b64decode(data.partition("base64,")[2], validate=True)
    for said in ("0.688", "+0.312", "rollout.selection", "1,280", "Hints of hacking", "seed 1"):
        assert said in html
    tables = capsys.readouterr().out
    assert tables.splitlines()[2].startswith("| plain | 2 | – | 0.375 [")
    assert "| with | 0.625 | 0.750 |" in tables
    assert "| rollout.selection | none | best |" in tables


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium here")
def test_a_browser_shows_the_page(runs, tmp_path):
    run_compare(folders(runs), runs / "page.html", None)
    browser = [
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    shown = subprocess.run(
        [*browser, "--dump-dom", (runs / "page.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    ).stdout
    assert shown.count("<svg") == (runs / "page.html").read_text().count("<svg")
    assert "hacked" in shown
    assert "<script" not in shown  # the model's text stayed text


def test_the_plot_has_every_seed_and_the_mean_of_each_variant(runs):
    rows = rows_of(load_groups(folders(runs))[0])
    (axes,) = forest(rows).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["plain", "with"]
    shown = {
        mark: sorted(
            (line.get_ydata()[0], line.get_xdata()[0]) for line in axes.lines if line.get_marker() == mark
        )
        for mark in "Do"
    }
    assert shown["D"] == [(0, pytest.approx(0.375)), (1, pytest.approx(0.6875))]
    assert shown["o"] == [(0, 0.375), (0, 0.375), (1, 0.625), (1, 0.75)]
    run_compare(folders(runs), None, runs / "tables.md", runs / "plot.png")
    assert (runs / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_tables_go_to_a_file(runs, capsys):
    run_compare([*folders(runs)], None, runs / "tables.md")
    assert (runs / "tables.md").read_text().startswith("| variant | seeds | held-out before |")
    assert capsys.readouterr().out.strip() == f"comparison: {folders(runs)[0] / 'compare.html'}"
    with pytest.raises(UserError, match="cannot be written"):
        run_compare(folders(runs), runs / "absent/page.html", None)


def test_runs_without_evaluation_are_compared_by_their_metrics(tmp_path, capsys):
    for seed in range(2):
        write_run(tmp_path / f"a-seed{seed}", config("none", seed), UP, text=NASTY * 900)
    run_compare(sorted(tmp_path.iterdir()), None, None)
    assert "held-out" not in capsys.readouterr().out
    with pytest.raises(UserError, match="no run here has held-out accuracies"):
        run_compare(sorted(tmp_path.iterdir()), None, None, tmp_path / "plot.png")
    html, _ = checked(tmp_path / "a-seed0/compare.html")
    assert "none but the seed" in html


def test_refusals(tmp_path):
    with pytest.raises(UserError, match="neither a run's folder nor a sweep's"):
        load_groups([tmp_path])
    run = write_run(tmp_path / "a", config(), [])
    with pytest.raises(UserError, match="has no finished step to compare"):
        load_groups([run])
    for name in ("b", "c"):
        write_run(tmp_path / name, config(), UP)
    with pytest.raises(UserError, match=r"a?b and .*c have the same options and the same seed 0"):
        load_groups([tmp_path / "b", tmp_path / "c"])
    (tmp_path / "b/config.yaml").write_text("a: [")
    with pytest.raises(UserError, match="cannot be read"):
        load_groups([tmp_path / "b"])
