"""What a journal gives back after a kill at any byte, and what it refuses to give."""

import math
import random
import struct

import pytest

from igrpo_mcore.errors import UserError
from igrpo_mcore.run import journal as journal_module
from igrpo_mcore.run import journal_file
from igrpo_mcore.run.journal import Choice, Journal
from igrpo_mcore.run.journal_file import JournalFile, Record, read_file
from igrpo_mcore.types import Completion, SampleKey, Score

ORIGIN = {"train.seed": "0", "model.path": "m"}


def completion(number: int, rounded: bool = True) -> Completion:
    rng = random.Random(number)
    logprobs = [-rng.random() * 10 for _ in range(rng.randrange(1, 30))]
    if rounded:
        logprobs = list(struct.unpack(f"{len(logprobs)}f", struct.pack(f"{len(logprobs)}f", *logprobs)))
    return Completion(
        tuple(rng.randrange(150_000) for _ in logprobs),
        tuple(logprobs),
        f"é\n{number}\ud800",
        number % 2 == 0,
    )


def bits(found: Completion | None) -> tuple:
    assert found is not None
    packed = struct.pack(f"<{len(found.logprobs)}d", *found.logprobs)
    return found.token_ids, packed, found.text, found.truncated


def filled(folder, steps=(1, 2), **options) -> dict[SampleKey, Completion]:
    journal, kept = Journal(folder, ORIGIN, **options), {}
    for step in steps:
        for position in range(3):
            for sample in range(2):
                key = SampleKey(step, "drafts", position, sample)
                kept[key] = completion(1000 * step + 10 * position + sample)
                journal.keep_sampled(key, kept[key])
                journal.keep_score(key, Score(0.1 * sample, {"accuracy": 1 / 3}, ("format",)))
            journal.keep_choice(step, "drafts", position, Choice(1, (0, 1)))
    journal.close()
    return kept


def test_what_was_kept_is_given_back_to_the_bit_and_whole(tmp_path):
    kept = filled(tmp_path / "journal")
    again = Journal(tmp_path / "journal", ORIGIN)
    for key, expected in kept.items():
        assert bits(again.sampled(key)) == bits(expected)
        assert again.score(key) == Score(0.1 * key.sample, {"accuracy": 1 / 3}, ("format",))
        assert again.choice(key.step, "drafts", key.position) == Choice(1, (0, 1))
    for absent in (
        SampleKey(1, "drafts", 0, 2),
        SampleKey(1, "refinements", 0, 0),
        SampleKey(3, "drafts", 0, 0),
    ):
        assert again.sampled(absent) is None
        assert again.score(absent) is None
    assert again.choice(1, "refinements", 0) is None
    assert again.note == "journal: 12 completions of steps 1 to 2 are there"


@pytest.mark.parametrize("values", [(0.1, -3.7), (-0.0, 0.0), (math.nan, -math.inf), (5e-324, 1e300), ()])
def test_any_float_keeps_its_bits(tmp_path, values):
    journal, key = Journal(tmp_path, ORIGIN), SampleKey(1, "drafts", 0, 0)
    sampled = Completion(tuple(range(len(values))), values, "", False)
    journal.keep_sampled(key, sampled)
    journal.close()
    assert bits(Journal(tmp_path, ORIGIN).sampled(key)) == bits(sampled)


def given_back(journal: Journal, kept: dict[SampleKey, Completion]) -> int:
    """Records of ``filled`` that the journal still has; each completion among them is the one kept."""
    found = {key: journal.sampled(key) for key in kept}
    assert all(bits(sampled) == bits(kept[key]) for key, sampled in found.items() if sampled)
    choices = {(key.step, key.position) for key in kept}
    return (
        sum(sampled is not None for sampled in found.values())
        + sum(journal.score(key) is not None for key in kept)
        + sum(journal.choice(step, "drafts", position) is not None for step, position in choices)
    )


