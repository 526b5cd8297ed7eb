"""What a reward pool and its workers say to each other, and how: length-prefixed messages on a socket.

To a worker go pickles. What a worker says is JSON of a bounded size: a reward that went wrong must not be
able to run anything in the trainer, or to fill its memory.
"""

import json
import math
import pickle
import socket
import struct
import time
from dataclasses import dataclass
from typing import Any

from igrpo_mcore.config.reward_options import RewardLimits
from igrpo_mcore.rewards.options import RewardOptions
from igrpo_mcore.types import Completion, Problem

_LENGTH = struct.Struct("!Q")
MAX_ANSWER_BYTES = 1 << 16
MAX_TEXT = 500
"""Characters of a reward's error that are kept."""
MAX_LOAD_TEXT = 4000
"""The same of an error while rewards are loaded."""


@dataclass(frozen=True)
class Setup:
    """First message to a worker: the rewards to load, their options, the seconds one call may take, and the
    limits of its process."""

    names: tuple[str, ...]
    options: RewardOptions
    time_limit_s: float
    limits: RewardLimits


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
    """The worker's answer for one reward of a job, in order; ``error`` where there is no value.

    ``retire``: the worker has served long enough, or grown too large, and ends after this job.
    """

    value: float
    error: str | None
    retire: bool = False


def send(connection: socket.socket, message: Setup | Job) -> None:
    """Write one message; raises ``OSError`` where the other end is gone or the socket's timeout is over."""
    _write(connection, pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL))


def receive(connection: socket.socket) -> Any:
    """Read one message of the parent's; raises ``EOFError`` where it is gone."""
    (length,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size, None))
    return pickle.loads(_exactly(connection, length, None))


def answer(connection: socket.socket, message: Loaded | Verdict) -> None:
    """Write a worker's answer; raises ``OSError`` where the parent is gone."""
    fields: dict[str, Any] = {"error": message.error}
    if isinstance(message, Verdict):
        fields |= {"value": message.value, "retire": message.retire}
    if message.error is not None:
        fields["error"] = message.error[: MAX_TEXT if isinstance(message, Verdict) else MAX_LOAD_TEXT]
    _write(connection, json.dumps(fields).encode())


def receive_answer(connection: socket.socket, deadline: float) -> Loaded | Verdict:
    """Read a worker's answer, until ``deadline`` (``time.monotonic()`` seconds).

    Raises:
        EOFError: the other end is gone.
        TimeoutError: not there in time.
        ValueError: something that no worker says.
    """
    (length,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size, deadline))
    if length > MAX_ANSWER_BYTES:
        raise ValueError(f"an answer of {length} bytes")
    try:
        fields = json.loads(_exactly(connection, length, deadline))
        error = fields["error"]
        if not isinstance(error, str | None):
            raise TypeError("an error that is no text")
        if "value" not in fields:
            return Loaded(error)
        value = float(fields["value"])
    except (TypeError, KeyError, OverflowError, RecursionError) as bad:
        raise ValueError("an answer of another form") from bad
    if not math.isfinite(value):
        raise ValueError("a value that is no finite number")
    return Verdict(value, error, bool(fields.get("retire")))


def _write(connection: socket.socket, data: bytes) -> None:
    connection.sendall(_LENGTH.pack(len(data)) + data)


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
