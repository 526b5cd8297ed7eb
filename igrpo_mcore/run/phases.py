"""Seconds and peak GPU memory of the phases of a step."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from igrpo_mcore import device
from igrpo_mcore.run.progress import beat


class Phases:
    """Measures what runs inside ``with phases(name)``; a phase may hold others, or come several times."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.peak_bytes: dict[str, int] = {}
        self.used_bytes: dict[str, int] = {}
        self._open: list[str] = []

    def clear(self) -> None:
        """Begin a new step."""
        self.seconds, self.peak_bytes, self.used_bytes = {}, {}, {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self._note_memory()
        self._open.append(name)
        beat(name)
        start = time.perf_counter()
        try:
            yield
        finally:
            device.synchronize()
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
            self._note_memory()
            self._open.pop()
            beat(self._open[-1] if self._open else name)

    def _note_memory(self) -> None:
        # torch keeps one peak: it is credited to every open phase whenever one begins or ends
        device.synchronize()
        for values, now in (
            (self.peak_bytes, device.take_peak_bytes()),
            (self.used_bytes, device.used_bytes()),
        ):
            if now is not None:
                for name in self._open:
                    values[name] = max(now, values.get(name, 0))

    def metrics(self) -> dict[str, float | None]:
        """``time/<name>_s``; with CUDA ``memory/<name>_gib``, the most allocated through torch on this rank,
        and ``memory/<name>_used_gib``, the most that the driver saw in use where phases begin and end."""
        return {
            **{f"time/{name}_s": seconds for name, seconds in self.seconds.items()},
            **{f"memory/{name}_gib": peak / 2**30 for name, peak in self.peak_bytes.items()},
            **{f"memory/{name}_used_gib": used / 2**30 for name, used in self.used_bytes.items()},
        }
