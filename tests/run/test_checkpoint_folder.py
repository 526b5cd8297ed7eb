"""What lies in a run's checkpoint folder, whenever the job that writes there is killed."""

import errno

import pytest

from igrpo_mcore.errors import UserError
from igrpo_mcore.run.checkpoint_folder import CheckpointFolder, Position

LAYOUT = {"tp": 2, "pp": 1, "dp": 1}


def write(folder: CheckpointFolder, step: int) -> None:
    folder.begin(step)
    (folder.partial(step) / "data").write_text(str(step))
    folder.publish(Position(step, 10 * step, step), LAYOUT)


def test_the_newest_are_kept_and_read_back(tmp_path):
    folder = CheckpointFolder(tmp_path / "checkpoints", keep=2)
    assert folder.latest() is None
    assert folder.oldest_step() == 0
    for step in (5, 10, 1_000_000):
        write(folder, step)
    assert [path.name for path in folder.all()] == ["step_000010", "step_1000000"]
    assert folder.oldest_step() == 10
    latest = folder.latest()
    assert folder.read(latest) == (Position(1_000_000, 10_000_000, 1_000_000), LAYOUT)


def test_a_half_written_one_is_neither_loaded_nor_left(tmp_path):
    folder = CheckpointFolder(tmp_path, keep=2)
    write(folder, 1)
    folder.begin(2)
    (folder.partial(2) / "data").write_text("half")  # killed here
    assert folder.latest() == folder.path(1)
    write(folder, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_000001", "step_000002"]
    assert (folder.path(2) / "data").read_text() == "2"


def test_a_step_that_comes_by_again_replaces_its_checkpoint(tmp_path):
    folder = CheckpointFolder(tmp_path, keep=2)
    for step in (1, 2, 2):
        write(folder, step)
    assert [path.name for path in folder.all()] == ["step_000001", "step_000002"]


@pytest.mark.parametrize("content", ["", "{}", '{"step": 1}', "[1]"])
def test_a_damaged_one_is_named(tmp_path, content):
    folder = CheckpointFolder(tmp_path)
    write(folder, 1)
    (folder.path(1) / "position.json").write_text(content)
    with pytest.raises(UserError, match=r"step_000001 is no whole checkpoint.*remove it"):
        folder.read(folder.path(1))


def test_a_full_disk_names_the_last_whole_one(tmp_path):
    folder = CheckpointFolder(tmp_path)
    write(folder, 1)
    said = str(folder.cannot_write(2, OSError(errno.ENOSPC, "No space left on device")))
    assert "checkpoint of step 2" in said
    assert "No space left on device; step_000001 is whole" in said


def test_an_error_without_words_is_told_by_its_kind(tmp_path):
    assert "(AssertionError; there is none before it)" in str(
        CheckpointFolder(tmp_path).cannot_write(1, AssertionError())
    )


def test_only_what_it_wrote_itself_is_cleared(tmp_path):
    (tmp_path / ".nfs0001").write_text("held open elsewhere")
    write(CheckpointFolder(tmp_path), 1)
    assert (tmp_path / ".nfs0001").exists()
