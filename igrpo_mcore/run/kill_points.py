"""A hook for tests: a job that ends itself at a named place.

``IGRPO_KILL_AT=name:step[:rank[:signal[:nth]]]`` sends ``signal`` (KILL) to the process of ``rank`` (0) the
``nth`` time (1) that it reaches the place ``name`` in ``step``; with ``launcher`` as the rank, rank 0 sends
it to the process that started it; RAISE as the signal raises an error there instead. Places are the phases of
docs/metrics.md (their begin and each sign of progress in them: a decoding step, a reward's answer, a
micro-batch), the journal's records (``sampled_drafts``, ``scored_refinements``, …) and those of a checkpoint
(``checkpoint_begun``, ``checkpoint_copied``, ``checkpoint_written``, ``checkpoint_named``,
``checkpoint_published``).
scripts/kill_points.py goes through them.
"""

import os
import signal
from typing import NamedTuple

VARIABLE = "IGRPO_KILL_AT"
LAUNCHER, RAISE = "launcher", "RAISE"


class KillPoint(NamedTuple):
    """``rank`` is a number or ``launcher``."""

    name: str
    step: int
    rank: str = "0"
    signal: str = "KILL"
    nth: int = 1

    @classmethod
    def parse(cls, text: str) -> "KillPoint":
        name, step, *rest = text.split(":")
        rank, number, nth = [*rest, *("0", "KILL", "1")[len(rest) :]]
        return cls(name, int(step), rank, number, int(nth))

    def __str__(self) -> str:
        return ":".join(map(str, self))


_point = KillPoint.parse(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None
_reached = 0


def kill_point(name: str, step: int) -> None:
    """This rank is at ``name`` in ``step``; nothing happens unless a test asked for it.

    Raises:
        RuntimeError: where it asked for an error.
    """
    global _reached
    if _point is None or (name, step) != (_point.name, _point.step):
        return
    if os.environ.get("RANK", "0") != ("0" if _point.rank == LAUNCHER else _point.rank):
        return
    _reached += 1
    if _reached == _point.nth:
        if _point.signal == RAISE:
            raise RuntimeError(f"{VARIABLE} asked for an error in {name} of step {step}")
        process = os.getppid() if _point.rank == LAUNCHER else os.getpid()
        os.kill(process, signal.Signals[f"SIG{_point.signal}"])