@pytest.mark.parametrize("cut", [*range(0, 3000, 61)])
def test_a_journal_cut_at_any_byte_gives_back_whole_records_only(tmp_path, cut):
    kept = filled(tmp_path, steps=(1,))
    (path,) = tmp_path.iterdir()
    data, ends = path.read_bytes(), [place.offset + place.length for place, _ in read_file(path)]
    cut = min(cut, len(data))
    path.write_bytes(data[:cut])
    whole = sum(end <= cut for end in ends)
    journal = Journal(tmp_path, ORIGIN)
    assert given_back(journal, kept) == max(0, whole - 1)  # the first says what the file belongs to
    assert ("half written" in journal.note) == (whole > 0 and cut not in ends)


@pytest.mark.parametrize("seed", range(15))
def test_a_flipped_bit_is_never_given_back(tmp_path, seed):
    kept = filled(tmp_path)
    (path,) = tmp_path.iterdir()
    everything = given_back(Journal(tmp_path, ORIGIN), kept)
    data, rng = bytearray(path.read_bytes()), random.Random(seed)
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    assert given_back(Journal(tmp_path, ORIGIN), kept) < everything == 2 * 12 + 6


def test_after_a_kill_a_new_file_goes_on_and_nothing_is_kept_twice(tmp_path):
    kept = filled(tmp_path, steps=(1,))
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-5])  # the last choice is torn
    journal = Journal(tmp_path, ORIGIN)
    for key, sampled in kept.items():
        journal.keep_sampled(key, sampled)
        journal.keep_score(key, Score(0.0))
    journal.keep_choice(1, "drafts", 2, Choice(1, (0, 1)))
    journal.keep_sampled(new := SampleKey(1, "refinements", 0, 0), completion(5))
    journal.close()
    records = [record.fields for file in tmp_path.iterdir() for _, record in read_file(file)]
    sampled = [tuple(fields["sampled"]) for fields in records if "sampled" in fields]
    assert sorted(sampled) == sorted([*kept, new])
    assert sum("chosen" in fields for fields in records) == 3
    assert Journal(tmp_path, ORIGIN).choice(1, "drafts", 2) == Choice(1, (0, 1))


def test_answers_are_those_of_the_start_on_every_rank(tmp_path):
    """Ranks of an engine that do not write must act as the one that does."""
    kept = filled(tmp_path, steps=(1,))
    writer, other = Journal(tmp_path, ORIGIN), Journal(tmp_path, ORIGIN, rank=1, writes=False)
    for journal in (writer, other):
        journal.keep_sampled(SampleKey(2, "drafts", 0, 0), completion(0))
        assert journal.sampled(SampleKey(2, "drafts", 0, 0)) is None
        assert all(bits(journal.sampled(key)) == bits(kept[key]) for key in kept)
    writer.close()
    other.close()
    assert len(list(tmp_path.iterdir())) == 2


def test_another_layout_reads_what_several_ranks_wrote(tmp_path):
    for rank in range(4):
        journal = Journal(tmp_path, ORIGIN, rank=rank)
        journal.keep_sampled(SampleKey(1, "drafts", rank, 0), completion(rank))
        journal.close()
    one = Journal(tmp_path, ORIGIN)
    assert all(
        bits(one.sampled(SampleKey(1, "drafts", rank, 0))) == bits(completion(rank)) for rank in range(4)
    )


def test_of_another_configuration_nothing_is_used_and_it_says_what_differs(tmp_path):
    kept = filled(tmp_path)
    journal = Journal(tmp_path, ORIGIN | {"train.seed": "1"})
    assert all(journal.sampled(key) is None and journal.score(key) is None for key in kept)
    assert journal.note == "journal: completions sampled under another train.seed (0, now 1) are not used"
    journal.close()
    assert Journal(tmp_path, ORIGIN).sampled(next(iter(kept))) is not None
    journal.prune(2)  # a checkpoint of the new configuration makes the old files useless
    assert list(tmp_path.iterdir()) == []


def test_ranks_that_see_different_files_use_none(tmp_path, monkeypatch):
    kept = filled(tmp_path)
    monkeypatch.setattr(journal_module, "gather_objects", lambda mine: [mine, (0, "another digest")])
    journal = Journal(tmp_path, ORIGIN)
    assert given_back(journal, kept) == 0
    assert "the ranks see different files" in journal.note


