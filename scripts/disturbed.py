"""A run that is killed and started again, and what it must have in common with one that was not."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from forked import ForkedJob
from same_run import first_difference, steps
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from igrpo_mcore.run.journal_file import read_file
from igrpo_mcore.run.kill_points import VARIABLE

ROOT = Path(__file__).parents[1]
QUICK = (
    *("parallel.tp=2", "parallel.pp=1", "parallel.sp=true", "rollout.tp=1", "train.prompts_per_step=4"),
    *("checkpoint.every=2", "run.tensorboard=false", "run.samples_per_step=0"),
)
"""Two ranks with an engine each, and few prompts: a start takes longer than its steps."""
SIMULATED = (
    *("parallel.tp=1", "parallel.sp=false", "reward.workers=1", "parity.mean_threshold=1e9"),
    *("parity.quantile_threshold=1e9", "rollout.max_completion_tokens=16", "run.hang_minutes=null"),
    "reward.weights={'tests.support.rewards:digit_share': 1.0, accuracy: 0.0, format: 0.0}",
)
"""With an engine that draws by itself the gate has nothing to compare, and rewards need some spread."""
ROUNDING = 2e-5
"""Nats; the gate's mean is about 1e-6 in float32."""


@dataclass
class Run:
    """``dir/name`` and everything that was ever in its journal (``archive``, hard links made as it runs)."""

    dir: Path
    name: str
    recipe: str
    overrides: tuple[str, ...] = ()
    forked: bool = False
    """Start ranks by ``forked.ForkedJob`` in place of `igrpo train`."""
    logs: list[Path] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.dir / self.name

    @property
    def archive(self) -> Path:
        return self.dir / f"{self.name}-journal"

    def start(self, kill_at: str = "") -> "subprocess.Popen | ForkedJob":
        """Start or go on with the run in a process group of its own."""
        self.logs.append(self.dir / f"{self.name}-{len(self.logs) + 1}.log")
        self.dir.mkdir(parents=True, exist_ok=True)
        place = (f"run.dir={self.dir}", f"run.name={self.name}")
        arguments = ["train", self.recipe, *QUICK, *self.overrides, *place]
        if self.forked:
            return ForkedJob(arguments, kill_at, self.logs[-1])
        with self.logs[-1].open("w") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "igrpo_mcore", *arguments],
                cwd=ROOT,
                env=os.environ | {VARIABLE: kill_at},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def until_it_ends(self, kill_at: str = "", timeout_s: float = 600.0) -> int:
        """A start's exit status; its process group is gone when this returns."""
        job, ended = self.start(kill_at), threading.Event()
        keeper = threading.Thread(target=self.keep_journal, args=(ended,))
        keeper.start()
        try:
            return job.wait(timeout_s)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(job.pid, signal.SIGKILL)
            ended.set()
            keeper.join()

    def keep_journal(self, ended: threading.Event) -> None:
        """Pruned files stay in ``archive``: a file only grows while it is there."""
        self.archive.mkdir(exist_ok=True)
        over = False
        while not over:
            over = ended.wait(0.05)
            for file in self.folder.glob("journal/*.journal"):
                with contextlib.suppress(FileExistsError, FileNotFoundError):
                    # a start after everything was pruned uses the first names again
                    os.link(file, self.archive / f"{file.stat().st_ino}-{file.name}")

    def sampled(self) -> Counter[tuple]:
        """How often the journal ever got each (step, stage, position, sample)."""
        records = (r.fields for path in sorted(self.archive.iterdir()) for _, r in read_file(path))
        return Counter(tuple(fields["sampled"]) for fields in records if "sampled" in fields)

    def said(self) -> str:
        """Output of the last start."""
        return self.logs[-1].read_text(errors="replace")

    def steps_done(self) -> int:
        return len(steps(str(self.folder))) if (self.folder / "metrics.jsonl").exists() else 0

    def checkpoint(self) -> Path:
        return max((self.folder / "checkpoints").glob("step_*"))


def found_in_journal(output: str) -> int:
    """Completions that a start went on with, as it says."""
    said = re.search(r"journal: (\d+) completions", output)
    return int(said[1]) if said else 0


def tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Parameters and optimizer state of a checkpoint, by Megatron's names, whole."""
    reader = dcp.FileSystemReader(checkpoint)
    known = reader.read_metadata().state_dict_metadata
    state = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in known.items()
        if isinstance(entry, TensorStorageMetadata)
    }
    dcp.load(state, storage_reader=reader, no_dist=True)
    return state


def different_weights(one: Path, other: Path) -> str | None:
    """The first tensor of two checkpoints that differs in a bit; None where none does."""
    left, right = tensors(one), tensors(other)
    if left.keys() != right.keys():
        return f"{min(left.keys() ^ right.keys())} is only in one"
    return next((name for name in left if not torch.equal(left[name], right[name])), None)


def different_steps(run: Run, undisturbed: Run, *, whole: bool = True) -> str | None:
    """The first field of metrics.jsonl that differs, in words. The engine rounds differently what is sampled
    beside fewer others, so ``parity/`` may differ by that."""
    return first_difference(str(run.folder), str(undisturbed.folder), whole=whole, rounding=ROUNDING)


def faults(run: Run, undisturbed: Run) -> list[str]:
    """Everything in which a finished run differs from ``undisturbed``; empty: nothing."""
    found = []
    if differs := different_steps(run, undisturbed):
        found.append(differs)
    if name := different_weights(run.checkpoint(), undisturbed.checkpoint()):
        found.append(f"{name} differs in {run.checkpoint().name}")
    lost, doubled = lost_and_doubled(run, undisturbed)
    if lost or doubled:
        found.append(f"{lost} completions lost, {doubled} doubled")
    return found


def lost_and_doubled(run: Run, undisturbed: Run) -> tuple[int, int]:
    """Completions that ``undisturbed`` sampled and ``run`` never kept, and those it sampled once more though
    they were kept: over all starts each is to be there exactly once."""
    expected, got = undisturbed.sampled(), run.sampled()
    return len(expected.keys() - got.keys()), sum(got.values()) - len(got)
