"""The hook by which tests end a job at a named place, and with it a run that is killed twice."""

import os
import subprocess
import sys

import pytest

from igrpo_mcore.run.kill_points import KillPoint
from tests.support.ranks import ROOT
from tests.support.small_recipe import small_recipe


@pytest.mark.parametrize(
    ("text", "point"),
    [
        ("update:3", KillPoint("update", 3, "0", "KILL", 1)),
        ("update:3:1", KillPoint("update", 3, "1", "KILL", 1)),
        ("engine:2:launcher:TERM", KillPoint("engine", 2, "launcher", "TERM", 1)),
        ("engine:2:1:TERM:12", KillPoint("engine", 2, "1", "TERM", 12)),
    ],
)
def test_a_point_is_read(text, point):
    assert KillPoint.parse(text) == point
    assert KillPoint.parse(str(point)) == point


def reach(at: str, rank: str = "0") -> tuple[int, str]:
    """Status and output of a process that reaches two places thrice in each of three steps."""
    program = (
        "from igrpo_mcore.run.kill_points import kill_point\n"
        "for step in (1, 2, 3):\n  for nth in (1, 2, 3):\n    for name in 'ab':\n"
        "      print(name, step, nth, flush=True)\n      kill_point(name, step)\n"
    )
    environment = os.environ | {"IGRPO_KILL_AT": at, "RANK": rank}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("at", "rank", "expected"),
    [
        ("b:2:0:KILL:3", "0", (-9, "b 2 3")),
        ("a:1", "0", (-9, "a 1 1")),
        ("a:3:1:TERM:2", "1", (-15, "a 3 2")),
        ("a:3:1:TERM:2", "0", (0, "b 3 3")),
        ("c:1", "0", (0, "b 3 3")),
        ("a:2:0:RAISE:2", "0", (1, "a 2 2")),
        ("", "0", (0, "b 3 3")),
    ],
)
def test_the_named_rank_ends_at_the_named_time(at, rank, expected):
    assert reach(at, rank) == expected


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_that_is_killed_equals_the_undisturbed_one(tmp_path):
    """In stage 2, while a checkpoint is written, by a request to stop: metrics, weights, optimizer, journal.
    A real policy and an engine without a model."""
    options = "rollout: {max_prompt_tokens: 64}\noptimizer: {lr: 1.0e-3}\n"
    recipe = small_recipe(tmp_path, options, layers=2)
    command = [
        *(sys.executable, "scripts/kill_points.py", "--simulated", "--out", str(tmp_path / "runs")),
        *("--recipe", str(recipe), "--steps", "4", "--points"),
        *("sampled_refinements:1:0:KILL:3", "checkpoint_written:2:0:KILL", "update:3:launcher:TERM"),
    ]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert "nothing differs" in done.stdout
    assert "**run 1 finishes**" in done.stdout
