"""report.html while a run goes on: drawn by a process of its own, so that no step waits for it."""

import os
import subprocess
import sys
import time
from pathlib import Path

EVERY_S = 120.0
"""Least seconds between two pages."""


class LivePage:
    """Starts ``python -m igrpo_mcore.report.page`` at most every ``every_s`` seconds, one at a time."""

    def __init__(self, run_dir: Path, every_s: float = EVERY_S) -> None:
        self._run_dir, self._every_s = run_dir, every_s
        self._last = time.monotonic()
        self._drawing: subprocess.Popen[bytes] | None = None

    def refresh(self) -> None:
        """Call after each step. A page that cannot be drawn is left to ``finish``, which says why."""
        if time.monotonic() - self._last < self._every_s or (self._drawing and self._drawing.poll() is None):
            return
        self._last = time.monotonic()
        command = [sys.executable, "-m", "igrpo_mcore.report.page", str(self._run_dir)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        self._drawing = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def close(self) -> None:
        """End a page that is being drawn; the last one is written by the run itself."""
        if self._drawing:
            self._drawing.kill()
            self._drawing.wait()
