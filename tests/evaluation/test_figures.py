"""The figures of an evaluation, by hand and by formula."""

import numpy as np
import pytest

from igrpo_mcore.errors import UserError
from igrpo_mcore.evaluate import Evaluation, interval, read, write
from igrpo_mcore.types import Completion, Group, Problem, Prompt, Score


def group(number: int, right: list[int], truncated: bool = False) -> Group:
    problem = Problem(str(number), f"{number} + 1", str(number + 1))
    return Group(
        Prompt(problem, (1, 2)),
        tuple(
            Completion((5,) * (i + 1), (0.0,) * (i + 1), f"text {i % 2}", truncated)
            for i in range(len(right))
        ),
        tuple(Score(float(r), {"accuracy": float(r)}) for r in right),
    )


GROUPS = [group(1, [1, 0, 0, 0]), group(2, [0, 0, 0, 0], truncated=True), group(3, [1, 1, 1, 1])]


def test_figures():
    found = Evaluation.of(7, GROUPS)
    assert (found.step, found.problems, found.samples) == (7, 3, 4)
    assert found.accuracy == pytest.approx(5 / 12)
    assert found.any_right == pytest.approx(2 / 3)
    assert found.truncated == pytest.approx(1 / 3)
    assert found.length == pytest.approx(2.5)
    assert found.distinct_texts == pytest.approx(0.5)
    assert found.low < found.accuracy < found.high


def test_the_interval_is_near_the_normal_approximation():
    values = np.random.default_rng(1).random(400)
    low, high = interval(values)
    half = 1.96 * values.std(ddof=1) / 20
    assert low == pytest.approx(values.mean() - half, abs=half / 10)
    assert high == pytest.approx(values.mean() + half, abs=half / 10)


def test_what_is_written_is_read(tmp_path):
    found = Evaluation.of(7, GROUPS)
    path = write(tmp_path / "eval", found, GROUPS)
    assert path.name == "step_7.json"
    assert read(path) == found
    assert len(path.with_suffix(".jsonl").read_text().splitlines()) == 3
    with pytest.raises(UserError, match="is no evaluation"):
        read(path.with_suffix(".jsonl"))