def test_the_number_of_a_start_is_agreed_on(tmp_path, monkeypatch):
    monkeypatch.setattr(journal_module, "gather_objects", lambda mine: [mine, (4, mine[1])])
    filled(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["0005-0001-rank0000.journal"]


def test_steps_before_the_checkpoint_are_neither_asked_for_nor_kept_for_ever(tmp_path):
    filled(tmp_path, steps=(1, 2))
    journal = Journal(tmp_path, ORIGIN, first_step=2)
    assert journal.sampled(SampleKey(1, "drafts", 0, 0)) is None
    assert journal.sampled(SampleKey(2, "drafts", 0, 0)) is not None
    assert "6 completions of steps 2 to 2" in journal.note
    journal.prune(2)  # its file holds step 2 as well
    assert journal.sampled(SampleKey(2, "drafts", 0, 0)) is not None
    journal.prune(3)
    assert journal.sampled(SampleKey(2, "drafts", 0, 0)) is None
    assert list(tmp_path.iterdir()) == []


def test_pruning_keeps_drafts_ahead_of_the_next_step(tmp_path):
    journal = Journal(tmp_path, ORIGIN)
    for step in range(1, 6):
        journal.keep_sampled(SampleKey(step, "refinements", 0, 0), completion(step))
        journal.keep_sampled(
            SampleKey(step + 1, "drafts", 0, 0), completion(10 * step)
        )  # sampled beside them
        journal.sync()
        journal.prune(step + 1)
        assert len(list(tmp_path.iterdir())) == 1
        again = Journal(tmp_path, ORIGIN, first_step=step + 1, writes=False)
        assert bits(again.sampled(SampleKey(step + 1, "drafts", 0, 0))) == bits(completion(10 * step))
        assert again.sampled(SampleKey(step, "refinements", 0, 0)) is None


def test_a_rank_that_does_not_write_leaves_no_file(tmp_path):
    filled(tmp_path / "journal", writes=False)
    assert not (tmp_path / "journal").exists()


def test_a_full_disk_is_one_sentence_and_loses_nothing_kept_before(tmp_path, monkeypatch):
    journal = Journal(tmp_path, ORIGIN)
    journal.keep_sampled(SampleKey(1, "drafts", 0, 0), completion(1))
    with open("/dev/full", "wb", buffering=0) as full:
        monkeypatch.setattr(journal._current, "_file", full)
        with pytest.raises(UserError, match=r"cannot be written \(No space left on device\)"):
            journal.keep_sampled(SampleKey(1, "drafts", 0, 1), completion(2))
    assert bits(Journal(tmp_path, ORIGIN).sampled(SampleKey(1, "drafts", 0, 0))) == bits(completion(1))


def test_a_file_that_changes_under_a_run_is_refused(tmp_path):
    filled(tmp_path)
    (path,) = tmp_path.iterdir()
    journal = Journal(tmp_path, ORIGIN)
    path.write_bytes(path.read_bytes()[: len(journal_file.MAGIC)])
    with pytest.raises(UserError, match="it changed since the start"):
        journal.sampled(SampleKey(2, "drafts", 2, 1))


def test_a_foreign_file_is_read_over(tmp_path):
    (tmp_path / "0007-0001-rank0000.journal").write_bytes(b"something else entirely")
    (tmp_path / "notes.txt").write_text("mine")
    journal = Journal(tmp_path, ORIGIN)
    assert journal.note == ""
    journal.keep_sampled(SampleKey(1, "drafts", 0, 0), completion(1))
    assert (tmp_path / "0008-0001-rank0000.journal").exists()


def test_records_are_with_the_system_as_soon_as_they_are_kept(tmp_path):
    file = JournalFile(tmp_path / "f")
    file.append(Record({"chosen": [1, "drafts", 0], "sample": 2}, b"xyz"))
    ((_, record),) = read_file(tmp_path / "f")  # neither closed nor flushed
    assert record == Record({"chosen": [1, "drafts", 0], "sample": 2}, b"xyz")
