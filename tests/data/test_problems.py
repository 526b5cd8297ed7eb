"""Reading problem sets, and what is said of bad ones."""

import json
import re
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from igrpo_mcore.config.schema import DataConfig
from igrpo_mcore.data.problems import load_problems
from igrpo_mcore.errors import UserError
from igrpo_mcore.types import Problem

ROWS = [{"problem": "1+1?", "answer": "2"}, {"problem": "½ von 4 ist?", "answer": 2}]
PROBLEMS = [Problem("1", "1+1?", "2"), Problem("2", "½ von 4 ist?", "2")]


def write_lines(path: Path, *lines: str) -> DataConfig:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return DataConfig(path=str(path))


def test_jsonl_numbers_problems_by_line_and_skips_blank_lines(tmp_path: Path) -> None:
    config = write_lines(tmp_path / "set.jsonl", json.dumps(ROWS[0]), "", json.dumps(ROWS[1]))
    assert load_problems(config) == [PROBLEMS[0], Problem("3", *list(vars(PROBLEMS[1]).values())[1:])]


def test_an_id_column_and_other_field_names_are_used(tmp_path: Path) -> None:
    config = write_lines(
        tmp_path / "set.jsonl", json.dumps({"id": "aime-7", "question": "q", "solution": 0.5})
    )
    config.problem_field, config.answer_field = "question", "solution"
    assert load_problems(config) == [Problem("aime-7", "q", "0.5")]


def test_parquet_and_a_data_set_folder_give_what_jsonl_gives(tmp_path: Path, monkeypatch) -> None:
    """The folder goes through ``datasets.load_dataset``, the call that a hub id takes."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    table = pa.Table.from_pylist([{**row, "answer": str(row["answer"])} for row in ROWS])
    folder = tmp_path / "folder"
    folder.mkdir()
    pq.write_table(table, folder / "train.parquet")
    assert load_problems(DataConfig(path=str(folder / "train.parquet"))) == PROBLEMS
    assert load_problems(DataConfig(path=str(folder))) == PROBLEMS


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{'problem': 1}", "not JSON"),
        ('["q", "a"]', "a list, not a JSON object"),
        ('{"problem": "q"}', "no 'answer'"),
        ('{"answer": "a"}', "no 'problem'"),
        ('{"problem": "q", "answer": null}', "no 'answer'"),
        ('{"problem": "q", "answer": ["a"]}', "'answer' is a list"),
        ('{"problem": " ", "answer": "a"}', "'problem' is empty"),
    ],
)
def test_a_bad_line_is_named_with_its_file(tmp_path: Path, line: str, said: str) -> None:
    config = write_lines(tmp_path / "set.jsonl", json.dumps(ROWS[0]), line)
    with pytest.raises(UserError, match=re.escape(said)) as caught:
        load_problems(config)
    assert "set.jsonl, line 2:" in str(caught.value)


def test_bytes_that_are_not_utf8_are_a_bad_line(tmp_path: Path) -> None:
    (tmp_path / "set.jsonl").write_bytes(b'{"problem": "\xff", "answer": "1"}\n')
    with pytest.raises(UserError, match=r"set.jsonl, line 1: not JSON"):
        load_problems(DataConfig(path=str(tmp_path / "set.jsonl")))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.jsonl", b"\n\n", "holds no problems"),
        ("set.csv", b"problem,answer\n", "neither JSONL nor Parquet"),
        ("bad.parquet", b"PAR1 not really", "cannot be read as Parquet"),
        ("absent.jsonl", None, "There is no file"),
    ],
)
def test_a_bad_file(tmp_path: Path, name: str, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=said) as caught:
        load_problems(DataConfig(path=str(tmp_path / name)))
    assert name in str(caught.value)


def test_parquet_without_the_column_names_those_it_has(tmp_path: Path) -> None:
    pq.write_table(pa.table({"question": ["q"], "answer": ["a"]}), tmp_path / "set.parquet")
    with pytest.raises(UserError, match=r"no column 'problem' \(it has question, answer\)"):
        load_problems(DataConfig(path=str(tmp_path / "set.parquet")))


def test_a_parquet_row_without_answer_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"problem": ["q", "r"], "answer": ["a", None]}), tmp_path / "set.parquet")
    with pytest.raises(UserError, match=r"set.parquet, row 2: no 'answer'"):
        load_problems(DataConfig(path=str(tmp_path / "set.parquet")))


def test_a_data_set_that_cannot_be_loaded(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    empty = tmp_path / "folder"
    empty.mkdir()
    with pytest.raises(UserError, match=r"cannot be loaded .*data\.path"):
        load_problems(DataConfig(path=str(empty)))
