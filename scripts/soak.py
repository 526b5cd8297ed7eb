"""A run under random kills for MINUTES: ``python scripts/soak.py --out DIR --minutes 30``.

The run is killed at random moments of training (SIGKILL to a rank or to the launcher; SIGTERM to the
launcher) and started again until the time is over. Throughout: no step's metrics change once a checkpoint has
them, steps never go back behind a checkpoint, no completion in the journal is sampled again.
Then the last start runs undisturbed: ``--warm-up`` minutes in which its caches fill, and ``--calm`` minutes
in which the memory of every rank may grow by ``--growth`` at most. Status 0 where all of that holds.
"""

import argparse
import contextlib
import json
import os
import random
import re
import signal
import threading
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

import psutil
from disturbed import SIMULATED, Run
from forked import import_everything
from same_run import MEASURED, steps

A_STEP = re.compile(r"^step +\d+/", re.MULTILINE)
"""A line of a run that says so when a step is done."""


def ranks(job: psutil.Process) -> dict[int, psutil.Process]:
    """The job's ranks by number; forked ones have no environment of their own and come in their order."""
    found = {}
    for number, process in enumerate(sorted(job.children(), key=lambda child: child.pid)):
        with contextlib.suppress(psutil.Error, KeyError):
            found[int(process.environ().get("RANK", number))] = process
    return found


def computed(run: Run) -> dict[int, str]:
    """Each step's metrics without what a clock decides, as text."""
    if not (run.folder / "metrics.jsonl").exists():
        return {}
    lines = [{k: v for k, v in step.items() if not k.startswith(MEASURED)} for step in steps(str(run.folder))]
    return {int(line["step"] or 0): json.dumps(line) for line in lines}


def checkpointed(run: Run) -> int:
    return max((int(path.name[5:]) for path in run.folder.glob("checkpoints/step_*")), default=0)


def disturb(job, chance: random.Random) -> str:
    """End the job in one of three ways; says which."""
    how = chance.choice(["KILL to a rank", "KILL to the launcher", "TERM to the launcher"])
    if how == "TERM to the launcher":
        os.kill(job.pid, signal.SIGTERM)
    elif how == "KILL to the launcher":  # its ranks are in groups of their own, forked ones are not
        os.killpg(job.pid, signal.SIGKILL)
    else:
        there = ranks(psutil.Process(job.pid))
        (there[chance.choice(sorted(there))] if there else psutil.Process(job.pid)).kill()
    return how


def wait(job, seconds: float) -> int | None:
    with contextlib.suppress(Exception):
        return job.wait(seconds)
    return None


def keep(run: Run) -> tuple[threading.Event, threading.Thread]:
    """Keep the journal's files while a start runs; none while the next one may fork."""
    ended = threading.Event()
    keeper = threading.Thread(target=run.keep_journal, args=(ended,), daemon=True)
    keeper.start()
    return ended, keeper


def resident(job) -> dict[int, int]:
    """Bytes of each rank that are in memory."""
    found = {}
    for rank, process in ranks(psutil.Process(job.pid)).items():
        with contextlib.suppress(psutil.Error):
            found[rank] = process.memory_info().rss
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="Folder for the run; must be new.")
    parser.add_argument("--minutes", type=float, default=30.0, help="Time under kills.")
    parser.add_argument("--calm", type=float, default=25.0, help="Minutes of the last, undisturbed start.")
    parser.add_argument("--warm-up", type=float, default=5.0, help="Minutes before its memory counts.")
    parser.add_argument("--growth", type=float, default=0.02, help="Share by which a rank's memory may grow.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--recipe", default="recipes/tiny_qwen3.yaml")
    parser.add_argument("--override", action="append", default=[], help="An option of the recipe, key=value.")
    parser.add_argument(
        "--simulated", action="store_true", help="One forked rank with an engine that has no model."
    )
    arguments = parser.parse_args()
    if arguments.out.exists():
        raise SystemExit(f"{arguments.out} is there already; give a new folder")
    chance = random.Random(arguments.seed)
    if arguments.simulated:
        import_everything(simulated=True)
    overrides = ("train.steps=100000", *(SIMULATED if arguments.simulated else ()), *arguments.override)
    run = Run(arguments.out, "soak", arguments.recipe, overrides, arguments.simulated)
    wrong, kills = list[str](), list[str]()
    settled: dict[int, str] = {}
    deadline = time.monotonic() + 60 * arguments.minutes

    def look(after: str) -> None:
        """The invariants between two starts."""
        now = computed(run)
        wrong.extend(
            f"{after}: step {step} changed" for step, line in settled.items() if now.get(step, line) != line
        )
        if lacking := settled.keys() - now.keys():
            wrong.append(f"{after}: step {min(lacking)} is lost")
        settled.update({step: line for step, line in now.items() if step <= checkpointed(run)})
        if again := sum(run.sampled().values()) - len(run.sampled()):
            wrong.append(f"{after}: {again} completions were sampled again")

    while time.monotonic() < deadline:
        job = run.start()
        ended, keeper = keep(run)
        patience = time.monotonic() + 600  # till this start's first step, then a moment within the next ones
        while job.poll() is None and not A_STEP.search(run.said()) and time.monotonic() < patience:
            time.sleep(0.2)
        time.sleep(chance.uniform(0.0, 8.0))
        how = disturb(job, chance) if job.poll() is None else "it ended by itself"
        status = wait(job, 120)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)
        wait(job, 30)
        ended.set()
        keeper.join()
        kills.append(how)
        print(f"{how}: status {status}, {run.steps_done()} steps, checkpoint {checkpointed(run)}", flush=True)
        if how == "it ended by itself" or (status is None and "TERM" in how):
            wrong.append(f"{how}, status {status}: {run.said()[-800:]}")
            break
        look(how)
    if wrong:
        print("\n".join(["NOT WELL:", *wrong]))
        return 1
    memory: dict[int, list[int]] = defaultdict(list)
    job = run.start()
    ended, keeper = keep(run)
    warm = time.monotonic() + 60 * arguments.warm_up
    calm = warm + 60 * arguments.calm
    while time.monotonic() < calm and job.poll() is None:
        time.sleep(1.0)
        if time.monotonic() > warm and run.steps_done() > len(settled) + 2:  # it trains
            for rank, size in resident(job).items():
                memory[rank].append(size)
    os.kill(job.pid, signal.SIGTERM)
    status = wait(job, 120)
    if status != 75:
        wrong.append(f"asked to stop, the last start ended with {status}: {run.said()[-800:]}")
    with contextlib.suppress(ProcessLookupError):
        os.killpg(job.pid, signal.SIGKILL)
    ended.set()
    keeper.join()
    look("at the end")
    for rank, sizes in sorted(memory.items()):
        quarter = max(1, len(sizes) // 4)
        begin, end = median(sizes[:quarter]), median(sizes[-quarter:])
        print(
            f"rank {rank}: {begin / 2**20:.0f} MiB, later {end / 2**20:.0f} MiB ({end / begin - 1:+.2%}), "
            f"{min(sizes) / 2**20:.0f} to {max(sizes) / 2**20:.0f} MiB over {len(sizes)} looks"
        )
        if end / begin - 1 > arguments.growth:
            wrong.append(f"rank {rank} grew by {end / begin - 1:.1%}")
    print(
        f"{len(kills)} kills in {arguments.minutes:g} min, {run.steps_done()} steps, {len(run.sampled())} "
        f"completions, each sampled once; {'all invariants held' if not wrong else 'NOT WELL:'}"
    )
    print("\n".join(wrong))
    return bool(wrong)


if __name__ == "__main__":
    raise SystemExit(main())
