"""Ranks forked from a process that has imported everything: a start costs a fifth of ``igrpo train``'s.

Stands for `igrpo train` and torchrun's agent where a job is started some dozens of times: the ranks run the
same command in the same environment, and are ended when one of them fails.
"""

import contextlib
import os
import signal
import socket
import sys
import time
import traceback
from pathlib import Path

RANKS = 2


def import_everything(*, simulated: bool) -> None:
    """Once, before the first start; starts no thread and joins no group. ``simulated``: one rank, with the
    engine of ``simulated_engine``, from now on."""
    global RANKS
    from igrpo_mcore.loading import loading
    from igrpo_mcore.quiet import quiet_libraries

    quiet_libraries()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "ERROR"}
    with loading():
        import igrpo_mcore.cli
        import igrpo_mcore.preflight
        import igrpo_mcore.trainer

        if simulated:
            from simulated_engine import SimulatedEngine

            igrpo_mcore.trainer.VLLMEngine = SimulatedEngine
            RANKS = 1
        else:
            import vllm.v1.engine.llm_engine
            import vllm.v1.worker.cpu_worker  # noqa: F401


class ForkedJob:
    """As ``subprocess.Popen`` of `igrpo train`: ``pid``, ``wait``, ``poll``, a process group of its own."""

    def __init__(self, arguments: list[str], kill_at: str, log: Path) -> None:
        self.returncode: int | None = None
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                os.setsid()
                output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
                os.dup2(output, 1)
                os.dup2(output, 2)
                status = _launch(arguments, kill_at)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout_s: float) -> int:
        deadline = time.monotonic() + timeout_s
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the job {self.pid} takes more than {timeout_s} s")
            time.sleep(0.05)
        assert self.returncode is not None
        return self.returncode


def _launch(arguments: list[str], kill_at: str) -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    ranks: dict[int, int] = {}
    for rank in range(RANKS):
        pid = os.fork()
        if pid == 0:
            _become_rank(rank, port, arguments, kill_at)
        ranks[pid] = rank

    def ask_to_stop(number: int, frame: object) -> None:
        for pid in ranks:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGUSR1)

    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, ask_to_stop)
    first = 0
    while ranks:
        pid, ended = os.wait()
        rank, status = ranks.pop(pid), os.waitstatus_to_exitcode(ended)
        if status < 0:
            print(f"igrpo: rank {rank} was ended by signal {-status}", flush=True)
        if status and not first:
            first = 1 if status < 0 else status
            if first != 75:
                for other in ranks:
                    os.kill(other, signal.SIGKILL)
    return first


def _become_rank(rank: int, port: int, arguments: list[str], kill_at: str) -> None:
    from igrpo_mcore import cli
    from igrpo_mcore.run import kill_points

    os.environ |= {
        **{
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(RANKS),
            "LOCAL_WORLD_SIZE": str(RANKS),
        },
        **{"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), cli.CHECKED: "1"},
        "TORCHELASTIC_RUN_ID": "forked",  # SIGTERM keeps its meaning, as under torchrun
    }
    kill_points._point = kill_points.KillPoint.parse(kill_at) if kill_at else None
    sys.argv = ["igrpo", *arguments]
    try:
        cli.main()
    except SystemExit as ended:
        os._exit(ended.code if isinstance(ended.code, int) else 1)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)
