"""Room for a run's checkpoints on the disk of ``run.dir``: asked on every node and again by preflight."""

import os
import shutil
import time
from pathlib import Path
from typing import NamedTuple

GIB = 2**30


class Room(NamedTuple):
    """Bytes free on a disk, and those that must be."""

    free: int
    needed: int

    @property
    def enough(self) -> bool:
        return self.free >= self.needed


def existing_parent(path: Path) -> Path:
    """``path``, or the nearest folder above it that is there."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())


def room_for(folder: Path, total: float) -> Room:
    """What ``folder`` may grow to is ``total`` bytes; what already lies in it needs no room any more.

    That counts half written and half removed checkpoints too: the next save clears them away first.
    """
    free = shutil.disk_usage(existing_parent(folder)).free
    return Room(free, max(0, int(total) - held_bytes(folder)))


def held_bytes(folder: Path) -> int:
    """Bytes of all files under ``folder``; 0 where it is not there. Files that vanish meanwhile are none."""
    found = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                found += os.lstat(os.path.join(parent, name)).st_size
            except FileNotFoundError:
                continue
    return found


def leave_canary(folder: Path, name: str) -> Path:
    """A file by which other nodes can tell that ``folder`` is theirs too.

    Raises:
        OSError: it cannot be written.
    """
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f".canary-{name}"
    path.write_text(name)
    return path


def unseen(canaries: list[Path], limit_s: float) -> list[Path]:
    """Those that do not show up here within ``limit_s``: file systems over a network may show them late.
    The others are removed."""
    deadline = time.monotonic() + limit_s
    while missing := [path for path in canaries if not path.is_file()]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.2)
    for path in set(canaries) - set(missing):
        path.unlink(missing_ok=True)
    return missing
