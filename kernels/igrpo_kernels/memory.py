"""Peak memory of a call: the CUDA allocator's count, or a CPU process's peak resident set (Linux)."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

import torch


def peak_extra_bytes(call: Callable[[], object], device: str) -> int:
    """Most bytes held at once during ``call``, beyond what was held before it.

    On a CPU it is the resident set of the whole process: run the call once on a small input before, so that
    libraries and thread pools are loaded, and give each measurement a process of its own where it matters.

    Raises:
        OSError: on a CPU without Linux's /proc.
    """
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    ctypes.CDLL(None).malloc_trim(0)  # what was freed before does not hide what is taken now
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to what is resident now
    before = _status_bytes("VmRSS")
    call()
    return max(0, _status_bytes("VmHWM") - before)


def _status_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")
