"""The health check: what a node says of itself, and how several are compared."""

import json
import shutil
import socket
import subprocess
import sys
import threading

from typer.testing import CliRunner

from igrpo_mcore import health
from igrpo_mcore.disk import GIB, leave_canary
from igrpo_mcore.health import (
    NodeHealth,
    active_ports,
    compare,
    lack_of_space,
    meet,
    not_shared,
    read_lines,
)


def node(name: str, *, ports: int = 8, problems: tuple[str, ...] = (), **versions: str) -> NodeHealth:
    return NodeHealth(name, 8, ports, {}, {"torch": "2.13.0", **versions}, list(problems))


def test_nodes_that_are_well():
    assert compare([node("a"), node("b")], ["a", "b"]) == []


def test_a_node_that_says_nothing_is_named():
    assert compare([node("a")], ["a", "b"]) == ["b: no answer (down, or its check did not end in time)"]


def test_problems_name_their_node():
    found = compare([node("a"), node("b", problems=("7 GPUs seen, 8 expected",))], ["a", "b"])
    assert found == ["b: 7 GPUs seen, 8 expected"]


def test_the_odd_one_out_is_named_and_both_of_two():
    three = [node("a"), node("b", torch="2.12.0"), node("c")]
    assert compare(three, ["a", "b", "c"]) == ["b: torch is 2.12.0, most nodes have 2.13.0"]
    two = compare(three[:2], ["a", "b"])
    assert two == ["a: torch is 2.13.0, nodes differ", "b: torch is 2.12.0, nodes differ"]
    lost_rail = compare([node("a"), node("b", ports=7), node("c")], ["a", "b", "c"])
    assert lost_rail == ["b: active interconnect ports is 7, most nodes have 8"]


def test_packages_that_only_one_node_has_differ_but_an_unknown_commit_does_not():
    lines = [node("a", vllm="0.32.0"), node("b"), node("c")]
    assert compare(lines, ["a", "b", "c"]) == ["a: vllm is 0.32.0, most nodes have absent"]
    commits = [node("a", **{"igrpo_mcore commit": "12ab"}), node("b")]
    assert compare(commits, ["a", "b"]) == []
    commits.append(node("c", **{"igrpo_mcore commit": "34cd"}))
    assert len(compare(commits, ["a", "b", "c"])) == 2


def test_ports_are_read_from_the_kernel(tmp_path):
    for device, state in (("mlx5_0", "4: ACTIVE\n"), ("mlx5_1", "1: DOWN\n"), ("mlx5_2", "4: ACTIVE\n")):
        port = tmp_path / device / "ports" / "1"
        port.mkdir(parents=True)
        (port / "state").write_text(state)
    assert active_ports(tmp_path) == 2
    assert active_ports(tmp_path / "absent") == 0


def test_free_space_of_a_folder_that_is_not_there_yet(tmp_path):
    free, problem = lack_of_space(tmp_path / "runs" / "of" / "mine", 0.001)
    assert free > 0
    assert problem is None
    assert lack_of_space(health.Path("/proc/self"), 0)[1] == "/proc/self cannot be written"


def test_checkpoints_that_lie_there_already_need_no_room_again(tmp_path, monkeypatch):
    """A requeued job's disk is as full as the job itself made it."""
    usage = shutil.disk_usage(tmp_path)._replace(free=10 * GIB)
    monkeypatch.setattr("igrpo_mcore.disk.shutil.disk_usage", lambda path: usage)
    run = tmp_path / "run" / "checkpoints"
    asked = lambda: lack_of_space(tmp_path, 30, run)[1]  # noqa: E731
    assert asked() == f"10.0 GiB free for {tmp_path}, 30.0 GiB needed"
    for step in ("step_000005", ".step_000010.partial"):  # the next save clears a half written one away
        (run / step).mkdir(parents=True)
        with (run / step / "0.distcp").open("wb") as file:
            file.truncate(10 * GIB)  # sparse
    assert asked() is None
    (run / "step_000005" / "0.distcp").unlink()
    assert asked() == f"10.0 GiB free for {tmp_path}, 20.0 GiB needed"


def test_a_folder_that_is_not_shared_is_told_by_its_canary(tmp_path, monkeypatch):
    monkeypatch.setattr(health, "CANARY_LIMIT_S", 0.1)
    lines = [node("a"), node("b"), node("c")]
    lines[0].canary = str(leave_canary(tmp_path / "runs", "7-a"))
    lines[1].canary = str(tmp_path / "runs" / ".canary-7-b")  # written on a disk of its own
    (found,) = not_shared(lines, "a")
    assert found.startswith(
        f"b: {tmp_path}/runs/.canary-7-b, which it wrote, is not seen from a: set run.dir"
    )
    assert list((tmp_path / "runs").iterdir()) == []


def test_nodes_meet_at_the_master_or_say_so():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    found: dict[int, str | None] = {}
    threads = [
        threading.Thread(target=lambda i=i: found.update({i: meet("127.0.0.1", port, 3, i == 0, 30.0)}))
        for i in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == {0: None, 1: None, 2: None}
    assert meet("127.0.0.1", port, 2, True, 0.3) is None  # who is missing says so itself
    alone = meet("127.0.0.1", port, 2, False, 0.3)
    assert alone is not None
    assert f"127.0.0.1:{port} was not reached within 0.3 s" in alone
    with socket.create_server(("", 0)) as taken:
        mine = meet("127.0.0.1", taken.getsockname()[1], 2, True, 0.3)
    assert mine is not None
    assert "cannot be used" in mine


def test_lines_among_other_output(tmp_path):
    line = {"node": "a", "gpus": 0, "ports": 0, "free_gib": {}, "versions": {}, "problems": []}
    file = tmp_path / "answers"
    file.write_text(f"pyxis: importing docker image\n{json.dumps(line)}\n17\n")
    assert read_lines(file) == [NodeHealth(**line)]
    assert read_lines(tmp_path / "absent") == []


def test_the_commands(tmp_path):
    command = [sys.executable, "-m", "igrpo_mcore.health", "node", "recipes/tiny_qwen3.yaml"]
    options = ["--gpus", "0", "--min-free-gib", "1e9", f"run.dir={tmp_path}"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    (tmp_path / "answers").write_text(done.stdout)
    name = json.loads(done.stdout)["node"]
    judged = CliRunner().invoke(health.app, ["compare", str(tmp_path / "answers"), name, "other"])
    assert judged.exit_code == 1
    assert f"igrpo health: {name}: " in judged.output
    assert "GiB needed" in judged.output
    assert "igrpo health: other: no answer" in judged.output
    well = tmp_path / "well"
    well.write_text(json.dumps({**json.loads(done.stdout), "problems": []}) + "\n")
    assert CliRunner().invoke(health.app, ["compare", str(well), name]).exit_code == 0
