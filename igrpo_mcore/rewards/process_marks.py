"""Find and end every process that a reward worker started, wherever it put itself.

A worker and whatever descends from it carry a mark in their environment. That finds those in a session of
their own and those whose parent is gone, too. Run as a program (``python process_marks.py MARK``) it waits
until its standard input ends, which it does whatever becomes of the pool's owner, then ends all that is left.
Only the standard library: it is started by its path.
"""

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

MARK = "IGRPO_REWARD_WORKER"
"""Environment variable with the mark."""
ROUNDS = 50
"""Times that the processes are looked for while some are found: one that forks may be ahead of the kill."""
PAGE = os.sysconf("SC_PAGE_SIZE")


def marked(mark: str) -> list[int]:
    """Ids of the processes whose mark begins with ``mark``, zombies not among them."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # ended meanwhile, or somebody else's
                environment = (entry / "environ").read_bytes()  # a zombie's is empty
                if any(variable.startswith(wanted) for variable in environment.split(b"\0")):
                    found.append(int(entry.name))
    return found


def resident_bytes(process: int) -> int:
    """Memory that a process holds, 0 where it has ended."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * PAGE
    return 0


def address_space_bytes() -> int:
    """Address space of this process, which is what RLIMIT_AS bounds."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * PAGE


def end_marked(mark: str) -> None:
    """Kill every process whose mark begins with ``mark``."""
    for _ in range(ROUNDS):
        found = marked(mark)
        for process in found:
            with contextlib.suppress(OSError):
                os.kill(process, signal.SIGKILL)
        if not found:
            return
        time.sleep(0.01)


def main() -> None:
    """Wait for the end of standard input, then end what is left."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while os.read(0, 4096):
        pass
    end_marked(sys.argv[1])


if __name__ == "__main__":
    main()
