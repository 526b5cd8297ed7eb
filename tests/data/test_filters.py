"""Which problems are kept, counted by hand."""

import json
from pathlib import Path

import pytest

from igrpo_mcore.config.schema import DataConfig, MixtureSet
from igrpo_mcore.data.filters import filtered
from igrpo_mcore.data.problems import load_problems, load_sets, read_problems
from igrpo_mcore.errors import UserError
from igrpo_mcore.types import Problem

PROBLEMS = [
    Problem("a", "What is 1+1?", "2", pass_rate=1.0),
    Problem("b", "What  is 1+1? ", "3", pass_rate=0.5),
    Problem("c", "what is 1+1?", "4", pass_rate=0.0),
    Problem("d", "Name a colour, any colour.", "red", pass_rate=0.25),
]


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, "abcd"),
        ({"max_problem_characters": 12}, "ac"),
        ({"answer_pattern": r"^\d+$"}, "abc"),
        ({"answer_pattern": "e"}, "d"),
        ({"drop_duplicates": True}, "ad"),
        ({"min_pass_rate": 0.25, "max_pass_rate": 0.5}, "bd"),
        ({"limit": 2}, "ab"),
        ({"limit": 2, "drop_duplicates": True}, "ad"),
        ({"limit": 1, "answer_pattern": "red"}, "d"),
    ],
)
def test_what_is_kept(options: dict, kept: str) -> None:
    assert "".join(p.id for p in filtered(PROBLEMS, DataConfig(path="set", **options))) == kept


def test_a_set_of_which_nothing_is_left_is_refused() -> None:
    with pytest.raises(UserError, match="of the 4 problems of set the filters of data leave none"):
        filtered(PROBLEMS, DataConfig(path="set", answer_pattern="blue"))


def written(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_each_set_of_a_mixture_has_its_own_columns_and_the_same_filters(tmp_path: Path) -> None:
    one = written(tmp_path / "one.jsonl", [{"problem": f"p{i}", "answer": i} for i in range(4)])
    other = written(tmp_path / "other.jsonl", [{"question": f"q{i}", "answer": i} for i in range(4)])
    config = DataConfig(path=one, mixture=[MixtureSet(other, problem_field="question")], limit=3)
    assert [[p.problem for p in found] for found in load_sets(config)] == [
        ["p0", "p1", "p2"],
        ["q0", "q1", "q2"],
    ]
    assert len(load_problems(config)) == 6
    assert len(read_problems(config)) == 4


@pytest.mark.parametrize("rate", [1.5, -0.1, "half", None, True])
def test_a_pass_rate_that_is_none(tmp_path: Path, rate) -> None:
    path = written(tmp_path / "set.jsonl", [{"problem": "p", "answer": 1, "rate": rate}])
    with pytest.raises(UserError, match=r"line 1: 'rate' is .*; a pass rate is a number from 0 to 1"):
        load_problems(DataConfig(path=path, pass_rate_field="rate"))
    assert load_problems(DataConfig(path=path))[0].pass_rate is None
