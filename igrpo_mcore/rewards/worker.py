"""A reward worker: ``python -m igrpo_mcore.rewards.worker FD``, FD an inherited socket.

It sets its limits, loads the rewards it is told of, then answers jobs until the socket closes, which it does
whatever becomes of the parent. The parent bounds each call; the alarm here is for the call during
which the parent died.
"""

import contextlib
import math
import os
import signal
import socket
import sys
import time

from igrpo_mcore.errors import UserError
from igrpo_mcore.rewards.containment import GIB, allow_cpu_seconds, set_limits, speak_without_failing
from igrpo_mcore.rewards.messages import Job, Loaded, Setup, Verdict, answer, receive
from igrpo_mcore.rewards.process_marks import address_space_bytes
from igrpo_mcore.rewards.registry import Reward, load_reward
from igrpo_mcore.types import Completion, Problem

GRACE_S = 1.0
"""Seconds that a call may go on here after its time limit, on the clock and of CPU time."""
LARGEST = 1e9
"""Largest size of a reward: sums and squares of these stay finite."""


def main(descriptor: int) -> None:
    """Serve jobs on the socket ``descriptor`` until it closes."""
    connection = socket.socket(fileno=descriptor)
    for number in (signal.SIGTERM, signal.SIGUSR1):  # Slurm tells every process; the trainer decides
        signal.signal(number, signal.SIG_IGN)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # only rank 0 of the trainer writes to stdout
    speak_without_failing()
    with contextlib.suppress(EOFError, OSError):  # the parent is gone, or has closed the pool
        serve(connection)
    # No interpreter shutdown: threads and atexit hooks of a user's module must not keep the process.
    os._exit(0)


def serve(connection: socket.socket) -> None:
    """Answer ``Setup`` with ``Loaded`` and each ``Job`` with a ``Verdict`` a reward."""
    setup: Setup = receive(connection)
    set_limits(setup.limits)
    try:
        rewards = [load_reward(name, setup.options) for name in setup.names]
    except UserError as error:
        answer(connection, Loaded(error=str(error)))
        return
    answer(connection, Loaded(error=None))
    memory = setup.limits.memory_gib
    large = math.inf if memory is None else (address_space_bytes() + memory * GIB) / 2
    served = 0
    while True:
        job: Job = receive(connection)
        served += 1
        for reward in rewards[job.first_reward :]:
            allow_cpu_seconds(setup.time_limit_s + GRACE_S)
            # The alarm's default action ends the process even inside a C call that holds the GIL.
            signal.setitimer(signal.ITIMER_REAL, setup.time_limit_s + GRACE_S)
            start = time.monotonic()
            value, failure = call(reward, job.problem, job.completion)
            signal.setitimer(signal.ITIMER_REAL, 0)
            if time.monotonic() - start > setup.time_limit_s:  # whether or not the parent was looking
                value, failure = 0.0, f"no answer within {setup.time_limit_s:g} s"
            retire = served >= setup.limits.calls or address_space_bytes() > large
            answer(connection, Verdict(value, failure, retire))


def call(reward: Reward, problem: Problem, completion: Completion) -> tuple[float, str | None]:
    """The value of one call, or 0 and what it raised; a value that is no finite number is an error too."""
    try:
        value = reward(problem, completion)
        if isinstance(value, str | bytes):
            raise TypeError(f"a reward must be a number, not {type(value).__name__}")
        number = float(value)
        if not math.isfinite(number):
            raise ValueError(f"a reward must be finite, not {number}")
        if abs(number) > LARGEST:
            raise ValueError(f"a reward must lie within ±{LARGEST:g}, not {number:g}")
    except BaseException as error:
        return 0.0, _said(error)
    return number, None


def _said(error: BaseException) -> str:
    """Type and message; an error's own ``__str__`` may fail as well."""
    try:
        return f"{type(error).__name__}: {error}"
    except BaseException:
        return type(error).__name__


if __name__ == "__main__":
    main(int(sys.argv[1]))
