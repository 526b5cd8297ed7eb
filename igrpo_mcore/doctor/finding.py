"""What a check of this machine found."""

from enum import StrEnum
from typing import NamedTuple


class State(StrEnum):
    ok = "ok"
    note = "note"
    """A run can start; it is told because it may surprise."""
    fault = "fault"
    """A run cannot start, or would go wrong."""


class Finding(NamedTuple):
    """``mend`` is what to do about a note or a fault, in one sentence."""

    what: str
    found: str
    state: State = State.ok
    mend: str = ""


def fault(what: str, found: str, mend: str) -> Finding:
    return Finding(what, found, State.fault, mend)


def note(what: str, found: str, mend: str = "") -> Finding:
    return Finding(what, found, State.note, mend)
