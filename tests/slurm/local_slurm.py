"""A real Slurm of two nodes on this machine: munged, slurmctld and two slurmd, all with files of their own.

Nothing of an installed Slurm is read or changed (own configuration, key, socket and ports); only the
names node1 and node2 are added to /etc/hosts while it runs, because the ranks meet by them.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

NODES = ("node1", "node2")
CPUS, GPUS = 32, 8
"""Claimed, not there: so that a script's own header can be submitted as it is."""
HOSTS = Path("/etc/hosts")
HOSTS_LINE = f"127.0.0.1 {' '.join(NODES)} # igrpo tests\n"

CONF = """\
ClusterName=igrpo
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/ctld
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
FirstJobId={first_job}
SlurmdParameters=config_overrides
KillWait={kill_wait}
OverTimeLimit=0
GresTypes=gpu
NodeName=DEFAULT CPUs={cpus} RealMemory=8000 Gres=gpu:{gpus}
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]}
NodeName=node2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]}
PartitionName=debug Nodes=node1,node2 Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Why a Slurm cannot be started here, or None."""
    for program in ("munged", "mungekey", "slurmctld", "slurmd", "sbatch"):
        if _program(program) is None:
            return f"there is no {program}: apt-get install slurm-wlm munge"
    return None if os.geteuid() == 0 else "starting Slurm's daemons needs root"


def _program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")


class LocalSlurm:
    """Started by ``with``; ``environment`` is that of a user of it."""

    def __init__(self, folder: Path, kill_wait: int = 30) -> None:
        """``kill_wait``: seconds between SIGTERM and SIGKILL when a job is ended."""
        self.folder = folder
        self.kill_wait = kill_wait
        conf = {"SLURM_CONF": str(folder / "slurm.conf"), "OMP_NUM_THREADS": "1"}
        path = {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SBATCH"))}
        self.environment = inherited | path | conf

    def __enter__(self) -> "LocalSlurm":
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self) -> None:
        folder = self.folder
        (folder / "ctld").mkdir(parents=True)
        values = dict(host=socket.gethostname().split(".")[0], folder=folder, ports=_free_ports(3))
        (folder / "slurm.conf").write_text(
            CONF.format(
                **values,
                cpus=CPUS,
                gpus=GPUS,
                kill_wait=self.kill_wait,
                first_job=10**7 + os.getpid(),  # jobs' logs are named by it
            )
        )
        for index in range(GPUS):  # slurmd counts files, it does not open them
            (folder / f"gpu{index}").touch()
        (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-{GPUS - 1}]\n")
        if HOSTS_LINE not in HOSTS.read_text():
            with HOSTS.open("a") as hosts:
                hosts.write(HOSTS_LINE)
        self.run("mungekey", "--create", f"--keyfile={folder}/munge.key")
        files = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
        self.run("munged", "--force", f"--socket={folder}/munge.socket", *files)
        self.run("slurmctld", "-f", f"{folder}/slurm.conf")
        for node in NODES:
            self.run("slurmd", "-f", f"{folder}/slurm.conf", "-N", node)
        self.wait_for(lambda: self.run("sinfo", "-h", "-o", "%T").split() == ["idle"], 60, "idle nodes")

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(Exception):
            self.run("scancel", "--signal=KILL", "--full", "--me")
            self.run("scancel", "--me")
            self.wait_for(lambda: not self.run("squeue", "-h"), 60, "jobs to end")
        for name in ("slurmd-node1", "slurmd-node2", "slurmctld", "munge"):
            with contextlib.suppress(OSError, ValueError):
                os.kill(int((self.folder / f"{name}.pid").read_text()), signal.SIGTERM)
        with contextlib.suppress(OSError):
            HOSTS.write_text(HOSTS.read_text().replace(HOSTS_LINE, ""))

    def run(self, *command: str, cwd: Path | None = None) -> str:
        """Run one of Slurm's commands; its standard output. A failure shows all of its output."""
        with (self.folder / "command.log").open("w+") as errors:  # not a pipe: daemons keep it open
            done = subprocess.run(
                [_program(command[0]) or command[0], *command[1:]],
                env=self.environment,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if not command[0].endswith("d") else errors,
                stderr=errors,
                text=True,
                timeout=60,
            )
            errors.seek(0)
            assert done.returncode == 0, f"{' '.join(command)}: {done.stdout or ''}{errors.read()}"
        return done.stdout or ""

    def sbatch(self, *arguments: str, cwd: Path) -> str:
        """Submit; the job's id."""
        return self.run("sbatch", "--parsable", *arguments, cwd=cwd).strip()

    def state(self, job: str) -> tuple[str, str, int]:
        """State, exit code (``status:signal``) and restarts of a job."""
        fields = dict(
            word.split("=", 1)
            for word in self.run("scontrol", "show", "job", "-o", job).split()
            if "=" in word
        )
        return fields["JobState"], fields["ExitCode"], int(fields["Restarts"])

    def wait_for(self, condition, limit_s: float, what: str) -> None:
        deadline = time.monotonic() + limit_s
        while not condition():
            assert time.monotonic() < deadline, f"waited {limit_s:g} s in vain for {what}"
            time.sleep(0.3)

    def wait(self, job: str, limit_s: float) -> str:
        """Wait for the job's end; its last state."""
        ended = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")
        self.wait_for(lambda: self.state(job)[0] in ended, limit_s, f"job {job} to end")
        return self.state(job)[0]


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [s.getsockname()[1] for s in sockets]
