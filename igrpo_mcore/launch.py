"""Starting ranks: on its own `igrpo train` starts them; under torchrun or srun it joins."""

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Sequence

from igrpo_mcore.errors import UserError
from igrpo_mcore.stop_signal import REQUEUE_STATUS


def adopt_slurm_environment() -> None:
    """Under srun, set torch.distributed's rendezvous variables from the job step's own.

    MASTER_ADDR is the job's first node and MASTER_PORT derives from the job id, unless set.

    Raises:
        UserError: MASTER_ADDR is not set and there is no scontrol to ask, as in most containers.
    """
    if "RANK" in os.environ or int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) < 2:
        return
    environment = os.environ
    environment["RANK"] = environment["SLURM_PROCID"]
    environment["WORLD_SIZE"] = environment["SLURM_STEP_NUM_TASKS"]
    environment["LOCAL_RANK"] = environment["SLURM_LOCALID"]
    tasks = environment.get("SLURM_STEP_TASKS_PER_NODE", environment["WORLD_SIZE"])  # "2(x2)"
    environment["LOCAL_WORLD_SIZE"] = tasks.split("(")[0].split(",")[0]
    if "MASTER_ADDR" not in environment:
        nodes = environment.get("SLURM_STEP_NODELIST", environment.get("SLURM_JOB_NODELIST", ""))
        command = ["scontrol", "show", "hostnames", nodes]
        try:
            listing = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
        except (OSError, subprocess.SubprocessError) as error:
            raise UserError(
                f"the first node of the job is not known here ({error}); set MASTER_ADDR to its name in the "
                "batch script, as slurm/common.sh does"
            ) from error
        environment["MASTER_ADDR"] = listing.split()[0]
    # below the ports that the system hands out to others
    environment.setdefault("MASTER_PORT", str(20000 + int(environment["SLURM_JOB_ID"]) % 10000))


def in_job() -> bool:
    """True where a launcher already gave this process a rank."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def start_local_ranks(ranks: int, arguments: Sequence[str]) -> int:
    """Run ``python -m igrpo_mcore arguments`` in ``ranks`` processes and wait; the exit status.

    When one rank fails the others are ended at once. A rank prints its own error; one ended by a
    signal cannot, so that is said here. SIGTERM and SIGUSR1 ask the ranks to stop with a checkpoint.
    """
    import psutil
    import torch
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    if torch.cuda.is_available() and torch.cuda.device_count() < ranks:
        raise UserError(
            f"the layout needs {ranks} ranks and this machine has {torch.cuda.device_count()} GPUs; "
            "start it with torchrun or sbatch on more machines, or lower parallel.{tp,pp,dp}"
        )
    cores = len(os.sched_getaffinity(0))
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // ranks)))
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # a NUMA warning a rank
    asked_to_stop = False

    def ask_to_stop(number: int, frame: object) -> None:
        nonlocal asked_to_stop
        asked_to_stop = True
        for rank in psutil.Process().children():
            rank.send_signal(signal.SIGUSR1)

    # by SIGTERM the launcher ends the other ranks when one has failed, so a request is told by another
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, ask_to_stop)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=ranks,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.2,
        signals_to_handle="SIGINT,SIGHUP,SIGQUIT",
    )
    try:
        elastic_launch(config, sys.executable)("-m", "igrpo_mcore", *arguments)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0 and asked_to_stop:
            print("igrpo: stopped on request before the first step", file=sys.stderr)
            return REQUEUE_STATUS
        if failure.exitcode < 0:
            print(
                f"igrpo: rank {rank} was ended by signal {-failure.exitcode} "
                "(9 is often the kernel's out-of-memory killer: lower the memory the recipe asks for)",
                file=sys.stderr,
            )
            return 1
        return failure.exitcode
    return 0
