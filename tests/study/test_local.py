"""The jobs of a sweep, with a stand-in for ``igrpo``."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from igrpo_mcore.errors import UserError
from igrpo_mcore.study import local
from igrpo_mcore.study.jobs import Job, jobs_of
from igrpo_mcore.study.local import Entry, LocalRuns, Outcome
from igrpo_mcore.study.progress import SweepProgress, table
from igrpo_mcore.study.state import State, state_of
from igrpo_mcore.study.sweep_file import SweepFile
from igrpo_mcore.study.variants import SweepRun, Variant
from tests.study.fake_runs import config, write_checkpoint, write_evaluation, write_run
from tests.support.ranks import ROOT


@pytest.fixture(autouse=True)
def shell(monkeypatch):
    """A job's command is a line of shell."""
    monkeypatch.setattr(local, "program", lambda command: ["bash", "-c", *command])
    monkeypatch.setattr(local, "POLL_S", 0.01)


def job(folder: Path, name: str, *lines: str, remove: Path | None = None) -> Job:
    return Job(name, folder / name, tuple((line,) for line in lines), 3, remove)


def run(jobs: list[Job], at_a_time: int = 1) -> dict[str, local.Entry]:
    entries = LocalRuns(jobs, at_a_time, lambda entry: None).run()
    return {entry.job.name: entry for entry in entries}


def test_one_that_fails_is_kept_in_mind_and_the_rest_go_on(tmp_path):
    (tmp_path / "old").mkdir()
    done = run(
        [
            job(
                tmp_path,
                "a",
                f"echo a >>{tmp_path}/order",
                f"echo a2 >>{tmp_path}/order",
                remove=tmp_path / "old",
            ),
            job(
                tmp_path,
                "b",
                "echo 'igrpo: no such thing'; echo Killed; exit 2",
                f"echo no >>{tmp_path}/order",
            ),
            job(tmp_path, "c", f"echo c >>{tmp_path}/order"),
        ]
    )
    assert [done[name].outcome for name in "abc"] == [Outcome.done, Outcome.failed, Outcome.done]
    assert (done["b"].status, done["b"].why) == (2, "igrpo: no such thing")
    assert (tmp_path / "order").read_text().split() == ["a", "a2", "c"]
    assert (tmp_path / "logs/b.log").read_text().endswith("Killed\n")
    assert not (tmp_path / "old").exists()


def test_some_at_a_time(tmp_path):
    """Two wait for each other, which one after another would do forever."""
    meet = "touch {0}/{1}; for i in $(seq 1000); do [ -e {0}/{2} ] && exit 0; sleep 0.02; done; exit 1"
    jobs = [job(tmp_path, a, meet.format(tmp_path, a + "!", b + "!")) for a, b in (("x", "y"), ("y", "x"))]
    assert {entry.outcome for entry in run(jobs, at_a_time=2).values()} == {Outcome.done}


def test_a_run_in_other_hands_is_left_alone(tmp_path):
    (tmp_path / "logs").mkdir()
    with (tmp_path / "logs/a.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = run([job(tmp_path, "a", "exit 1"), job(tmp_path, "b", "exit 0")])
    assert (done["a"].outcome, done["b"].outcome) == (Outcome.elsewhere, Outcome.done)


def test_a_signal_asks_for_a_checkpoint_and_nothing_else_begins(tmp_path):
    asked = "trap 'touch {0}/asked; exit 75' TERM; touch {0}/ready; while :; do sleep 0.05; done"
    script = tmp_path / "sweep.py"
    script.write_text(
        "import sys; from pathlib import Path; from igrpo_mcore.study import local\n"
        "from igrpo_mcore.study.jobs import Job\n"
        "local.program = lambda c: ['bash', '-c', *c]\n"
        f"p = Path({str(tmp_path)!r})\n"
        f"jobs = [Job('a', p / 'a', (({asked.format(tmp_path)!r},),), 3)]\n"
        "jobs.append(Job('b', p / 'b', (('exit 0',),), 3))\n"
        "print(*[e.outcome.value for e in local.LocalRuns(jobs, 1, lambda e: None).run()])\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")])}
    process = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment)
    deadline = time.monotonic() + 120
    while not (tmp_path / "ready").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60)[0].split() == ["stopped", "waiting"]
    assert (tmp_path / "asked").exists()


def sweep_run(folder: Path, seed: int = 0, selection: str = "best") -> SweepRun:
    options = config(selection, seed)
    options.run.dir, options.run.name = str(folder), f"{selection}-seed{seed}"
    return SweepRun(Variant(selection, (f"rollout.selection={selection}",)), seed, Path("r.yaml"), options)


