"""One job a run's folder, by real processes that hold it, end and are killed."""

import errno
import os
import subprocess
import sys
import time

import pytest

from igrpo_mcore.errors import UserError
from igrpo_mcore.run import folder_lock
from igrpo_mcore.run.folder_lock import FolderLock, check_not_held

HOLD = (
    "import sys, time; from pathlib import Path\n"
    "from igrpo_mcore.run.folder_lock import FolderLock\n"
    "with FolderLock(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(600)\n"
)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(folder_lock, "PATIENCE_S", 0.3)
    monkeypatch.setattr(folder_lock, "POLL_S", 0.02)


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_folder_in_other_hands_is_refused_with_who_has_it(tmp_path, holder):
    sentence = (
        f"{tmp_path} is being trained by process {holder.pid} on .*: end that job, or set another run.name"
    )
    with pytest.raises(UserError, match=sentence):
        check_not_held(tmp_path)
    with pytest.raises(UserError, match=sentence), FolderLock(tmp_path):
        pass
    holder.kill()
    holder.wait()
    check_not_held(tmp_path)
    with FolderLock(tmp_path):
        assert f'"pid": {os.getpid()}' in (tmp_path / "watch/lock").read_text()


def test_one_that_is_just_ending_is_waited_for(tmp_path, holder, monkeypatch):
    monkeypatch.setattr(folder_lock, "PATIENCE_S", 60.0)
    polls = []

    def sleep(seconds: float) -> None:
        polls.append(seconds)
        if len(polls) == 3:
            holder.kill()
            holder.wait()

    monkeypatch.setattr(time, "sleep", sleep)
    with FolderLock(tmp_path):
        assert len(polls) == 3


def test_a_new_folder_and_a_file_system_without_locks(tmp_path, monkeypatch):
    check_not_held(tmp_path / "new")
    assert not (tmp_path / "new").exists()

    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(folder_lock.fcntl, "flock", unsupported)
    with FolderLock(tmp_path), FolderLock(tmp_path):
        check_not_held(tmp_path)
