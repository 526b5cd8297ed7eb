"""Health of the nodes of a job, before its ranks start: one JSON line a node, then a comparison.

    srun --ntasks-per-node=1 python -m igrpo_mcore.health node --gpus 8 --nodes 2 RECIPE > FILE
    python -m igrpo_mcore.health compare FILE node1 node2

Imports neither torch nor CUDA, and everything that could hang has a time limit.
"""

import dataclasses
import json
import os
import socket
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from igrpo_mcore.config.load import load_config
from igrpo_mcore.disk import GIB, existing_parent, leave_canary, room_for, unseen
from igrpo_mcore.errors import UserError
from igrpo_mcore.gpu_state import fatal_xids, faults, lost_links, nvlinks, read_gpus
from igrpo_mcore.run.folder import checkpoints_dir, versions

CANARY_LIMIT_S = 30.0
INFINIBAND = Path("/sys/class/infiniband")


@dataclass
class NodeHealth:
    """What one node says of itself. ``problems`` are sentences a person can act on."""

    node: str
    gpus: int
    ports: int
    """Active InfiniBand or RoCE ports."""
    free_gib: dict[str, float]
    versions: dict[str, str]
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What does not keep a job from starting."""
    canary: str | None = None
    """A file that it left in run.dir."""


def active_ports(root: Path = INFINIBAND) -> int:
    """Active InfiniBand or RoCE ports, by the kernel's own word."""
    states = (path.read_text() for path in root.glob("*/ports/*/state"))
    return sum("ACTIVE" in state for state in states)


def lack_of_space(folder: Path, least_gib: float, inside: Path | None = None) -> tuple[float, str | None]:
    """GiB free where ``folder`` lies or would lie, and what is wrong there.

    What ``inside``, the run's own checkpoints, holds already counts towards ``least_gib``.
    """
    existing = existing_parent(folder)
    if not os.access(existing, os.W_OK | os.X_OK):
        return 0.0, f"{existing} cannot be written"
    free, needed = room_for(inside or folder / "none", least_gib * GIB)
    if free >= needed:
        return free / GIB, None
    return free / GIB, f"{free / GIB:.1f} GiB free for {folder}, {needed / GIB:.1f} GiB needed"


def meet(address: str, port: int, nodes: int, is_master: bool, limit_s: float) -> str | None:
    """Every node connects once to the master's rendezvous port; why this one could not.

    The master listens until the others came or time is up: it cannot tell who is missing, they can.
    """
    deadline = time.monotonic() + limit_s
    if is_master:
        try:
            with socket.create_server(("", port), backlog=nodes) as server:
                for _ in range(nodes - 1):
                    server.settimeout(max(0.01, deadline - time.monotonic()))
                    server.accept()[0].close()
        except TimeoutError:
            return None
        except OSError as error:
            return f"port {port} of the master address {address} cannot be used ({error})"
        return None
    reason = ""
    while time.monotonic() < deadline:
        try:
            socket.create_connection((address, port), timeout=5).close()
            return None
        except OSError as error:  # also while the master's process is still starting
            reason = str(error)
            time.sleep(0.2)
    return f"the master address {address}:{port} was not reached within {limit_s:g} s ({reason})"


def software() -> dict[str, str]:
    """Versions of python and the packages, and the commit of igrpo_mcore where it is a checkout."""
    found = versions()
    commit = found["git"]
    named = {"python": found["python"], **found["packages"]}
    if commit:
        named["igrpo_mcore commit"] = commit["commit"][:12] + ("+changes" if commit["modified"] else "")
    return named


def compare(lines: list[NodeHealth], expected: list[str]) -> list[str]:
    """One sentence for each thing wrong with a node, its name first; empty where all are well."""
    by_node = {line.node: line for line in lines}
    found = [
        f"{node}: no answer (down, or its check did not end in time)"
        for node in expected
        if node not in by_node
    ]
    found += [f"{line.node}: {problem}" for line in lines for problem in line.problems]
    facts = {"active interconnect ports": {line.node: str(line.ports) for line in lines}}
    for name in sorted({name for line in lines for name in line.versions}):
        facts[name] = {line.node: line.versions.get(name, "absent") for line in lines}
    # git may be missing on one node of a shared checkout: unknown is not different
    commits = facts.get("igrpo_mcore commit", {})
    facts["igrpo_mcore commit"] = {node: value for node, value in commits.items() if value != "absent"}
    for name, values in facts.items():
        found += _odd_ones_out(name, values)
    return found


def _odd_ones_out(name: str, values: dict[str, str]) -> list[str]:
    """The nodes whose value is not the one most nodes have; all of them where none prevails."""
    counts = Counter(values.values()).most_common()
    if len(counts) < 2:
        return []
    tie = counts[0][1] == counts[1][1]
    usual = None if tie else counts[0][0]
    others = "nodes differ" if tie else f"most nodes have {usual}"
    return [f"{node}: {name} is {value}, {others}" for node, value in values.items() if value != usual]


def ask_gpus(health: NodeHealth, expected: int) -> None:
    """Fill in what concerns the GPUs."""
    gpus, reason = read_gpus()
    health.gpus = len(gpus)
    if len(gpus) < expected:  # more are no fault: without cgroups a job sees all of the node's
        why = f" ({reason})" if reason else ""
        health.problems.append(f"{len(gpus)} GPUs seen, {expected} expected{why}")
    links = nvlinks() if gpus else []
    health.problems += [*faults(gpus, mine_alone=len(gpus) == expected), *lost_links(links)]
    health.notes += fatal_xids() if gpus else []
    if gpus:
        health.versions |= {"NVIDIA driver": gpus[0].driver, "GPU": gpus[0].name}
        health.versions["active NVLinks"] = str(sum(links))


