"""The same tests again, on the Triton kernels in Triton's interpreter, and the parity with Liger's kernel."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
INTERPRETER = {"TRITON_INTERPRET": "1", "IGRPO_KERNELS": "triton", "OMP_NUM_THREADS": "1"}

pytestmark = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") == "1" or torch.cuda.is_available(),
    reason="the tests run on Triton by themselves",
)


def run_in_interpreter(*arguments: str) -> None:
    """The interpreter has to be chosen before anything imports Triton: a process of its own."""
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--no-header", *arguments],
        cwd=HERE.parents[1],
        env=os.environ | INTERPRETER,
        capture_output=True,
        text=True,
        timeout=550,
    )
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    assert " passed" in run.stdout


def test_every_fast_test_on_the_triton_kernels() -> None:
    run_in_interpreter(str(HERE))


@pytest.mark.slow
def test_the_vocabulary_over_ranks_on_the_triton_kernels() -> None:
    run_in_interpreter(str(HERE / "test_tensor_parallel.py"), "-m", "slow")
