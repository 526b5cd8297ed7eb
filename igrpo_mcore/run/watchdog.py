"""Ends a job in which no rank moves any more, and says which rank it waits for.

Every rank has a thread that writes the rank's heartbeat and looks whether any rank moved
(``igrpo_mcore.run.progress``). A rank may stand still for long, waiting for a slow engine; a hang is
that all of them do, which a single rank that is stopped, dead-locked or gone brings about within one
phase. torch.distributed's own time limit stays behind it, for what ends the thread too.
"""

import contextlib
import os
import threading
import time
from pathlib import Path
from types import TracebackType

from igrpo_mcore.errors import cannot_write
from igrpo_mcore.run.heartbeat import WATCH_FOLDER, Heartbeat, Heartbeats
from igrpo_mcore.run.progress import START_UP, place
from igrpo_mcore.run.stacks import (
    COLLECTIVES,
    StackFile,
    ask_for_stack,
    flight_recorder_environment,
    write_collectives,
)

HANG_STATUS = 70
"""Exit status of a rank that the watchdog ended (EX_SOFTWARE)."""
START_UP_SECONDS = 900.0
"""Least limit before the first step: imports, weights from a cold disk and CUDA graphs do not say that
they move."""
LONGEST_POLL = 20.0
MOVED_BYTES = 2**20
"""A rank that read or wrote so much since the last look moved: a checkpoint is one long phase."""


class Watchdog:
    """A context manager around a rank's whole run. ``limit`` in seconds; None watches nothing.

    Entering it raises ``UserError`` where the run's folder cannot be written, and sets torch's flight
    recorder up, so it comes before the process groups.
    """

    def __init__(self, run_folder: Path, rank: int, world: int, limit: float | None) -> None:
        self._folder, self._rank, self._world, self._limit = run_folder / WATCH_FOLDER, rank, world, limit
        self._stop = threading.Event()
        self._told = False

    def __enter__(self) -> "Watchdog":
        if self._limit is not None:
            # what follows a finding (two looks more, the stacks of other nodes) ends within the limit
            self._poll = min(self._limit / 30, LONGEST_POLL)
            for name, value in flight_recorder_environment(self._folder).items():
                os.environ.setdefault(name, value)
            try:
                self._heartbeats = Heartbeats(self._folder, self._rank, self._world)
                self._stacks = StackFile(self._heartbeats.stack_file_of(self._rank))
            except OSError as error:
                raise cannot_write(self._folder, error) from error
            self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._limit is not None:
            self._stop.set()
            self._thread.join()
            self._stacks.close()
            self._heartbeats.clear()

    def _watch(self) -> None:
        self._seen, self._seen_at, self._looked_at = 0, time.monotonic(), time.monotonic()
        self._count, self._bytes = -1, 0
        while not self._stop.wait(self._poll):
            if not self._quiet():
                continue
            before = self._heartbeats.read_all()
            if all(not self._stop.wait(self._poll) and self._quiet() for _ in range(2)):
                self._end(before, self._heartbeats.read_all())

    def _quiet(self) -> bool:
        """One look: whether no rank moved for so long that the limit ends with the next looks."""
        now = time.monotonic()
        slept = now - self._looked_at > 5 * self._poll + 1  # then it is this rank that was stopped
        self._looked_at = now
        try:
            self._heartbeats.write()
            if self._moved():
                self._heartbeats.touch_progress()
            progress = self._heartbeats.progress()
        except OSError:
            slept = True  # a disk that does not answer says nothing of the ranks
        if slept or progress != self._seen:
            self._seen_at = now
            self._seen = 0 if slept else progress
        assert self._limit is not None
        limit = max(self._limit, START_UP_SECONDS) if place.phase == START_UP else self._limit
        return now - self._seen_at > limit - 6 * self._poll

    def _moved(self) -> bool:
        count, moved = place.count, _bytes_moved()
        found = count != self._count or moved - self._bytes > MOVED_BYTES
        self._count, self._bytes = count, moved
        return found

    def _end(self, before: dict[int, Heartbeat], after: dict[int, Heartbeat]) -> None:
        if self._rank not in after:
            return
        if len(after) < self._world and place.phase != START_UP:
            if not self._told:
                _say(
                    f"the watchdog sees the heartbeats of {len(after)} of {self._world} ranks in "
                    f"{self._folder}, so it ends nothing: put run.dir on a file system that all nodes share"
                )
            self._told = True
            return
        answering = [r for r in after if r == self._rank or r not in before or after[r].tick > before[r].tick]
        if self._rank == min(answering):
            _say(finding(after, answering, self._world, self._limit or 0.0, self._folder))
        self._stacks.write()
        write_collectives(self._folder / f"{COLLECTIVES}{self._rank}")
        if self._rank == min(rank for rank in answering if after[rank].host == after[self._rank].host):
            for rank in sorted(after.keys() - set(answering)):
                process = after[rank].process()
                if process is not None:
                    ask_for_stack(process, self._heartbeats.stack_file_of(rank))
        time.sleep(2 * self._poll)  # the other ranks' looks come up to one poll later
        os._exit(HANG_STATUS)


def finding(
    heartbeats: dict[int, Heartbeat], answering: list[int], world: int, limit: float, folder: Path
) -> str:
    """What the watchdog says of a hang: the ranks that do not answer first, then where the others wait."""
    silent = [rank for rank in range(world) if rank not in answering]
    lines = [f"no rank has moved for {limit / 60:g} minutes (run.hang_minutes), so the job ends."]
    for rank in silent:
        if rank not in heartbeats:
            lines.append(f"rank {rank} does not answer: it never started")
            continue
        found = heartbeats[rank]
        lines.append(
            f"rank {rank} does not answer: process {found.pid} on {found.host}, last seen in {_where(found)}"
        )
    places: dict[str, list[int]] = {}
    for rank in answering:
        places.setdefault(_where(heartbeats[rank]), []).append(rank)
    lines += [
        f"{_ranks(ranks)} {'waits' if len(ranks) == 1 else 'wait'} in {where}"
        for where, ranks in sorted(places.items(), key=lambda item: len(item[1]))
    ]
    lines.append(f"stacks of all ranks: {folder}/rank_*.txt, their last collectives: {COLLECTIVES}*")
    return "\n  ".join(lines)


def _where(heartbeat: Heartbeat) -> str:
    found = heartbeat.place
    return found.phase if found.phase == START_UP else f"{found.phase} of step {found.step}"


def _ranks(ranks: list[int]) -> str:
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    runs: list[list[int]] = []
    for rank in ranks:
        if runs and rank == runs[-1][1] + 1:
            runs[-1][1] = rank
        else:
            runs.append([rank, rank])
    return "ranks " + ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in runs)


def _say(text: str) -> None:
    # not through sys.stderr, whose lock a rank that hangs in a write may hold
    with contextlib.suppress(OSError):
        os.write(2, f"igrpo: {text}\n".encode())


def _bytes_moved() -> int:
    """Bytes that this process read and wrote by system calls; 0 where the kernel does not say."""
    try:
        fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    except OSError:
        return 0
    return int(fields["rchar"]) + int(fields["wchar"])