def ask_disks(
    health: NodeHealth,
    recipe: Path,
    overrides: list[str] | None,
    min_free_gib: float,
    min_tmp_gib: float,
    *,
    shared: bool,
) -> None:
    """Fill in what concerns TMPDIR and run.dir, and leave a canary in that where it must be ``shared``."""
    temporary = Path(os.environ.get("TMPDIR", "/tmp"))
    asked: list[tuple[Path, float, Path | None]] = [(temporary, min_tmp_gib, None)]
    try:
        run = load_config(recipe, overrides).run
        runs = Path(run.dir).expanduser()
        asked.append((runs, min_free_gib, checkpoints_dir(run) if run.name else None))
    except UserError as error:
        health.problems.append(str(error))
    for folder, least, inside in asked:
        free, problem = lack_of_space(folder, least, inside)
        health.free_gib[str(folder)] = round(free, 3)
        if problem:
            health.problems.append(problem)
        elif shared and folder != temporary:
            job = os.environ.get("SLURM_JOB_ID", str(os.getpid()))
            try:
                health.canary = str(leave_canary(folder, f"{job}-{health.node}"))
            except OSError as error:
                health.problems.append(f"{folder} cannot be written ({error})")


def not_shared(lines: list[NodeHealth], here: str) -> list[str]:
    """The nodes whose canary is not seen from ``here``."""
    missing = set(unseen([Path(line.canary) for line in lines if line.canary], CANARY_LIMIT_S))
    return [
        f"{line.node}: {line.canary}, which it wrote, is not seen from {here}: set run.dir to a folder of a "
        "file system that all nodes share (and the container mounts)"
        for line in lines
        if line.canary and Path(line.canary) in missing
    ]


app = typer.Typer(add_completion=False, no_args_is_help=True, help=(__doc__ or "").splitlines()[0])


@app.command()
def node(
    recipe: Annotated[Path, typer.Argument(help="The job's recipe: its run.dir must have room.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="The job's key=value.")] = None,
    gpus: Annotated[int, typer.Option(help="GPUs that each node must have; 0 on machines without.")] = 0,
    nodes: Annotated[int, typer.Option(help="Nodes of the job.")] = 1,
    rdma: Annotated[bool, typer.Option(help="With GPUs on several nodes, ask for RDMA ports.")] = True,
    master: Annotated[str | None, typer.Option(help="HOST:PORT of the rendezvous.")] = None,
    is_master: Annotated[bool, typer.Option(help="This node is HOST.")] = False,
    limit_s: Annotated[float, typer.Option(help="Seconds to wait for the other nodes.")] = 60.0,
    min_free_gib: Annotated[float, typer.Option(help="GiB that must be free in run.dir.")] = 20.0,
    min_tmp_gib: Annotated[float, typer.Option(help="GiB that must be free in TMPDIR.")] = 2.0,
) -> None:
    """Print this node's health as one JSON line. The exit status is 0: `compare` judges."""
    health = NodeHealth(
        node=os.environ.get("SLURMD_NODENAME", socket.gethostname()),
        gpus=0,
        ports=active_ports(),
        free_gib={},
        versions=software(),
    )
    if gpus:
        ask_gpus(health, gpus)
    if rdma and gpus and nodes > 1 and not health.ports:
        health.problems.append(
            "no active InfiniBand or RoCE port; where the cluster has none, set HEALTH_OPTIONS=--no-rdma"
        )
    ask_disks(health, recipe, overrides, min_free_gib, min_tmp_gib, shared=nodes > 1)
    if master and nodes > 1:
        address, _, port = master.rpartition(":")
        problem = meet(address, int(port), nodes, is_master, limit_s)
        health.problems += [problem] if problem else []
    # one write, so that lines of several nodes in one file stay whole
    os.write(1, (json.dumps(dataclasses.asdict(health)) + "\n").encode())


@app.command("compare")
def compare_command(
    file: Annotated[Path, typer.Argument(help="The lines of all nodes.")],
    expected: Annotated[list[str], typer.Argument(help="Names of all nodes.")],
) -> None:
    """Name every bad node and why; the exit status is 1 where there is one."""
    lines = read_lines(file)
    found = compare(lines, expected) + not_shared(lines, socket.gethostname())
    for line in lines:
        for note in line.notes:
            typer.echo(f"igrpo health: note: {line.node}: {note}", err=True)
    for sentence in found:
        typer.echo(f"igrpo health: {sentence}", err=True)
    bad = [name for name in expected if any(sentence.startswith(f"{name}: ") for sentence in found)]
    if found and len(bad) < len(expected):
        typer.echo(f"igrpo health: to go on without: sbatch --exclude={','.join(bad)}", err=True)
    if found:
        raise typer.Exit(1)
    typer.echo(f"igrpo health: {len(expected)} nodes are well")


def read_lines(file: Path) -> list[NodeHealth]:
    """The nodes' lines; whatever else a container or Slurm printed among them is passed over."""
    if not file.is_file():
        return []
    objects: list[Any] = []
    for line in file.read_text(errors="replace").splitlines():
        try:
            objects.append(json.loads(line))
        except ValueError:
            continue
    return [NodeHealth(**value) for value in objects if isinstance(value, dict) and "node" in value]


if __name__ == "__main__":
    app()
