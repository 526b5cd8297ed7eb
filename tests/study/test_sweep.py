"""``igrpo sweep`` from its file to its end, with a stand-in for training; and as a Slurm array."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from igrpo_mcore.errors import UserError
from igrpo_mcore.study import local, slurm_array, sweep
from igrpo_mcore.study.slurm_array import JOB_FILE, SCRIPT_FILE
from igrpo_mcore.study.sweep import run_sweep
from tests.support.ranks import ROOT, igrpo

RECIPE = """
model: {path: nvidia/OpenMath-Nemotron-7B, dtype: float32}
data: {path: set.jsonl}
train: {steps: 5, prompts_per_step: 2}
"""
SWEEP = """recipe: r.yaml
variants: {plain: [rollout.selection=none], best: [], worst: [rollout.selection=worst]}
"""
STAND_IN = """
import sys
sys.path.insert(0, {root!r})
from igrpo_mcore.config.load import load_config
from igrpo_mcore.run.folder import run_dir
from tests.study.fake_runs import *
recipe, *options = sys.argv[2:]
config = load_config(recipe, options)
folder = run_dir(config.run)
with open("started", "a") as started:
    print(folder.name, file=started)
if folder.name in open("bad").read().split():
    sys.exit("igrpo: out of luck")
write_run(folder, config, [0.5] * config.train.steps)
write_checkpoint(folder, config.train.steps)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The working folder, with a recipe and a sweep of three variants."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text(RECIPE)
    (tmp_path / "s.yaml").write_text(SWEEP)
    (tmp_path / "bad").touch()
    stand_in = STAND_IN.format(root=str(ROOT))
    monkeypatch.setattr(local, "program", lambda command: [sys.executable, "-c", stand_in, *command])
    monkeypatch.setattr(local, "POLL_S", 0.02)
    monkeypatch.setattr(sweep, "check", lambda *_, **__: None)
    return tmp_path


def started(folder: Path) -> list[str]:
    path = folder / "started"
    names = path.read_text().split() if path.exists() else []
    path.unlink(missing_ok=True)
    return names


def test_a_failure_is_told_the_rest_go_on_and_the_next_start_does_what_is_left(folder, capsys):
    (folder / "bad").write_text("best-seed0")
    assert run_sweep(Path("s.yaml")) == 1
    assert started(folder) == ["plain-seed0", "best-seed0", "worst-seed0"]
    said = capsys.readouterr().out
    assert "runs/s: 3 runs, 0 of them done, 80 completions a run in every variant" in said
    assert "failed: best-seed0 with status 1: igrpo: out of luck; see runs/s/logs/best-seed0.log" in said
    assert "2 of 3 jobs done, 1 failed" in said

    (folder / "bad").write_text("")
    assert run_sweep(Path("s.yaml")) == 0
    assert started(folder) == ["best-seed0"]
    assert run_sweep(Path("s.yaml")) == 0
    assert started(folder) == []

    # more seeds, later
    (folder / "s.yaml").write_text(SWEEP + "seeds: [0, 1]\n")
    assert run_sweep(Path("s.yaml"), only="*st-seed1") == 0
    assert started(folder) == ["best-seed1", "worst-seed1"]
    variants = json.loads((folder / "runs/s/sweep.json").read_text())["variants"]
    assert [v["name"] for v in variants] == ["plain", "best", "worst"]
    assert variants[1]["runs"] == ["best-seed0", "best-seed1"]

    # other options under the same name
    with pytest.raises(UserError, match=r"was made with train.prompts_per_step=2 and the sweep now has"):
        run_sweep(Path("s.yaml"), ["train.prompts_per_step=3"])
    assert run_sweep(Path("s.yaml"), ["train.prompts_per_step=3"], name="t", only="best-seed1") == 0


def test_a_dry_run_writes_nothing(folder, capsys):
    assert run_sweep(Path("s.yaml"), dry=True) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["bad", "r.yaml", "s.yaml"]
    said = capsys.readouterr().out
    assert said.count("igrpo train r.yaml") == 3
    assert "train.seed=0 run.dir=runs/s run.name=worst-seed0" in said


