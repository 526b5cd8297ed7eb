"""A reward worker: ``python -m igrpo_mcore.rewards.worker FD``, FD an inherited socket.

It loads the rewards it is told of, then answers jobs until the socket closes, which it does
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
from igrpo_mcore.rewards.messages import Job, Loaded, Setup, Verdict, receive, send
from igrpo_mcore.rewards.registry import Reward, load_reward
from igrpo_mcore.types import Completion, Problem

ORPHAN_GRACE_S = 1.0
MAX_MESSAGE = 500


def main(descriptor: int) -> None:
    """Serve jobs on the socket ``descriptor`` until it closes."""
    connection = socket.socket(fileno=descriptor)
    for number in (signal.SIGTERM, signal.SIGUSR1):  # Slurm tells every process; the trainer decides
        signal.signal(number, signal.SIG_IGN)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # only rank 0 of the trainer writes to stdout
    with contextlib.suppress(EOFError, OSError):  # the parent is gone, or has closed the pool
        serve(connection)
    # No interpreter shutdown: threads and atexit hooks of a user's module must not keep the process.
    os._exit(0)


def serve(connection: socket.socket) -> None:
    """Answer ``Setup`` with ``Loaded`` and each ``Job`` with a ``Verdict`` a reward."""
    setup: Setup = receive(connection)
    try:
        rewards = [load_reward(name, setup.options) for name in setup.names]
    except UserError as error:
        send(connection, Loaded(error=str(error)))
        return
    send(connection, Loaded(error=None))
    while True:
        job: Job = receive(connection)
        for reward in rewards[job.first_reward :]:
            # The alarm's default action ends the process even inside a C call that holds the GIL.
            signal.setitimer(signal.ITIMER_REAL, setup.time_limit_s + ORPHAN_GRACE_S)
            start = time.monotonic()
            verdict = judge(reward, job.problem, job.completion)
            signal.setitimer(signal.ITIMER_REAL, 0)
            if time.monotonic() - start > setup.time_limit_s:  # whether or not the parent was looking
                verdict = Verdict(0.0, f"no answer within {setup.time_limit_s:g} s")
            send(connection, verdict)


def judge(reward: Reward, problem: Problem, completion: Completion) -> Verdict:
    """One call; whatever it raises, and a value that is no finite number, becomes an error."""
    try:
        value = reward(problem, completion)
        if isinstance(value, str | bytes):
            raise TypeError(f"a reward must be a number, not {type(value).__name__}")
        number = float(value)
        if not math.isfinite(number):
            raise ValueError(f"a reward must be finite, not {number}")
    except BaseException as error:
        return Verdict(0.0, f"{type(error).__name__}: {error}"[:MAX_MESSAGE])
    return Verdict(number, None)


if __name__ == "__main__":
    main(int(sys.argv[1]))
