"""Run a test's worker script in several ranks, as a user's job would."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run_ranks(module: str, nproc: int, *args: object, timeout_s: float = 300.0) -> str:
    """``python -m module args`` in ``nproc`` ranks under torch.distributed.run; returns its output.

    Raises:
        AssertionError: with the output's end, when a rank fails or time runs out. The output goes
            through a file: a crashed rank can keep a pipe open.
    """
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "TORCHDYNAMO_DISABLE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *(f"--nproc-per-node={nproc}", "-m", module),
        *map(str, args),
    ]
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        output.seek(0)
        text = output.read()
    assert status == 0, f"{module} in {nproc} ranks ended with {status}:\n{text[-8000:]}"
    return text


def igrpo(*arguments: object, timeout_s: float = 600.0) -> tuple[int | None, str]:
    """Run ``igrpo arguments`` as a user does; its exit status (None: out of time) and its output."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "igrpo_mcore", *map(str, arguments)],
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status: int | None = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        output.seek(0)
        return status, output.read()
