"""Rewards that take what they are not given; run in worker processes only."""

import os
import pickle
import struct
import subprocess
import sys
import time
from pathlib import Path

from igrpo_mcore.types import Completion, Problem

kept: list[bytearray] = []
files = []


class Touch:
    """Makes a file where it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


def hostile(problem: Problem, completion: Completion) -> float:
    """Does what the completion's text says."""
    what, _, argument = completion.text.partition(" ")
    if what == "allocate":
        bytearray(int(argument) << 20)
    elif what == "leak":
        kept.append(bytearray(b"x" * (int(argument) << 20)))
    elif what == "power":
        pow(10, 10**10)
    elif what == "string":
        "x" * (10**11)
    elif what == "recurse":
        return hostile(problem, completion)
    elif what == "spawn":
        for _ in range(int(argument)):
            subprocess.Popen(["sleep", "600"])
        time.sleep(600)
    elif what == "hold":
        command = f"x = b'x' * ({argument} << 20); import time; time.sleep(600)"
        for _ in range(3):
            subprocess.Popen([sys.executable, "-c", command])
        time.sleep(600)
    elif what == "daemon":
        daemon(argument)
    elif what == "write":
        with open(argument, "wb") as file:
            for _ in range(64):
                file.write(b"x" * (1 << 20))
    elif what == "child-write":
        command = ["dd", "if=/dev/zero", f"of={argument}", "bs=1M", "count=64"]
        return float(subprocess.run(command, stderr=subprocess.DEVNULL).returncode != 0)
    elif what == "open":
        files.extend(os.open(os.devnull, os.O_RDONLY) for _ in range(2000))
    elif what == "garbage":
        os.write(int(sys.argv[1]), b"\xff" * 4096)
        time.sleep(600)
    elif what == "pickle":
        data = pickle.dumps(Touch(argument))
        os.write(int(sys.argv[1]), struct.pack("!Q", len(data)) + data)
        time.sleep(600)
    elif what == "infinity":
        data = b'{"error": null, "value": 1e999}'
        os.write(int(sys.argv[1]), struct.pack("!Q", len(data)) + data)
        time.sleep(600)
    elif what == "nested":
        data = b"[" * 60000
        os.write(int(sys.argv[1]), struct.pack("!Q", len(data)) + data)
        time.sleep(600)
    elif what == "huge":
        return 1e300
    elif what == "integer":
        return 10**400
    elif what == "bad-error":
        raise BadError
    elif what == "bad-float":
        return BadFloat()  # type: ignore[return-value]
    elif what == "interrupt":
        raise KeyboardInterrupt
    elif what == "generator-exit":
        raise GeneratorExit
    elif what == "close":
        os.close(int(sys.argv[1]))
    elif what == "stop":
        os.kill(os.getpid(), 19)
    elif what == "ignore":
        import signal

        for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_IGN)
        while True:
            pass
    return float(argument) if what == "value" else 1.0


class BadError(Exception):
    def __str__(self) -> str:
        raise RuntimeError


class BadFloat:
    def __float__(self) -> float:
        os._exit(0)


def daemon(path: str) -> None:
    """Leaves a process of its own session behind, whose parent is gone."""
    script = "import os, sys, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
    script += "        open(sys.argv[1], 'w').write(str(os.getpid()))\n        time.sleep(600)\n"
    subprocess.run([sys.executable, "-c", script, path], check=True)
    while not (Path(path).exists() and Path(path).read_text()):
        time.sleep(0.01)


def visible(problem: Problem, completion: Completion) -> float:
    """How many of the variables named in the text this process sees."""
    return float(sum(name in os.environ for name in completion.text.split()))


def peak_mib(problem: Problem, completion: Completion) -> float:
    """Largest resident set of this worker so far, MiB."""
    # not getrusage: its figure begins with the size of whatever process this one was forked from
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
    return int(line.split()[1]) / 1024


def pid(problem: Problem, completion: Completion) -> float:
    return float(os.getpid())


def accuracy_raising(problem: Problem, completion: Completion) -> float:
    """1 where the accuracy raised, which it never should."""
    from igrpo_mcore.rewards.accuracy import accuracy_reward  # slow to import

    try:
        accuracy_reward(problem, completion)
    except BaseException:
        return 1.0
    return 0.0
