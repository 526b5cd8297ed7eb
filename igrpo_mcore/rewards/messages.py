"""What a reward pool and its workers say to each other, and how: length-prefixed pickles on a socket."""

import pickle
import socket
import struct
import time
from dataclasses import dataclass
from typing import Any

from igrpo_mcore.rewards.options import RewardOptions
from igrpo_mcore.types import Completion, Problem

_LENGTH = struct.Struct("!Q")


@dataclass(frozen=True)
class Setup:
    """First message to a worker: the rewards to load, their options, the seconds one call may take."""

    names: tuple[str, ...]
    options: RewardOptions
    time_limit_s: float


@dataclass(frozen=True)
class Loaded:
    """The worker's answer to ``Setup``; ``error`` says why a reward could not be loaded."""

    error: str | None


@dataclass(frozen=True)
class Job:
    """One completion to score; rewards before ``first_reward`` are already known."""

    problem: Problem
    completion: Completion
    first_reward: int = 0


@dataclass(frozen=True)
class Verdict:
    """The worker's answer for one reward of a job, in order; ``error`` where there is no value."""

    value: float
    error: str | None


def send(connection: socket.socket, message: Any) -> None:
    """Write one message; raises ``OSError`` where the other end is gone or the socket's timeout is over."""
    data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    connection.sendall(_LENGTH.pack(len(data)) + data)


def receive(connection: socket.socket, deadline: float | None = None) -> Any:
    """Read one message; raises ``EOFError`` where the other end is gone.

    ``deadline`` (``time.monotonic()`` seconds) bounds the wait: ``TimeoutError`` after it.
    """
    (length,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size, deadline))
    return pickle.loads(_exactly(connection, length, deadline))


def _exactly(connection: socket.socket, size: int, deadline: float | None) -> bytes:
    data = bytearray()
    while len(data) < size:
        if deadline is not None:
            connection.settimeout(max(deadline - time.monotonic(), 1e-3))
        part = connection.recv(size - len(data))
        if not part:
            raise EOFError("the other end of the connection is gone")
        data += part
    return bytes(data)
