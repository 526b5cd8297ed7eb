"""Run a test's worker in several ranks, or a command of a user's."""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[2]


class RankForks:
    """Processes that fork ranks (``tests.support.rank_forks``), kept until the tests end."""

    def __init__(self) -> None:
        self.servers: list[subprocess.Popen] = []

    def start(self, count: int) -> list[subprocess.Popen]:
        while len(self.servers) < count:
            server = subprocess.Popen(
                [sys.executable, "-m", "tests.support.rank_forks"],
                cwd=ROOT,
                env=worker_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            self.servers.append(server)
        return self.servers[:count]

    def end(self) -> None:
        """Their ranks end with them."""
        for server in self.servers:
            server.kill()
            server.communicate()
        self.servers.clear()


FORKS = RankForks()


def worker_environment() -> dict[str, str]:
    return os.environ | {
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "passive",  # a rank alone takes every core, which the next test may want as well
        "TORCHDYNAMO_DISABLE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }


def run_ranks(module: str, nproc: int, *args: object, timeout_s: float = 500.0) -> str:
    """``main()`` of a worker module in ``nproc`` ranks, ``args`` in its sys.argv; returns their output.

    The ranks are forks of two processes that have imported the module already, even ones of the first and odd
    ones of the second: neighbours hash strings differently, as processes of their own do. Under torchrun the
    launcher holds the ranks' store; here it is this process. What acts before imports needs
    :func:`run_fresh_ranks`.

    Raises:
        AssertionError: with the output's end, when a rank fails or time runs out; the others are ended.
    """
    from torch.distributed import TCPStore

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    environment = worker_environment() | {
        "WORLD_SIZE": str(nproc),
        "LOCAL_WORLD_SIZE": str(nproc),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
    }
    request = {"module": module, "arguments": [*map(str, args)], "environment": environment}
    with tempfile.NamedTemporaryFile("r") as output, selectors.DefaultSelector() as answers:
        servers = FORKS.start(min(nproc, 2))
        for i, server in enumerate(servers):
            mine = request | {"ranks": list(range(i, nproc, len(servers))), "output": output.name}
            server.stdin.write(json.dumps(mine).encode() + b"\n")
            server.stdin.flush()
            answers.register(server.stdout, selectors.EVENT_READ)
        try:
            status = _wait_for_ranks(answers, nproc, time.monotonic() + timeout_s)
        except BaseException:
            FORKS.end()  # answers of this request may be on their way
            raise
        text = output.read()
    assert status == 0, f"{module} in {nproc} ranks ended with {status}:\n{text[-8000:]}"
    return text


def _wait_for_ranks(answers: selectors.BaseSelector, nproc: int, deadline: float) -> int | str:
    """The first status that is not 0, or 0. When it returns no rank is left, nor what ranks have started."""
    status: int | str = 0
    pids: dict[int, int] = {}
    running = set(range(nproc))
    try:
        while running:
            ready = answers.select(max(0.0, deadline - time.monotonic()))
            if not ready and status == 0:
                status, deadline = "out of time", deadline + 60
                _kill(pids)
            assert ready or time.monotonic() < deadline, "ranks that were killed have not ended"
            for key, _ in ready:
                lines = os.read(key.fd, 1 << 16).splitlines()  # a write of a line is atomic
                assert lines, "a process that forks ranks has ended; its error is above"
                for rank, pid, ended in map(json.loads, lines):
                    pids[rank] = pid
                    if ended is not None:
                        running.discard(rank)
                    if ended and status == 0:
                        status, deadline = ended, time.monotonic() + 60
                    if status:
                        _kill(pids)
    finally:
        _kill(pids)
    return status


def _kill(pids: dict[int, int]) -> None:
    for pid in pids.values():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


def run_fresh_ranks(module: str, nproc: int, *args: object, timeout_s: float = 500.0) -> str:
    """``python -m module args`` in ``nproc`` processes under torch.distributed.run; returns its output.

    Raises:
        AssertionError: with the output's end, when a rank fails or time runs out. The output goes
            through a file: a crashed rank can keep a pipe open.
    """
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *(f"--nproc-per-node={nproc}", "-m", module),
        *map(str, args),
    ]
    status, text = _run(command, timeout_s, worker_environment())
    assert status == 0, f"{module} in {nproc} ranks ended with {status}:\n{text[-8000:]}"
    return text


def igrpo(*arguments: object, timeout_s: float = 600.0) -> tuple[int | None, str]:
    """Run ``igrpo arguments`` as a user does; its exit status (None: out of time) and its output."""
    return _run([sys.executable, "-m", "igrpo_mcore", *map(str, arguments)], timeout_s)


@contextlib.contextmanager
def in_own_session(
    command: Sequence[str], output: IO[str], environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen]:
    """A command that runs meanwhile, writing to ``output``; at the end its whole process group is killed."""
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _run(
    command: list[str], timeout_s: float, environment: dict[str, str] | None = None
) -> tuple[int | None, str]:
    with tempfile.TemporaryFile("w+") as output:
        with in_own_session(command, output, environment) as process:
            try:
                status: int | None = process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                status = None
        output.seek(0)
        return status, output.read()
