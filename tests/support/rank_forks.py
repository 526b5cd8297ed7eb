"""A process that imports what ranks need once and forks them: ``python -m tests.support.rank_forks``.

Importing torch, Megatron-Core and vLLM takes a rank about 10 s of CPU time; a fork starts with all of it.
A request is a line of JSON on standard input, answers are lines of JSON on standard output: [rank, process
id, null] when a rank starts and [rank, process id, status] when it ends. A rank runs ``main()`` of its
worker module.
"""

import contextlib
import ctypes
import importlib
import json
import os
import signal
import sys

WITH_VLLM = ("vllm.v1.engine.llm_engine", "vllm.v1.worker.cpu_worker")
"""What a process otherwise loads when it makes its first engine."""
BEFORE_VLLM = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}
"""What the engine sets, since vLLM reads it when it is imported."""
PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Be killed when the process that started this one ends, however it ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def import_worker(module: str) -> None:
    """Import it and what it will need; one that cannot be imported fails again in the ranks, which say so."""
    with contextlib.suppress(Exception):
        importlib.import_module(module)
        if "igrpo_mcore.rollout.vllm_engine" in sys.modules:
            os.environ |= BEFORE_VLLM
            for name in WITH_VLLM:
                importlib.import_module(name)
    threads = len(os.listdir("/proc/self/task"))
    assert threads == 1, f"importing {module} started {threads - 1} threads, which a fork would lack"


def become(rank: int, request: dict) -> None:
    """In a forked process: a session, an environment and an output of its own."""
    die_with_parent()
    os.setsid()
    os.environ.clear()
    os.environ |= request["environment"] | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    output = os.open(request["output"], os.O_WRONLY | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    sys.argv = [request["module"], *request["arguments"]]


def serve() -> str:
    """Fork ranks until standard input ends. Returns in a rank only, with its worker's name."""
    die_with_parent()
    answers = os.dup(1)
    os.dup2(2, 1)  # what an import prints is no answer
    for line in sys.stdin:
        request = json.loads(line)
        import_worker(request["module"])
        ranks: dict[int, int] = {}
        for rank in request["ranks"]:
            pid = os.fork()
            if pid == 0:
                os.close(answers)
                become(rank, request)
                return request["module"]
            ranks[pid] = rank
            os.write(answers, json.dumps([rank, pid, None]).encode() + b"\n")
        while ranks:
            pid, status = os.wait()
            ended = [ranks.pop(pid), pid, os.waitstatus_to_exitcode(status)]
            os.write(answers, json.dumps(ended).encode() + b"\n")
    sys.exit(0)


if __name__ == "__main__":
    # the worker runs at the top, so that a rank ends as any Python process does
    importlib.import_module(serve()).main()
