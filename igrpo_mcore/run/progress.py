"""Where this rank stands: the work says it, the watchdog reads it.

Progress is a phase that begins or ends, a decoding step of the engine, a reward's answer, a
micro-batch. Waiting for other ranks is none: a rank that waits for a slow engine stands still
while that engine moves.
"""

from dataclasses import dataclass

from igrpo_mcore.run.kill_points import kill_point

START_UP = "start-up"


@dataclass
class Place:
    """``count`` only grows; ``phase`` is the innermost phase that is open."""

    count: int = 0
    step: int = 0
    phase: str = START_UP


place = Place()
"""This process's own."""


def beat(phase: str | None = None, *, step: int | None = None) -> None:
    """Something was done; with ``phase`` and ``step`` the rank stands there from now on."""
    place.count += 1
    if phase is not None:
        place.phase = phase
    if step is not None:
        place.step = step
    kill_point(place.phase, place.step)
