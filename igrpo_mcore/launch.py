"""Starting ranks: on its own `igrpo train` starts them; under torchrun or srun it joins."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Sequence

from igrpo_mcore.errors import UserError
from igrpo_mcore.rank_environment import described, set_rank_environment
from igrpo_mcore.run.stop_signal import REQUEUE_STATUS

PR_SET_PDEATHSIG = 1
"""Of Linux' prctl(2): the signal that a process gets when the thread that started it ends."""
CHECKED = "IGRPO_PREFLIGHT_DONE"
"""Set for the ranks that a command starts itself: it has checked everything already."""
LAUNCHER = "IGRPO_LAUNCHER"
"""Set for the same ranks: the process that started them."""


def enter_rank() -> None:
    """First of all in every process: under srun become a rank, and have the environment of one.

    Slurm's warning signal may come before ``StopSignal`` listens, and would end this process; it is held
    back until then.

    Raises:
        UserError: ``adopt_slurm_environment`` does.
    """
    end_with_launcher()
    under_srun = adopt_slurm_environment()
    if under_srun:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    if in_job():
        ranks, local = (int(os.environ.get(name, "1")) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
        set_rank_environment(local, os.environ.get("MASTER_ADDR") if ranks > local else None)
    if under_srun:
        print(f"igrpo [rank {os.environ['RANK']} on {socket.gethostname()}]: {described()}", flush=True)


def end_with_launcher() -> None:
    """A rank that ``igrpo`` started is killed when that process is gone, SIGKILLed for example: ranks are in
    sessions of their own, and would train on beside the run's next start. Elsewhere this does nothing.
    """
    launcher = os.environ.pop(LAUNCHER, None)  # what a rank starts is no rank
    if launcher is None or not in_job():
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(launcher):  # it was gone before that
        os.kill(os.getpid(), signal.SIGKILL)


def adopt_slurm_environment() -> bool:
    """Under srun, set torch.distributed's rendezvous variables from the job step's own; whether it was so.

    MASTER_ADDR is the job's first node and MASTER_PORT derives from the job id, unless set.

    Raises:
        UserError: MASTER_ADDR is not set and there is no scontrol to ask, as in most containers.
    """
    if "RANK" in os.environ or int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) < 2:
        return False
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
    return True


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
    set_rank_environment(ranks)
    os.environ[LAUNCHER] = str(os.getpid())
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
