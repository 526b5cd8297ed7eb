"""The watchdog: what it says of a hang, and a real job with a rank that is stopped."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from igrpo_mcore.run.heartbeat import Heartbeat, Heartbeats
from igrpo_mcore.run.kill_points import VARIABLE, KillPoint
from igrpo_mcore.run.progress import START_UP, Place
from igrpo_mcore.run.stacks import ask_for_stack
from igrpo_mcore.run.watchdog import finding
from tests.support.ranks import ROOT, in_own_session
from tests.support.small_recipe import small_recipe

SLEEPER = """
import sys, threading, time
from pathlib import Path
from igrpo_mcore.run.stacks import StackFile
StackFile(Path(sys.argv[1]))
def wakes_often():
    while True:
        time.sleep(0.001)
def reads_for_ever():
    sys.stdin.read()
for target in (wakes_often, reads_for_ever):
    threading.Thread(target=target, daemon=True).start()
def where_it_stands():
    print("ready", flush=True)
    time.sleep(600)
where_it_stands()
"""


def heartbeat(rank: int, phase: str, step: int = 3) -> Heartbeat:
    return Heartbeat(rank, "node", 100 + rank, 0.0, 1, Place(7, step, phase))


def test_the_rank_that_does_not_answer_comes_first() -> None:
    beats = {rank: heartbeat(rank, "gather") for rank in range(6)} | {4: heartbeat(4, "rollout")}
    said = finding(beats, [0, 1, 2, 3, 5], 6, 600.0, Path("runs/r/watch")).splitlines()
    assert "no rank has moved for 10 minutes (run.hang_minutes)" in said[0]
    assert "rank 4 does not answer: process 104 on node, last seen in rollout of step 3" in said[1]
    assert "ranks 0-3, 5 wait in gather of step 3" in said[2]


def test_where_all_answer_the_odd_one_out_comes_first() -> None:
    beats = {rank: heartbeat(rank, "gather") for rank in range(4)} | {2: heartbeat(2, "rollout")}
    said = finding(beats, [0, 1, 2, 3], 4, 90.0, Path("w")).splitlines()
    assert "1.5 minutes" in said[0]
    assert "rank 2 waits in rollout of step 3" in said[1]
    assert "ranks 0-1, 3 wait in gather of step 3" in said[2]


def test_a_rank_that_never_started() -> None:
    beats = {0: heartbeat(0, START_UP, 0)}
    said = finding(beats, [0], 2, 600.0, Path("w"))
    assert "rank 1 does not answer: it never started" in said
    assert "rank 0 waits in start-up" in said


def test_heartbeats_are_read_by_others_and_leave_nothing(tmp_path: Path) -> None:
    ranks = [Heartbeats(tmp_path / "watch", rank, 3) for rank in range(2)]
    for rank in ranks:
        rank.write()
        rank.stack_file_of(rank.rank).touch()
    ranks[1].write()
    found = ranks[0].read_all()
    assert {rank: beat.tick for rank, beat in found.items()} == {0: 1, 1: 2}
    assert found[1].process() == psutil.Process()
    before = ranks[0].progress()
    time.sleep(0.02)
    ranks[1].touch_progress()
    assert ranks[0].progress() != before
    (tmp_path / "watch/rank_2.json").write_text('{"rank": 2')  # in the middle of being written
    assert 2 not in ranks[0].read_all()
    (tmp_path / "watch/rank_2.json").unlink()
    for rank in ranks:
        rank.clear()
    assert list(tmp_path.iterdir()) == []


def test_a_stopped_process_writes_where_it_stood(tmp_path: Path) -> None:
    """The main thread's stack first, then the others'; many times, since threads that ran while one wrote all
    stacks ended the process once in a hundred times."""
    path = tmp_path / "rank_1.txt"
    command = [sys.executable, "-c", SLEEPER, str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            for _ in range(10):
                before = path.stat().st_size
                os.kill(process.pid, signal.SIGSTOP)
                assert ask_for_stack(psutil.Process(process.pid), path)
                main, *others = path.read_text()[before:].split("Stack (most recent call first):")[1:]
                assert "where_it_stands" in main
                assert sum("reads_for_ever" in other for other in others) == 1
            assert process.poll() is None
        finally:
            process.kill()


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return small_recipe(
        tmp_path,
        "parallel: {tp: 2}\n"
        "rollout: {max_prompt_tokens: 64, max_completion_tokens: 16, temperature: 1.0}\n"
        f"train: {{steps: 100000, prompts_per_step: 4}}\n"
        f"run: {{dir: {tmp_path}/runs, tensorboard: false, hang_minutes: 0.5}}\n",
    )


@contextlib.contextmanager
def running(recipe: Path, name: str, stopped: int) -> Iterator[tuple[subprocess.Popen, Path]]:
    """A job of its own, in which a rank stops itself in step 2: there its stack is whole, which it may not be
    in the middle of a Python call (``stacks.ask_for_stack``). Yields its process and its log."""
    log = recipe.parent / f"{name}.log"
    command = [sys.executable, "-m", "igrpo_mcore", "train", str(recipe), f"run.name={name}"]
    environment = os.environ | {VARIABLE: str(KillPoint("update", 2, str(stopped), "STOP"))}
    with log.open("w") as output, in_own_session(command, output, environment) as job:
        yield job, log


@pytest.mark.slow
def test_a_stopped_rank_ends_the_job_with_every_ranks_stack(recipe: Path) -> None:
    """Two jobs side by side, since most of it is waiting: of one rank 0 is stopped, of the other rank 1."""
    with running(recipe, "hangs-0", 0) as first, running(recipe, "hangs-1", 1) as second:
        left = [wait_for_stop(job, log, stopped) for stopped, (job, log) in enumerate((first, second))]
        for stopped, (job, log) in enumerate((first, second)):
            assert job.wait(120) == 70, log.read_text()[-4000:]  # torch.distributed alone takes 30 minutes
            said, folder = log.read_text(), recipe.parent / f"runs/hangs-{stopped}"
            pid, processes = left[stopped]
            assert f"rank {stopped} does not answer: process {pid} on " in said
            assert said.count("no rank has moved for 0.5 minutes") == 1
            for rank in range(2):
                assert "trainer.py" in (folder / f"watch/rank_{rank}.txt").read_text()
            assert (folder / f"watch/collectives_{1 - stopped}").stat().st_size > 0
            _, alive = psutil.wait_procs(processes, timeout=20)
            assert alive == []


def wait_for_stop(job: subprocess.Popen, log: Path, stopped: int) -> tuple[int, list[psutil.Process]]:
    """Until the rank has stopped; its process id, and all processes of the job."""
    deadline = time.monotonic() + 400
    while True:
        assert job.poll() is None, log.read_text()[-4000:]
        assert time.monotonic() < deadline, log.read_text()[-4000:]
        with contextlib.suppress(psutil.NoSuchProcess):
            for rank in psutil.Process(job.pid).children():
                if rank.status() == psutil.STATUS_STOPPED:
                    assert rank.environ()["RANK"] == str(stopped)
                    return rank.pid, psutil.Process(job.pid).children(recursive=True)
        time.sleep(0.2)
