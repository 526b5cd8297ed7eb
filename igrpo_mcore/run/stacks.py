"""What each rank is doing, written down when a run hangs: Python stacks and the last collectives."""

import contextlib
import ctypes
import datetime
import faulthandler
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any, TextIO

import psutil

DUMP_SIGNAL = signal.SIGUSR2
DUMP_SECONDS = 2.0
"""Seconds that another process may take to write its main thread's stack, and again for all others."""
THREAD_SECONDS = 0.02
"""Seconds after which a thread that has begun no stack is taken for one that runs no Python."""


class StackFile:
    """A rank's own file. faulthandler's signal handler is C code: it writes there also for a process
    that runs no Python any more. Stacks of an earlier start are kept.

    A thread that gets the signal writes its own stack alone: those of the others change while it reads them,
    and following a frame that is gone ends the process (SIGSEGV).
    """

    def __init__(self, path: Path) -> None:
        self._file: TextIO = path.open("a")
        faulthandler.register(DUMP_SIGNAL, file=self._file, all_threads=False)

    def write(self) -> None:
        """The stacks of all threads of this process; none of them runs Python meanwhile."""
        self._file.write(heading("this process"))
        self._file.flush()
        faulthandler.dump_traceback(self._file, all_threads=True)

    def close(self) -> None:
        faulthandler.unregister(DUMP_SIGNAL)
        self._file.close()


def heading(whose: str) -> str:
    """Begins the stacks of one moment in a file."""
    return f"\n{datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')} {whose}\n"


def ask_for_stack(process: psutil.Process, path: Path) -> bool:
    """Have another process of this node write its stacks to ``path``, its own ``StackFile``; whether it did.

    The main thread comes first. Its signal is there before the process goes on, so one that was stopped
    (SIGSTOP) writes where it stood. One that is stuck in the kernel cannot: what the kernel says of it is
    written instead. Then the other threads, each by itself; those that are not Python's write nothing.
    faulthandler reads the frames as they are: the stack of a thread that was just entering a Python function
    may end with ``File ???``, and once in hundreds of times the process ends there (SIGSEGV). One that waits
    or computes in C has no such frame.
    """
    try:
        status = process.status()
        with path.open("a") as file:
            file.write(heading(f"process {process.pid}, {status}, asked from outside"))
        threads = sorted(thread.id for thread in process.threads())
        size = path.stat().st_size
        _signal_thread(process.pid, process.pid)
        process.send_signal(signal.SIGCONT)
        if not _has_written(path, size, DUMP_SECONDS):
            waits_in = Path(f"/proc/{process.pid}/wchan").read_text()
            with path.open("a") as file:
                file.write(
                    f"it wrote no stack within {DUMP_SECONDS:g} s; the kernel has it {status} in {waits_in}\n"
                )
            return False
        deadline = time.monotonic() + DUMP_SECONDS
        for thread in threads:
            if thread != process.pid and time.monotonic() < deadline:
                size = path.stat().st_size
                _signal_thread(process.pid, thread)
                _has_written(path, size, THREAD_SECONDS)
        return True
    except (psutil.Error, OSError):
        return False  # it ended meanwhile


def _signal_thread(process: int, thread: int) -> None:
    """``DUMP_SIGNAL`` to one thread, by the kernel's id; nothing where it has ended. The main thread's id is
    the process's."""
    ctypes.CDLL(None).tgkill(process, thread, int(DUMP_SIGNAL))


def _has_written(path: Path, size: int, seconds: float) -> bool:
    """Whether a file grows beyond ``size`` bytes within ``seconds``; waits until it grows no more."""
    deadline = time.monotonic() + seconds
    while path.stat().st_size == size:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    while (now := path.stat().st_size) != size:
        size = now
        time.sleep(0.05)
    return True


def write_collectives(path: Path) -> None:
    """The flight recorder's last collectives, as ``torchfrtrace`` reads them; NCCL's where there is CUDA,
    else gloo's. NCCL may be locked up itself, so it is given ``DUMP_SECONDS``."""
    import torch
    from torch._C import _distributed_c10d

    c10d: Any = _distributed_c10d

    def write() -> None:
        with contextlib.suppress(OSError, RuntimeError):
            trace = c10d._dump_nccl_trace() if torch.cuda.is_available() else c10d._dump_fr_trace()
            path.write_bytes(trace)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    thread.join(DUMP_SECONDS)


def flight_recorder_environment(folder: Path) -> dict[str, str]:
    """Variables that make NCCL write its last collectives when one of them runs out of time or fails.

    Names as in torch 2.13 (``FlightRecorder.hpp``, ``ProcessGroupNCCL.hpp``, ``libtorch_cpu.so``); the rank
    is put behind the file's name.
    """
    return {
        "TORCH_FR_BUFFER_SIZE": "2000",
        "TORCH_NCCL_DUMP_ON_TIMEOUT": "1",
        "TORCH_FR_DUMP_TEMP_FILE": os.fspath(folder / COLLECTIVES),
    }


COLLECTIVES = "collectives_"
"""File names of the flight recorder, before the rank."""
