"""Limits that a worker sets on itself, before the rewards are imported; children inherit them."""

import contextlib
import io
import math
import os
import resource
import sys

from igrpo_mcore.config.reward_options import RewardLimits

MIB, GIB = 1 << 20, 1 << 30
MOST_SAID = MIB
"""Bytes that the rewards of one worker may print."""


def set_limits(limits: RewardLimits) -> None:
    """Address space, open files, the size of a written file, and no core dumps (setrlimit(2))."""
    if limits.memory_gib is not None:
        _lower(resource.RLIMIT_AS, int(limits.memory_gib * GIB))
    _lower(resource.RLIMIT_NOFILE, limits.open_files)
    # Python ignores SIGXFSZ, so a write over the limit raises OSError
    _lower(resource.RLIMIT_FSIZE, limits.file_mib * MIB)
    _lower(resource.RLIMIT_CORE, 0)


def allow_cpu_seconds(seconds: float) -> None:
    """Let the process use that much more CPU time, over all its threads; SIGXCPU ends it after that."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = math.ceil(used.ru_utime + used.ru_stime + seconds)
    if hard == resource.RLIM_INFINITY or soft < hard:
        resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def _lower(kind: int, value: int) -> None:
    """Never above what the machine allows already."""
    _, hard = resource.getrlimit(kind)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


def speak_without_failing() -> None:
    """Make what is printed go to standard error as far as it can. That may be a log which is larger than the
    limit of a file already: print must not fail for it, and must not fill it."""
    output = io.TextIOWrapper(
        io.BufferedWriter(_Output()),  # type: ignore[type-var]
        errors="backslashreplace",
        line_buffering=True,
    )
    sys.stdout = sys.stderr = output


class _Output(io.RawIOBase):
    def __init__(self) -> None:
        self.left = MOST_SAID

    def writable(self) -> bool:
        return True

    def write(self, data: "memoryview") -> int:  # type: ignore[override]
        with contextlib.suppress(OSError):
            self.left -= os.write(2, data[: self.left])
        return len(data)
