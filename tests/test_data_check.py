"""``igrpo data check`` on a set with one of every fault, by its command."""

import subprocess
import sys
from pathlib import Path

import pytest

from igrpo_mcore.config.schema import DataConfig
from igrpo_mcore.data_check import examined

LINES = [
    '{"problem": "What is 1+1?", "answer": "2"}',
    "",
    '{"problem": "what is  1+1?", "answer": "2"}',
    '{"problem": "What is 1+1?", "answer": "3"}',
    '{"problem": "broken',
    '["a", "list"]',
    '{"problem": "no answer"}',
    '{"problem": "Name a [bold]colour[/bold].", "answer": "red"}',
    '{"problem": "Compute.", "answer": "the steps \\\\boxed{\\\\frac{1}{2}}"}',
    '{"problem": "A sum left undone.", "answer": "1+2"}',
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "set.jsonl"
    path.write_text("\n".join(LINES) + "\n")
    return path


def test_every_fault_is_found(path: Path) -> None:
    found = examined(DataConfig(path=str(path)))
    assert found.problems == 6
    assert [text.split(":")[0].rpartition(", ")[2] for text in found.malformed] == [
        "line 5",
        "line 6",
        "line 7",
    ]
    assert [problem.id for problem in found.duplicates] == ["3", "4"]
    assert [problem.id for problem in found.contradicting] == ["4"]
    assert [problem.answer for problem in found.unread] == ["red", "1+2"]
    assert found.characters[0] == len("What is 1+1?")
    assert found.lengths is None


def check(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "igrpo_mcore", "data", "check", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command(path: Path) -> None:
    done = check(str(path))
    assert done.returncode == 2
    assert f"{path}, line 5: not JSON" in done.stdout
    assert "line 7" in done.stdout
    assert "No final value" in done.stdout
    path.write_text("\n".join(line for i, line in enumerate(LINES, 1) if i not in (5, 6, 7)))
    assert check(str(path)).returncode == 0
    absent = check(str(path.with_name("absent.jsonl")))
    assert (absent.returncode, absent.stdout) == (2, "")
    assert "There is no file" in absent.stderr
    path.write_text("")
    assert check(str(path)).returncode == 2