def test_refusals(folder, monkeypatch):
    with pytest.raises(UserError, match="--only x leaves no run; they are called plain-seed0, best-seed0"):
        run_sweep(Path("s.yaml"), only="x")
    (folder / "many.yaml").write_text(SWEEP + "seeds: [0, 1, 2]\n")
    with pytest.raises(UserError, match=r"plain-seed0, .*, plain-seed1, 5 more \(--dry-run lists"):
        run_sweep(Path("many.yaml"), only="x")
    with pytest.raises(UserError, match="--jobs 0 must be at least 1"):
        run_sweep(Path("s.yaml"), at_a_time=0)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    with pytest.raises(UserError, match="call it without torchrun"):
        run_sweep(Path("s.yaml"))


def test_variants_are_preflighted_before_anything_starts(folder, monkeypatch, capsys):
    """The real check, on a model that is not here."""
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    (folder / "r.yaml").write_text(RECIPE.replace("nvidia/OpenMath-Nemotron-7B", "absent/model"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=r"variant plain: .*absent/model"):
        run_sweep(Path("s.yaml"))
    assert not (folder / "runs").exists()


@pytest.fixture
def checkout(folder, monkeypatch) -> Path:
    """The working folder looks like a checkout, whose common.sh says what it was given."""
    (folder / "slurm").mkdir()
    (folder / "slurm/common.sh").write_text('printf "<%s>" "$MIN_FREE_GIB" "$@"\n')
    (folder / "slurm/igrpo_7b.sh").write_text((ROOT / "slurm/igrpo_7b.sh").read_text())
    return folder


def test_an_array_has_a_task_for_each_run_that_is_left(checkout, capsys):
    text = SWEEP.replace("worst: [", "worst: ['data.system_prompt=a \"b\" $c', ")
    (checkout / "s.yaml").write_text(text + "slurm: {time: '01:00:00', partition: short}\n")
    assert run_sweep(Path("s.yaml"), only="best*") == 0
    capsys.readouterr()
    assert run_sweep(Path("s.yaml"), slurm=True, dry=True, at_a_time=1) == 0
    script = capsys.readouterr().out.partition("#!/usr")[2]
    assert not (checkout / "runs/s" / SCRIPT_FILE).exists()
    (checkout / "array.sh").write_text("#!/usr" + script)
    header = dict(re.findall(r"^#SBATCH --([\w-]+)=(.*)$", script, re.MULTILINE))
    wanted = {
        "array": "0-1%1",
        "job-name": "s",
        "time": "01:00:00",
        "partition": "short",
        "signal": "USR1@900",
    }
    sizes = {"nodes": "1", "ntasks-per-node": "1", "gpus-per-node": "0"}  # float32: a recipe without a GPU
    assert header.items() >= (wanted | sizes).items()
    assert "#SBATCH --requeue\n" in script
    said = [
        subprocess.run(
            ["bash", "array.sh"],
            env={"SLURM_ARRAY_TASK_ID": str(task)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for task in range(2)
    ]
    assert said[0].startswith("<341><r.yaml><rollout.selection=none>")  # GiB: 3 x 16 B x 7.62e9
    assert '<data.system_prompt=a "b" $c><rollout.selection=worst>' in said[1]
    assert said[1].endswith("<train.seed=0><run.dir=runs/s><run.name=worst-seed0>")


def test_an_array_is_submitted_once(checkout, monkeypatch, capsys):
    queued = ""

    def slurm(command, **_):
        said = {"sbatch": "4711;cluster\n", "squeue": queued}[command[0]]
        return subprocess.CompletedProcess(command, 0, stdout=said)

    monkeypatch.setattr(slurm_array.subprocess, "run", slurm)
    assert run_sweep(Path("s.yaml"), slurm=True) == 0
    assert "array 4711: 3 runs" in capsys.readouterr().out
    assert (checkout / "runs/s" / JOB_FILE).read_text() == "4711\n"
    queued = "4711_0 RUNNING\n"
    with pytest.raises(UserError, match="the array 4711 of this sweep is still there"):
        run_sweep(Path("s.yaml"), slurm=True)
    queued = ""
    assert run_sweep(Path("s.yaml"), slurm=True) == 0


def test_one_header_serves_runs_of_one_size(checkout):
    (checkout / "s.yaml").write_text(SWEEP.replace("best: []", "best: [parallel.tp=2]"))
    with pytest.raises(UserError, match="ranks differ"):
        run_sweep(Path("s.yaml"), slurm=True)


def test_the_command_line(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(f"recipe: {ROOT}/recipes/tiny_qwen3.yaml\nseeds: [1, 1]\n")
    status, said = igrpo("sweep", path)
    assert status == 2
    assert "seed 1 stands in seeds more than once" in said
