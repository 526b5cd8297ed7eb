"""Writing in the background, checksums, and what is left when a file is damaged or the disk is full.

One rank, and a policy of two tensors.
"""

import resource
import signal
import socket
import subprocess
import threading

import pytest
import torch
import torch.distributed as dist
from megatron.core import parallel_state as mpu
from megatron.core.dist_checkpointing import ShardedTensor

from igrpo_mcore.config.schema import ParallelConfig
from igrpo_mcore.errors import UserError
from igrpo_mcore.policy.checkpoint import load_latest
from igrpo_mcore.policy.checkpoint_writer import CheckpointWriter
from igrpo_mcore.policy.parallel import start_process_groups
from igrpo_mcore.run.checkpoint_folder import CheckpointFolder, Position


@pytest.fixture(scope="module", autouse=True)
def one_rank():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free.getsockname()[1])}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (address | {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}).items():
            patch.setenv(name, value)
        start_process_groups(ParallelConfig(), seed=0)
        yield
        mpu.destroy_model_parallel()
        dist.destroy_process_group()


class TwoTensors:
    """Stands for the policy; ``large`` does not fit where files may have 64 KiB."""

    def __init__(self, value: float = 0.0) -> None:
        self.small, self.large, self.updates = torch.full((8,), value), torch.full((64, 1024), value), 0

    def sharded_state(self, *, loading: bool) -> dict:
        tensors = {"small": self.small, "large": self.large}
        return {"model": {name: ShardedTensor.from_rank_offsets(name, t) for name, t in tensors.items()}}

    def load_sharded_state(self, state: dict, updates: int) -> None:
        self.small, self.large, self.updates = state["model"]["small"], state["model"]["large"], updates

    def values(self) -> set[float]:
        return {*self.small.tolist(), *self.large.flatten().tolist()}


def position(step: int) -> Position:
    return Position(step, 4 * step, step)


def filled(root, *steps: int, keep: int = 5) -> CheckpointFolder:
    folder = CheckpointFolder(root, keep)
    for step in steps:
        CheckpointWriter(folder).begin(TwoTensors(float(step)), position(step))
    return folder


def test_without_background_it_is_there_when_begin_returns(tmp_path):
    published = CheckpointWriter(CheckpointFolder(tmp_path)).begin(TwoTensors(3.0), position(3))
    assert published is not None
    assert published.path == tmp_path / "step_000003"
    policy = TwoTensors()
    assert load_latest(CheckpointFolder(tmp_path), policy) == position(3)
    assert (policy.values(), policy.updates) == ({3.0}, 3)


def test_in_the_background_it_holds_the_state_of_begin(tmp_path, monkeypatch):
    may_write, write = threading.Event(), CheckpointWriter.__init__.__globals__["_Write"]._write
    monkeypatch.setitem(CheckpointWriter.__init__.__globals__, "_Write", _held(write, may_write))
    folder, policy = CheckpointFolder(tmp_path), TwoTensors(1.0)
    writer = CheckpointWriter(folder, asynchronous=True)
    assert writer.begin(policy, position(1)) is None
    policy.small.fill_(2.0)  # the next update
    policy.large.fill_(2.0)
    assert writer.poll() is None
    assert folder.all() == []
    may_write.set()
    published = writer.finish()
    assert published is not None
    assert [path.name for path in tmp_path.iterdir()] == ["step_000001"]
    loaded = TwoTensors()
    load_latest(folder, loaded)
    assert loaded.values() == {1.0}
    assert writer.poll() is None
    assert writer.finish() is None


def _held(write, may_write: threading.Event) -> type:
    module = CheckpointWriter.__init__.__globals__

    class Held(module["_Write"]):
        def _write(self, index: int):
            assert may_write.wait(60)
            return write(self, index)

    return Held


def test_one_is_under_way_at_most_and_poll_publishes_what_is_written(tmp_path):
    folder = CheckpointFolder(tmp_path, keep=2)
    writer = CheckpointWriter(folder, asynchronous=True)
    assert writer.begin(TwoTensors(1.0), position(1)) is None
    published = writer.begin(TwoTensors(2.0), position(2))  # waits for the first
    assert published is not None
    assert published.path == folder.path(1)
    writer._under_way.join()
    published = writer.poll()
    assert published is not None
    assert published.path == folder.path(2)
    assert [path.name for path in folder.all()] == ["step_000001", "step_000002"]


def test_coreutils_finds_the_checksums_of_every_file_right(tmp_path):
    (checkpoint,) = filled(tmp_path, 1).all()
    command = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    checked = subprocess.run(command, cwd=checkpoint, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert checked.stdout.count(": OK") == len(list(checkpoint.iterdir())) - 1


def damage_flip(checkpoint):
    path = max(checkpoint.glob("*.distcp"), key=lambda path: path.stat().st_size)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def damage_cut(checkpoint):
    path = max(checkpoint.glob("*.distcp"), key=lambda path: path.stat().st_size)
    path.write_bytes(path.read_bytes()[:-100])


def damage_missing(checkpoint):
    max(checkpoint.glob("*.distcp")).unlink()


def damage_position(checkpoint):
    (checkpoint / "position.json").write_text("{}")


def damage_metadata(checkpoint):
    (checkpoint / ".metadata").write_bytes(b"")


def damage_manifest(checkpoint):
    (checkpoint / "SHA256SUMS").unlink()


DAMAGES = {
    damage_flip: "is not what was written there",
    damage_cut: "is not what was written there",
    damage_missing: "is missing",
    damage_position: "position.json is not what was written there",
    damage_metadata: ".metadata is not what was written there",
    damage_manifest: "SHA256SUMS is missing or damaged",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_passed_over_and_told(tmp_path, damage):
    folder = filled(tmp_path, 1, 2)
    damage(folder.path(2))
    policy = TwoTensors()
    assert load_latest(folder, policy) == position(1)
    assert policy.values() == {1.0}
    assert folder.note.startswith("step_000002 is damaged (")
    assert DAMAGES[damage] in folder.note
    assert "goes on from the one before" in folder.note
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged_step_000002", "step_000001"]
    assert load_latest(CheckpointFolder(tmp_path), policy) == position(1)


def test_where_none_is_whole_the_run_does_not_begin_anew_by_itself(tmp_path):
    folder = filled(tmp_path, 1, 2)
    damage_flip(folder.path(1))
    damage_cut(folder.path(2))
    with pytest.raises(
        UserError, match=r"no checkpoint in .* is whole \(step_000002: .*\): restore one, or set"
    ):
        load_latest(folder, TwoTensors())
    assert load_latest(CheckpointFolder(tmp_path / "none"), TwoTensors()) is None


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_full_disk_is_one_sentence_and_the_last_checkpoint_is_whole(tmp_path, asynchronous):
    folder = filled(tmp_path, 1)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, limits[1]))
    try:
        writer = CheckpointWriter(folder, asynchronous=asynchronous)
        with pytest.raises(UserError, match="the checkpoint of step 2 could not be written") as said:
            _ = writer.begin(TwoTensors(2.0), position(2)), writer.finish()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert "(File too large; step_000001 is whole)" in str(said.value)
    policy = TwoTensors()
    assert load_latest(folder, policy) == position(1)
    assert policy.values() == {1.0}
    assert filled(tmp_path, 2).all() == [folder.path(1), folder.path(2)]
