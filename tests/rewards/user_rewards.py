"""Rewards as a user would write them, most of them broken; run in worker processes only."""

import os
import signal
import subprocess
import time

from igrpo_mcore.types import Completion, Problem


def by_text(problem: Problem, completion: Completion) -> float:
    """Does what the completion's text says."""
    what, _, argument = completion.text.partition(" ")
    if what == "sleep":
        time.sleep(float(argument))
    elif what == "gate":
        while not os.path.exists(argument):
            time.sleep(0.01)
    elif what == "spin":
        while True:
            pass
    elif what == "compute":  # one C call that never lets another thread run
        return float(len(str(7 ** (7**9))))
    elif what == "raise":
        raise ValueError(argument)
    elif what == "exit":
        raise SystemExit(3)
    elif what == "die":
        os._exit(9)
    elif what == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif what == "nan":
        return float("nan")
    elif what == "infinite":
        return float("-inf")
    elif what == "text":
        return "1.0"  # type: ignore[return-value]
    elif what == "none":
        return None  # type: ignore[return-value]
    elif what == "print":
        print("x" * 200_000)
    elif what == "child":
        child = subprocess.Popen(["sleep", "600"])
        with open(argument, "w") as file:
            file.write(f"{os.getpid()} {child.pid}")
        time.sleep(600)
    return float(what) if what.replace(".", "").isdigit() else 1.0


def length(problem: Problem, completion: Completion) -> int:
    return len(completion.text)


def pid(problem: Problem, completion: Completion) -> float:
    return float(os.getpid())


def heavy_modules(problem: Problem, completion: Completion) -> float:
    """How many of the heavy packages this worker has imported."""
    import sys

    return float(
        sum(name in sys.modules for name in ("torch", "transformers", "omegaconf", "vllm", "megatron"))
    )
