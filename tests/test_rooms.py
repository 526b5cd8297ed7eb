"""The rooms of docs/architecture.md, as the imports have them."""

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "igrpo_mcore"
DOCS = (ROOT / "docs/architecture.md").read_text()
BASE = "base"


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in PACKAGE.rglob("*.py")}


def imports(path: Path, *, top_level: bool) -> Iterator[str]:
    """Modules of the package that a file imports; ``top_level`` leaves out those inside functions."""
    tree = ast.parse(path.read_text())
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("igrpo_mcore"):
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else str(node.module)
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("igrpo_mcore"))


def table() -> tuple[dict[str, str], dict[str, set[str]]]:
    """Room by the name below igrpo_mcore; the rooms that each may import."""
    names = re.search(r"the base: (.*?)\.\n\n", DOCS, re.DOTALL)
    assert names is not None
    room_of = {Path(name).stem: BASE for name in re.findall(r"`([\w/.]+)`", names[1])} | {"": BASE}
    allowed: dict[str, set[str]] = {}
    for cells in re.findall(r"^\| (`[^|]+) \|[^|]*\|([^|]*)\|$", DOCS.split("## Rooms")[1], re.MULTILINE):
        members = [name.rstrip("/").removesuffix(".py") for name in re.findall(r"`([\w/.]+)`", cells[0])]
        if members[0] == "kernels":
            break
        room_of |= dict.fromkeys(members, members[0])
        allowed[members[0]] = set(cells[1].replace(" ", "").split(",")) - {""}
    return room_of, allowed


ROOM_OF, ALLOWED = table()


def below(module: str) -> str:
    return [*module.split("."), ""][1]


def test_the_table_is_read_whole():
    assert {"config", "policy", "rollout", "trainer", "launch", "cli"} <= set(ALLOWED)
    assert ROOM_OF["errors"] == BASE


def test_every_file_has_a_room():
    assert {below(module) for module in MODULES} - set(ROOM_OF) == set()


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_room_imports_only_what_it_may(module: str):
    room = ROOM_OF[below(module)]
    seen = {ROOM_OF[below(name)] for name in imports(MODULES[module], top_level=False)} - {room, BASE}
    if "everything" not in ALLOWED.get(room, set()):
        assert seen <= ALLOWED.get(room, set())


def test_policy_and_rollout_do_not_know_each_other():
    assert "rollout" not in ALLOWED["policy"]
    assert "policy" not in ALLOWED["rollout"]


def test_no_import_cycle():
    graph = {name: set(imports(path, top_level=True)) for name, path in MODULES.items()}
    assert list(TopologicalSorter(graph).static_order())  # raises CycleError


def test_kernels_do_not_know_the_trainer():
    for path in (ROOT / "kernels").rglob("*.py"):
        assert not list(imports(path, top_level=False)), path


def test_the_trainer_stays_the_picture():
    assert len((PACKAGE / "trainer.py").read_text().splitlines()) < 200
    lengths = sorted(len(path.read_text().splitlines()) for path in MODULES.values())
    assert lengths[len(lengths) // 2] < 120
