"""The figures of an evaluation, by hand and by formula."""

import json

import numpy as np
import pytest
from PIL import Image

from igrpo_mcore.errors import UserError
from igrpo_mcore.evaluation.bootstrap import Estimate, estimates, interval
from igrpo_mcore.evaluation.figures import Evaluation
from igrpo_mcore.evaluation.files import figures_path, read, table, write
from tests.evaluation.lines import answered

LINES = [answered(1, [1, 0, 0, 0]), answered(2, [0, 0, 0, 0], truncated=True), answered(3, [1, 1, 1, 1])]


def test_figures():
    found = Evaluation.of(7, LINES, winners=[1, None, 2])
    assert (found.step, found.problems, found.samples) == (7, 3, 4)
    assert found.accuracy == pytest.approx(5 / 12)
    assert found.any_right == pytest.approx(2 / 3)
    assert found.truncated == pytest.approx(1 / 3)
    assert found.length == pytest.approx(2.5)
    assert found.distinct_texts == pytest.approx(0.5)
    assert found.low < found.accuracy < found.high
    assert {k: one.value for k, one in found.pass_at.items()} == pytest.approx(
        {"1": 5 / 12, "2": (1 / 2 + 0 + 1) / 3, "4": 2 / 3}
    )
    assert found.pass_at["1"] == pytest.approx((found.accuracy, found.low, found.high))
    assert found.majority is not None
    assert found.majority.value == pytest.approx(1 / 3)  # completion 1 of the first problem is wrong


def test_the_interval_is_near_the_normal_approximation():
    values = np.random.default_rng(1).random(400)
    low, high = interval(values)
    half = 1.96 * values.std(ddof=1) / 20
    assert low == pytest.approx(values.mean() - half, abs=half / 10)
    assert high == pytest.approx(values.mean() + half, abs=half / 10)


def test_the_interval_covers_the_mean_that_it_is_of():
    """Of 200 sets of 40 problems with a known mean, 95 % of the intervals hold it, give or take 3 std."""
    random = np.random.default_rng(2)
    held = [low <= 0.3 <= high for low, high in (interval(random.random(40) < 0.3, s) for s in range(200))]
    assert abs(np.mean(held) - 0.95) < 3 * np.sqrt(0.95 * 0.05 / 200)


def test_columns_see_the_same_draws_in_whatever_company():
    random = np.random.default_rng(3)
    a, b = random.random(50), random.random(50)
    both = estimates({"a": a, "b": b, "sum": a + b})
    assert both["a"] == estimates({"a": a})["a"]
    assert both["sum"].value == pytest.approx(both["a"].value + both["b"].value)
    drawn = np.random.default_rng(0).integers(0, 50, (10_000, 50))  # in one piece
    assert both["a"][1:] == pytest.approx(tuple(np.percentile(a[drawn].mean(axis=1), [2.5, 97.5])))


def test_a_large_suite_is_drawn_in_blocks_with_the_same_result(monkeypatch):
    from igrpo_mcore.evaluation import bootstrap

    values = np.random.default_rng(4).random(30)
    whole = estimates({"a": values})
    monkeypatch.setattr(bootstrap, "BLOCK", 1000)
    assert estimates({"a": values}) == whole


def test_what_is_written_is_read(tmp_path):
    found = Evaluation.of(7, LINES, suite="aime24", winners=[0, None, 0])
    path = figures_path(tmp_path, "aime24", 7)
    assert path == tmp_path / "eval" / "aime24" / "step_7.json"
    assert figures_path(tmp_path, "held_out", 0) == tmp_path / "eval" / "step_0.json"
    write(path, found)
    assert read(path) == found
    assert path.with_suffix(".md").read_text() == table([found])
    with Image.open(path.with_suffix(".png")) as plot:
        plot.load()
        assert plot.width > 600
        assert len({pixel for _, pixel in plot.convert("RGB").getcolors(10**6)}) > 10  # something is drawn
    with pytest.raises(UserError, match="is no evaluation"):
        read(path.with_suffix(".md"))


def test_figures_of_an_earlier_version_are_read(tmp_path):
    """`--against` may be given a file from before pass@k was written."""
    found = json.loads(json.dumps(Evaluation.of(0, LINES).__dict__))
    old = {k: v for k, v in found.items() if k not in ("suite", "pass_at", "majority")}
    (tmp_path / "step_0.json").write_text(json.dumps(old))
    assert read(tmp_path / "step_0.json").accuracy == found["accuracy"]


def test_the_table_has_a_row_a_suite_and_every_k():
    short = Evaluation.of(3, [answered(1, [1]), answered(2, [0])], suite="gsm8k")
    long = Evaluation.of(3, LINES, suite="aime24", winners=[0, 0, 0])
    lines = table([short, long]).splitlines()
    assert len(lines) == 4
    assert all(line.count("|") == lines[0].count("|") for line in lines)
    assert "pass@4" in lines[0]
    assert str(Estimate(short.accuracy, short.low, short.high)) in lines[2]
    assert str(long.pass_at["4"]) in lines[3]