def test_what_is_left_to_do(tmp_path):
    """Half a run goes on, a trained one is evaluated, an evaluated one is done even without checkpoints."""
    new, begun, trained, evaluated = (sweep_run(tmp_path, seed) for seed in range(4))
    for made, steps in ((begun, 4), (trained, 10), (evaluated, 10)):
        write_run(made.folder, made.config, [0.5] * steps)
    write_checkpoint(begun.folder, 4)
    write_checkpoint(trained.folder, 10)
    write_evaluation(evaluated.folder, 10, {"p": [1.0]})
    every = [new, begun, trained, evaluated]
    assert [state_of(one) for one in every] == list(State)
    jobs = {
        j.name: [c[0] for c in j.commands] for j in jobs_of(SweepFile(recipe="r.yaml", evaluate=True), every)
    }
    assert jobs == {
        "best-start": ["eval"],
        "best-seed0": ["train", "eval"],
        "best-seed1": ["train", "eval"],
        "best-seed2": ["eval"],
    }
    assert [j.name for j in jobs_of(SweepFile(recipe="r.yaml"), every)] == ["best-seed0", "best-seed1"]


def test_a_run_that_evaluates_its_last_step_itself_is_not_evaluated_again(tmp_path):
    run = sweep_run(tmp_path, 0)
    run.config.eval.every = run.config.train.steps
    sweep = SweepFile(recipe="r.yaml", evaluate=True)
    assert [c[0] for c in jobs_of(sweep, [run])[-1].commands] == ["train"]
    write_run(run.folder, run.config, [0.5])
    write_checkpoint(run.folder, run.config.train.steps)  # by a version that left no figures
    assert [c[0] for c in jobs_of(sweep, [run])[-1].commands] == ["eval"]


def test_variants_of_the_same_weights_have_one_start(tmp_path):
    every = [sweep_run(tmp_path, 0, name) for name in ("none", "best")]
    jobs = jobs_of(SweepFile(recipe="r.yaml", evaluate=True), every)
    assert [j.name for j in jobs if j.steps == 0] == ["none-start"]
    some = jobs_of(SweepFile(recipe="r.yaml", evaluate=True), every[1:], every)
    assert [j.name for j in some] == ["none-start", "best-seed0"]  # not once more under its own name
    every[1].config.model.path = "another/model"
    jobs = jobs_of(SweepFile(recipe="r.yaml", evaluate=True), every)
    assert [j.name for j in jobs if j.steps == 0] == ["none-start", "best-start"]


def test_a_folder_with_other_options_is_refused(tmp_path):
    before = sweep_run(tmp_path)
    write_run(before.folder, before.config, [0.5])
    now = sweep_run(tmp_path)
    now.config.optimizer.lr = 0.5
    with pytest.raises(
        UserError, match=r"was made with optimizer.lr=1e-06 and the sweep now has optimizer.lr=0.5"
    ):
        state_of(now)
    now.config.optimizer.lr, now.config.checkpoint.every = 1e-6, 3  # trains the same
    assert state_of(now) == State.begun
    # an option that an older version did not have counts as its default
    text = (before.folder / "config.yaml").read_text()
    (before.folder / "config.yaml").write_text(text.replace("  passes: 1\n", ""))
    assert state_of(now) == State.begun


def test_progress_elsewhere_than_on_a_terminal_and_the_table(tmp_path):
    console = Console(file=(tmp_path / "said").open("w"), width=200)
    with SweepProgress(console) as progress:
        runs = LocalRuns(
            [job(tmp_path, "a", "exit 0"), job(tmp_path, "b", "echo why; exit 3")], 1, progress.show
        )
        progress.watch(runs.entries)
        runs.run()
    console.file.close()
    said = (tmp_path / "said").read_text().splitlines()
    assert said[0] == "[0/2] a: running"
    assert said[1].startswith("[1/2] a: done after 0:00:0")
    assert "b: failed after" in said[3]
    assert "with status 3: why (all of it:" in said[3]
    (tmp_path / "a").mkdir()
    (tmp_path / "a/metrics.jsonl").write_text(json.dumps({"step": 1, "drafts/reward_mean": 0.25}) + "\n")
    with (tmp_path / "table").open("w") as file:
        Console(file=file, width=200).print(table(runs.entries))
    assert "1/3" in (tmp_path / "table").read_text()
    assert "0.250 → 0.250" in (tmp_path / "table").read_text()


def test_a_terminal_shows_the_table_while_it_goes_on(tmp_path):
    file = (tmp_path / "said").open("w")
    with SweepProgress(Console(file=file, width=200, force_terminal=True)) as progress:
        runs = LocalRuns([job(tmp_path, "a", "exit 0"), job(tmp_path, "b", "exit 3")], 1, progress.show)
        progress.watch(runs.entries)
        runs.run()
    file.close()
    said = (tmp_path / "said").read_text()
    assert (
        said.index("1 waiting, 1 running") < said.index("1 running, 1 done") < said.index("1 done, 1 failed")
    )


def test_a_long_sweep_fits_a_terminal(tmp_path):
    entries = [Entry(job(tmp_path, f"run{number}", "")) for number in range(100)]
    for entry in entries[:40]:
        entry.outcome = Outcome.done
    entries[40].outcome = Outcome.failed
    file = (tmp_path / "said").open("w")
    Console(file=file, width=200).print(table(entries))
    file.close()
    said = (tmp_path / "said").read_text()
    assert "59 waiting, 40 done, 1 failed" in said
    assert [line.split()[0] for line in said.splitlines()[2:]] == [f"run{number}" for number in range(35, 44)]
