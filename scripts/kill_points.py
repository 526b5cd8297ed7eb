"""Kill a run at named points, resume it, compare: ``python scripts/kill_points.py --out DIR``.

Each row of ``CHAINS`` is one run: it is ended at its first point, started again and ended at the next, and so
on, then left to finish. After every kill its steps so far, and at the end metrics.jsonl (timings aside),
weights, optimizer state (bit for bit) and the journal must be those of a run that nobody disturbed. Prints
a table, and puts it into ``--table FILE`` between its two marks. Status 0 where nothing differs.
"""

import argparse
import datetime
import os
import platform
import shutil
import sys
import time
from pathlib import Path

from disturbed import SIMULATED, Run, different_steps, faults, found_in_journal, lost_and_doubled
from forked import import_everything

from igrpo_mcore.run.kill_points import RAISE

STEPS = 8
CHAINS = (  # name:step:rank:signal:nth, see igrpo_mcore/run/kill_points.py; a checkpoint every second step
    (
        "sampled_drafts:1:1:KILL:5",
        "engine:1:0:KILL:4",
        "scored_drafts:2:0:KILL:3",
        "sampled_refinements:3:1:KILL:3",
        "update:4:0:KILL:2",
        "update:5:1:RAISE",
    ),
    (
        "engine:2:0:KILL:45",
        "scored_refinements:2:1:KILL:2",
        "gather:3:0:KILL",
        "logprobs:3:1:KILL",
        "push:3:0:KILL",
        "engine:4:1:RAISE:5",
    ),
    (
        "checkpoint:2:0:KILL",
        "checkpoint_begun:2:0:KILL",
        "checkpoint_copied:2:1:KILL",
        "checkpoint_written:4:1:KILL",
        "checkpoint_named:4:0:KILL",
        "checkpoint_published:6:0:KILL",
    ),
    (
        "engine:2:launcher:TERM",
        "update:4:launcher:TERM",
        "engine:5:1:TERM",
        "checkpoint_written:6:launcher:TERM",
    ),
)
MARKS = ("<!-- kill points: begin -->", "<!-- kill points: end -->")
HEADER = (
    "| killed at | signal to | status | steps done | found in the journal | steps so far | lost | doubled |",
    "|---|---|---|---|---|---|---|---|",
)


def by_rank_0(point: str) -> str:
    """The same point where there is no other rank."""
    name, step, rank, *rest = point.split(":")
    return ":".join((name, step, "0" if rank == "1" else rank, *rest))


def row(point: str, run: Run, status: int, undisturbed: Run, *, found: int) -> tuple[str, bool]:
    """A line of the table, and whether all of it is as it must be."""
    name, step, rank, signal, *nth = point.split(":")
    differs = different_steps(run, undisturbed, whole=False) if run.steps_done() else None
    _, doubled = lost_and_doubled(run, undisturbed)
    expected = 75 if rank == "launcher" else 1
    good = status == expected and differs is None and doubled == 0
    where = f"`{name}` of step {step}" + (f", time {nth[0]}" if nth else "")
    whom = "the launcher" if rank == "launcher" else f"rank {rank}"
    to = f"an error in {whom}" if signal == RAISE else f"{signal} to {whom}"
    same = "equal" if differs is None else differs
    if status == 0:
        same = f"the point was not reached; {same}"
    cells = (where, to, status, run.steps_done(), found, same, "-", doubled)
    return f"| {' | '.join(map(str, cells))} |", good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="Folder for the runs; must be new.")
    parser.add_argument("--recipe", default="recipes/tiny_qwen3.yaml")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--points", nargs="*", help="One chain of points in place of all.")
    parser.add_argument("--table", type=Path, help="Markdown file whose marked part is replaced.")
    parser.add_argument("--override", action="append", default=[], help="An option of the recipe, key=value.")
    parser.add_argument(
        "--forked", action="store_true", help="Fork the ranks of one process that has imported everything."
    )
    parser.add_argument(
        "--simulated", action="store_true", help="One forked rank with an engine that has no model."
    )
    arguments = parser.parse_args()
    arguments.forked |= arguments.simulated
    if arguments.out.exists():
        raise SystemExit(f"{arguments.out} is there already; give a new folder")
    chains = [tuple(arguments.points)] if arguments.points else list(CHAINS)
    overrides = (f"train.steps={arguments.steps}", *arguments.override)
    if arguments.simulated:
        overrides = (*SIMULATED, *overrides)
        chains = [tuple(map(by_rank_0, chain)) for chain in chains]
    began = time.monotonic()

    if arguments.forked:
        import_everything(simulated=arguments.simulated)
    undisturbed = Run(arguments.out, "undisturbed", arguments.recipe, overrides, arguments.forked)
    if status := undisturbed.until_it_ends():
        raise SystemExit(f"the undisturbed run ends with {status}:\n{undisturbed.said()[-3000:]}")
    lines, good = list(HEADER), True
    for number, chain in enumerate(chains, start=1):
        run = Run(arguments.out, f"chain-{number}", arguments.recipe, overrides, arguments.forked)
        for point in chain:
            status = run.until_it_ends(point)
            line, fine = row(point, run, status, undisturbed, found=found_in_journal(run.said()))
            good &= fine
            lines.append(line)
            print(line, flush=True)
            if not fine:
                print(run.said()[-2000:], file=sys.stderr, flush=True)
            if status == 0:
                break  # it is complete: the point was not reached, and the next ones cannot be
        else:
            status = run.until_it_ends()
        wrong = faults(run, undisturbed) if status == 0 else [f"it does not finish: {run.said()[-1500:]}"]
        good &= not wrong
        lost, doubled = lost_and_doubled(run, undisturbed)
        same = "; ".join(wrong) or "all equal, weights and optimizer too"
        found = found_in_journal(run.said())
        cells = (f"**run {number} finishes**", "", status, run.steps_done(), found, same, lost, doubled)
        lines.append(f"| {' | '.join(map(str, cells))} |")
        print(lines[-1], flush=True)
    minutes = (time.monotonic() - began) / 60
    count = sum(map(len, chains))
    completions = len(undisturbed.sampled())
    how = "Ranks started by `igrpo train`, vLLM"
    if arguments.forked:
        how = "Two ranks forked from one process, vLLM"
    if arguments.simulated:
        how = "One rank with a simulated engine, forked"
    words = (
        f"{count} kills in {len(chains)} runs of {arguments.steps} steps, {completions} completions each: "
        f"{'nothing differs' if good else 'SOMETHING DIFFERS'}. {how}; {minutes:.0f} min, "
        f"{os.cpu_count()} CPUs ({platform.machine()}), {datetime.date.today()}."
    )
    print(words)
    if arguments.table:
        text = arguments.table.read_text()
        before, _, rest = text.partition(MARKS[0])
        _, _, after = rest.partition(MARKS[1])
        arguments.table.write_text("\n".join([before + MARKS[0], words, "", *lines, MARKS[1]]) + after)
    if good:
        shutil.rmtree(arguments.out)
    return not good


if __name__ == "__main__":
    raise SystemExit(main())
