"""Heartbeats of all ranks as small files in the run's folder, which every node sees."""

import contextlib
import json
import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from igrpo_mcore.run.progress import Place, place

WATCH_FOLDER = "watch"
"""In the run's folder: heartbeats, and after a hang what each rank was doing."""


@dataclass(frozen=True)
class Heartbeat:
    """``tick`` grows while the process can run Python at all, ``place`` only when its work moves.

    ``started`` is the process's start (seconds since the epoch), which tells it from another that
    was given the same ``pid`` later.
    """

    rank: int
    host: str
    pid: int
    started: float
    tick: int
    place: Place

    def process(self) -> psutil.Process | None:
        """The process, where it runs on this host."""
        if self.host != socket.gethostname():
            return None
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self.pid)
            if abs(process.create_time() - self.started) < 10:  # of a clock that may be set meanwhile
                return process
        return None


class Heartbeats:
    """One rank's view of the folder. Files are rewritten in place, not renamed: over NFS opening a
    file asks the server, looking up a new one may not."""

    def __init__(self, folder: Path, rank: int, world: int) -> None:
        self.folder, self.rank, self.world = folder, rank, world
        self._own = (rank, socket.gethostname(), os.getpid(), psutil.Process().create_time())
        self._tick = 0
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "progress").touch()

    def stack_file_of(self, rank: int) -> Path:
        return self.folder / f"rank_{rank}.txt"

    def write(self) -> None:
        """This rank's own."""
        self._tick += 1
        heartbeat = Heartbeat(*self._own, self._tick, place)
        self._file(self.rank).write_text(json.dumps(asdict(heartbeat)))

    def read_all(self) -> dict[int, Heartbeat]:
        """Those that can be seen, by rank."""
        found = {}
        for rank in list(range(self.world)) * 2:  # a file may be in the middle of being rewritten
            if rank not in found:
                with contextlib.suppress(OSError, ValueError):
                    fields = json.loads(self._file(rank).read_text())
                    found[rank] = Heartbeat(**fields | {"place": Place(**fields["place"])})
        return found

    def touch_progress(self) -> None:
        """Tell all ranks that some rank moved: one file, so that nobody has to read everybody's."""
        os.utime(self.folder / "progress")

    def progress(self) -> int:
        """Changes whenever a rank moved."""
        with (self.folder / "progress").open() as file:
            return os.fstat(file.fileno()).st_mtime_ns

    def clear(self) -> None:
        """Remove this rank's files, but for an earlier hang's; the folder goes with the last rank's."""
        with contextlib.suppress(OSError):
            self._file(self.rank).unlink()
            if not self.stack_file_of(self.rank).stat().st_size:
                self.stack_file_of(self.rank).unlink()
            (self.folder / "progress").unlink(missing_ok=True)
            self.folder.rmdir()

    def _file(self, rank: int) -> Path:
        return self.folder / f"rank_{rank}.json"
