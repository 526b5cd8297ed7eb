"""Completions of an evaluation on the disk: what a kill leaves, and what another evaluation finds there."""

import json

import pytest

from igrpo_mcore.errors import UserError
from igrpo_mcore.evaluation.answered import Answered
from igrpo_mcore.evaluation.journal import Journal
from tests.evaluation.lines import answered, group

LINES = [answered(i, [i % 2, 1]) for i in range(7)]


def written(path, count: int = 7, fingerprint: str = "aa") -> Journal:
    journal = Journal(path, fingerprint)
    for first in range(0, count, 3):
        journal.append(LINES[first : min(first + 3, count)])
    return journal


def test_whole_batches_come_back_as_they_were(tmp_path):
    path = tmp_path / "eval" / "step_3.jsonl"
    written(path)
    assert Journal(path, "aa").finished(3, 7) == LINES


def test_tokens_come_back_bit_for_bit(tmp_path):
    line = Answered.of(group(1, [0, 1, 1]), keep_tokens=True)
    Journal(tmp_path / "a.jsonl", "aa").append([line])
    (back,) = Journal(tmp_path / "a.jsonl", "aa").finished(1, 1)
    assert back == line
    assert back.logprobs == ((-0.25,), (-0.25, -0.25), (-0.25, -0.25, -0.25))


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_torn_line_costs_its_batch_and_no_more(tmp_path, cut: int):
    path = tmp_path / "a.jsonl"
    written(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    journal = Journal(path, "aa")
    assert journal.finished(3, 7) == LINES[:6]
    journal.append(LINES[6:])
    assert path.read_bytes() == whole


def test_half_a_batch_is_sampled_again(tmp_path):
    path = tmp_path / "a.jsonl"
    written(path, count=5)
    journal = Journal(path, "aa")
    assert journal.finished(3, 7) == LINES[:3]
    assert len(path.read_text().splitlines()) == 3  # cut off, so that nothing stands there twice


def test_another_evaluation_is_kept_beside_and_taken_up_again(tmp_path):
    path = tmp_path / "step_3.jsonl"
    written(path, fingerprint="aa")
    path.with_suffix(".json").write_text("figures of aa")
    other = Journal(path, "bb")
    assert not path.with_suffix(".json").exists()  # they would be taken for those of bb
    assert other.finished(3, 7) == []
    other.append(LINES[:3])
    assert (tmp_path / "step_3.aa.jsonl").exists()
    assert Journal(path, "aa").finished(3, 7) == LINES
    assert Journal(path, "bb").finished(3, 7) == LINES[:3]


def test_lines_of_an_earlier_version_are_kept_beside(tmp_path):
    path = tmp_path / "step_3.jsonl"
    old = {"id": "1", "problem": "1+1", "answer": "2", "completions": []}
    path.write_text(json.dumps(old) + "\n")
    assert Journal(path, "aa").finished(3, 7) == []
    assert json.loads((tmp_path / "step_3.earlier.jsonl").read_text()) == old


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "eval").write_text("a file")
    with pytest.raises(UserError, match="cannot be written"):
        Journal(tmp_path / "eval" / "step_1.jsonl", "aa")
