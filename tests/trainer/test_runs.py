"""Whole runs by the command a user types: the same seed twice, stopped on the way; a rank that dies."""

import contextlib
import json
import math
import os
import re
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.support.ranks import ROOT, igrpo, in_own_session
from tests.support.small_recipe import small_recipe

pytestmark = pytest.mark.slow

STEPS = 8
REWARD = "reward.weights={'tests.support.rewards:digit_share': 1.0, accuracy: 0.0, format: 0.0}"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    return small_recipe(
        root,
        "parallel: {tp: 2, sp: true}\n"
        "rollout: {tp: 1, max_prompt_tokens: 64, max_completion_tokens: 16, temperature: 1.0}\n"
        f"optimizer: {{lr: 1.0e-3}}\ntrain: {{steps: {STEPS}, prompts_per_step: 6, mini_batches: 2}}\n"
        f"objective: {{kl_coef: 0.01}}\nrun: {{dir: {root}/runs, tensorboard: false}}\n",
    )


def metrics(recipe: Path, name: str) -> list[dict]:
    lines = (recipe.parent / "runs" / name / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line) for line in lines]
    timed = ("time/", "tokens_per_s/", "memory/")
    return [{k: v for k, v in step.items() if not k.startswith(timed)} for step in steps]


def documented() -> list[re.Pattern]:
    """The metric names of docs/metrics.md: {a,b} is one of them, NAME and PHASE stand for any word."""
    names = []
    for row in re.findall(r"^\| (`.*?) \|", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE):
        for name in re.findall(r"`([^`]+)`", row):
            pattern = re.sub(r"\{([^}]*)\}", lambda m: f"({m[1].replace(',', '|')})", name)
            names.append(re.compile(re.sub("NAME|PHASE", r"[\\w.:]+", pattern)))
    return names


@pytest.fixture(scope="module")
def first(recipe) -> tuple[list[dict], str]:
    """An undisturbed run of all steps: its metrics and its output."""
    status, output = igrpo("train", recipe, REWARD, "run.name=first")
    assert status == 0, output[-4000:]
    return metrics(recipe, "first"), output


def test_what_a_run_leaves(recipe, first):
    steps, output = first
    assert [step["step"] for step in steps] == list(range(1, STEPS + 1))
    for step in steps:
        assert step["policy/grad_norm"] > 0
        assert 0 < step["policy/entropy"] < math.log(128)
        assert 0 < step["policy/head_rows_share"] < 1  # the head sees no prompt
        assert step["parity/logprob_max_abs_diff"] < 1e-4
        assert step["policy/kl"] > 1e-4  # the second mini-batch already differs from the reference
    folder = recipe.parent / "runs" / "first"
    for file in ("config.yaml", "versions.json", "samples.jsonl", "report.html"):
        assert (folder / file).stat().st_size > 0
    assert "TP = 2" in output
    logged = json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])
    undocumented = [name for name in logged if not any(p.fullmatch(name) for p in documented())]
    assert undocumented == []


@contextlib.contextmanager
def running(recipe: Path, name: str, *overrides: str):
    """A job of its own that has done at least one step; yields its process and its log."""
    log = recipe.parent / f"{name}.log"
    command = [sys.executable, "-m", "igrpo_mcore", "train", str(recipe), REWARD, f"run.name={name}"]
    with log.open("w") as output, in_own_session([*command, *overrides], output) as job:
        lines = recipe.parent / "runs" / name / "metrics.jsonl"
        deadline = time.monotonic() + 240
        while not (lines.exists() and lines.read_text().count("\n") >= 1):
            assert job.poll() is None, log.read_text()[-4000:]
            assert time.monotonic() < deadline, log.read_text()[-4000:]
            time.sleep(0.2)
        yield job, log


def test_a_rank_that_dies_ends_the_job_with_its_message(recipe):
    with running(recipe, "dies", "train.steps=1000") as (job, log):
        children = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
        ranks = [
            int(child) for child in children if b"RANK=1\0" in Path(f"/proc/{child}/environ").read_bytes()
        ]
        os.kill(ranks[0], signal.SIGKILL)
        assert job.wait(60) != 0
    assert "rank 1 was ended by signal 9" in log.read_text()


def test_ranks_end_with_a_launcher_that_is_killed_and_nobody_trains_beside_them(recipe):
    """They are in sessions of their own: SIGKILL to the launcher's group does not reach them."""
    with running(recipe, "orphans", "train.steps=1000") as (job, _):
        status, output = igrpo("train", recipe, REWARD, "run.name=orphans", "train.steps=1000")
        assert status == 2, output[-4000:]
        ranks = psutil.Process(job.pid).children()
        assert len(ranks) == 2
        assert f"is being trained by process {ranks[0].pid} on" in output
        os.kill(job.pid, signal.SIGKILL)
        assert psutil.wait_procs(ranks, timeout=30)[1] == []


def exported(run: Path, out: Path) -> dict[str, torch.Tensor]:
    """The run's newest checkpoint as transformers reads it, exported by its two ranks."""
    status, output = igrpo("export", run, "--out", out, "--dtype", "float32")
    assert status == 0, output[-4000:]
    return AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).state_dict()


def test_same_seed_same_metrics_although_stopped_on_the_way(recipe, first):
    """SIGTERM to the launcher: the step is finished, its checkpoint written, the status is 75."""
    with running(recipe, "stopped", "checkpoint.keep=1") as (job, log):
        os.kill(job.pid, signal.SIGTERM)
        assert job.wait(60) == 75, log.read_text()[-4000:]
    stopped_at = len(metrics(recipe, "stopped"))
    assert 1 <= stopped_at < STEPS
    assert f"stopped on request after step {stopped_at}" in log.read_text()
    run = recipe.parent / "runs" / "stopped"
    assert [path.name for path in (run / "checkpoints").iterdir()] == [f"step_{stopped_at:06d}"]

    status, output = igrpo("train", recipe, REWARD, "run.name=stopped", "checkpoint.keep=1")
    assert status == 0, output[-4000:]
    assert f"goes on from step {stopped_at + 1}" in output
    assert metrics(recipe, "stopped") == first[0]
    assert [path.name for path in (run / "checkpoints").iterdir()] == [f"step_{STEPS:06d}"]

    # its newest checkpoint, for others and against the engine
    ended = exported(run, recipe.parent / "exported")
    started = AutoModelForCausalLM.from_pretrained(recipe.parent / "checkpoint").state_dict()
    assert ended.keys() == started.keys()
    assert any(not torch.equal(ended[name], started[name]) for name in started)
    status, output = igrpo("verify", run)
    assert status == 0, output[-4000:]
    assert f"step_{STEPS:06d}" in output
