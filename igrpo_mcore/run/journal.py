"""What a run sampled, kept as it is sampled, so that a killed run pays for no completion twice.

Every engine's first rank appends to a file of its own in ``runs/NAME/journal``; a start reads the files of
all earlier ones, whichever engine a position belonged to then. What is read back is what was sampled: token
ids, the bits of the log-probs, text and score. docs/reliability.md says why a resumed run may train on it.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from igrpo_mcore.collective import gather_objects
from igrpo_mcore.errors import UserError
from igrpo_mcore.run.journal_file import (
    JournalFile,
    Place,
    Record,
    completion_of,
    completion_record,
    read_at,
    read_file,
)
from igrpo_mcore.run.kill_points import kill_point
from igrpo_mcore.types import Completion, SampleKey, Score


class Choice(NamedTuple):
    """The sample that conditions the next stage, and those that it was chosen among: all of the stage's, but
    for what ``rollout.draft_early_exit`` ended."""

    sample: int
    group: tuple[int, ...]


class NoJournal:
    """Keeps nothing and knows nothing: ``run.journal=false``, and everything that is no training run."""

    note = ""
    """What there is to say of it when a run starts; empty: nothing."""

    def sampled(self, key: SampleKey) -> Completion | None:
        """What an earlier start sampled there. The same on every rank, and unchanged by ``keep_sampled``."""
        return None

    def score(self, key: SampleKey) -> Score | None:
        """What an earlier start scored it."""
        return None

    def choice(self, step: int, stage: str, position: int) -> Choice | None:
        """What an earlier start chose to condition the next stage; every sample of its group is there with
        its score."""
        return None

    def keep_sampled(self, key: SampleKey, completion: Completion) -> None:
        """Call when the completion is whole. Every rank may call; one of an engine writes. What is there from
        an earlier start is not written again."""

    def keep_score(self, key: SampleKey, score: Score) -> None: ...

    def keep_choice(self, step: int, stage: str, position: int, choice: Choice) -> None: ...

    def sync(self) -> None:
        """At the end of a step: what was kept outlives the machine."""

    def prune(self, before_step: int) -> None:
        """Forget steps before ``before_step``: the oldest checkpoint that may be loaded is after them."""

    def close(self) -> None: ...


class Journal(NoJournal):
    """One rank's view of ``folder``. Making it is a collective.

    Args:
        folder: ``runs/NAME/journal``; need not exist.
        belongs_to: what samples depend on (``igrpo_mcore.run.journal_origin``), as texts by name. Files of
            another configuration are left alone, and ``note`` says what differs.
        first_step: the step that the run begins or goes on with; earlier ones are not asked for.
        rank: this process's.
        writes: whether it is the first rank of its engine.

    Raises:
        UserError: the folder cannot be read or written; ``keep_*`` and ``sync`` too.
    """

    def __init__(
        self,
        folder: Path,
        belongs_to: Mapping[str, str],
        *,
        first_step: int = 1,
        rank: int = 0,
        writes: bool = True,
    ) -> None:
        self._folder, self._belongs_to = folder, dict(belongs_to)
        self._first_step, self._rank, self._writes = first_step, rank, writes
        self._places: dict[SampleKey, Place] = {}
        self._scores: dict[SampleKey, Score] = {}
        self._choices: dict[tuple[int, str, int], Choice] = {}
        self._last_step: dict[Path, int] = {}
        self._open: dict[Path, BinaryIO] = {}
        self._own: list[JournalFile] = []
        self._current: JournalFile | None = None
        self._segment = 0
        found = self._read_earlier()
        everyone = gather_objects((found, self._digest()))
        if len({digest for _, digest in everyone}) > 1:
            self._forget_all()
            self.note = (
                f"journal: the ranks see different files in {folder}, so completions of earlier starts are "
                "sampled again; put run.dir on a file system that all nodes share"
            )
        self._start = 1 + max(start for start, _ in everyone)

    # ---- asked -----------------------------------------------------------------------------------

    def sampled(self, key: SampleKey) -> Completion | None:
        place = self._places.get(key)
        if place is None:
            return None
        try:
            file = self._open.get(place.path) or self._open.setdefault(place.path, place.path.open("rb"))
            record = read_at(file, place)
        except OSError as error:
            raise _cannot_read(place.path, str(error)) from error
        if record is None:
            raise _cannot_read(place.path, "it changed since the start")
        return completion_of(record)

    def score(self, key: SampleKey) -> Score | None:
        return self._scores.get(key)

    def choice(self, step: int, stage: str, position: int) -> Choice | None:
        return self._choices.get((step, stage, position))

    # ---- told ------------------------------------------------------------------------------------

    def keep_sampled(self, key: SampleKey, completion: Completion) -> None:
        if key not in self._places:
            self._append(key.step, lambda: completion_record({"sampled": key}, completion))
        kill_point(f"sampled_{key.stage}", key.step)

    def keep_score(self, key: SampleKey, score: Score) -> None:
        if key not in self._scores:
            self._append(key.step, lambda: Record({"scored": key, "score": asdict(score)}))
        kill_point(f"scored_{key.stage}", key.step)

    def keep_choice(self, step: int, stage: str, position: int, choice: Choice) -> None:
        if (step, stage, position) not in self._choices:
            self._append(step, lambda: Record({"chosen": (step, stage, position), **choice._asdict()}))

    def sync(self) -> None:
        if self._current is not None:
            self._current.sync()

    def prune(self, before_step: int) -> None:
        # whole files go, nothing is rewritten: from here on there is a new one
        if self._current is not None:
            self._current.close()
            self._own.append(self._current)
            self._current = None
        for file in [file for file in self._own if file.last_step < before_step]:
            self._own.remove(file)
            file.path.unlink(missing_ok=True)
        for path in [path for path, last in self._last_step.items() if last < before_step]:
            del self._last_step[path]
            if path in self._open:
                self._open.pop(path).close()
            if self._rank == 0:
                path.unlink(missing_ok=True)
        known: tuple[dict[Any, Any], ...] = (self._places, self._scores, self._choices)
        for kept in known:
            for key in [key for key in kept if key[0] < before_step]:
                del kept[key]

    def close(self) -> None:
        for file in self._open.values():
            file.close()
        self._open.clear()
        if self._current is not None:
            self._current.sync()
            self._current.close()
            self._current = None

    # ---- files -----------------------------------------------------------------------------------

    def _append(self, step: int, record: Any) -> None:
        if not self._writes:
            return
        if self._current is None:
            self._segment += 1
            name = f"{self._start:04d}-{self._segment:04d}-rank{self._rank:04d}.journal"
            self._current = JournalFile(self._folder / name)
            self._current.append(Record({"belongs_to": self._belongs_to}))
        self._current.append(record())
        self._current.last_step = max(self._current.last_step, step)

    def _read_earlier(self) -> int:
        """Read every file; the number of the last start that wrote one, 0 where there is none."""
        last_start, torn, differs = 0, 0, ""
        try:
            paths = sorted(self._folder.glob("*-rank*.journal"))
            for path in paths:
                last_start = max(last_start, int(path.name.partition("-")[0]))
                records = read_file(path)
                start, first = next(records, (None, Record({})))
                self._last_step[path] = 0
                if "belongs_to" in first.fields and first.fields["belongs_to"] != self._belongs_to:
                    differs = _difference(first.fields["belongs_to"], self._belongs_to)
                    continue
                end = start.offset + start.length if start else 0
                for place, record in records:
                    self._take(place, record)
                    end = place.offset + place.length
                torn += 0 < end < path.stat().st_size
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _cannot_read(self._folder, str(error)) from error
        said = []
        if self._places:
            steps = sorted({key.step for key in self._places})
            said.append(f"{len(self._places)} completions of steps {steps[0]} to {steps[-1]} are there")
        if torn:
            said.append(f"what a killed job left half written in {torn} files is cut off")
        if differs:
            said.append(f"completions sampled under another {differs} are not used")
        self.note = "journal: " + "; ".join(said) if said else ""
        return last_start

    def _take(self, place: Place, record: Record) -> None:
        fields = record.fields
        step = step_of(record)
        self._last_step[place.path] = max(self._last_step[place.path], step)
        if step < self._first_step:
            return
        if "sampled" in fields:
            self._places.setdefault(SampleKey(*fields["sampled"]), place)
        elif "scored" in fields:
            self._scores.setdefault(SampleKey(*fields["scored"]), score_of(fields))
        else:
            self._choices.setdefault(
                tuple(fields["chosen"]), Choice(fields["sample"], tuple(fields["group"]))
            )

    def _digest(self) -> str:
        known = [sorted(self._places), sorted(self._scores.items(), key=lambda item: item[0])]
        return hashlib.blake2b(repr([*known, sorted(self._choices.items())]).encode()).hexdigest()

    def _forget_all(self) -> None:
        self._places.clear()
        self._scores.clear()
        self._choices.clear()


def step_of(record: Record) -> int:
    """The step that a record other than a file's first is of."""
    return next(record.fields[kind] for kind in ("sampled", "scored", "chosen") if kind in record.fields)[0]


def score_of(fields: Mapping[str, Any]) -> Score:
    """The score in a record's fields."""
    kept: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in fields["score"].items()}
    return Score(**kept)


def _difference(theirs: Mapping[str, str], ours: Mapping[str, str]) -> str:
    names = sorted({*theirs, *ours})
    name = next(name for name in names if theirs.get(name) != ours.get(name))
    return f"{name} ({theirs.get(name, 'unset')}, now {ours.get(name, 'unset')})"


def _cannot_read(path: Path, why: str) -> UserError:
    return UserError(
        f"{path} cannot be read ({why}): remove the run's journal folder to sample again, or restore it"
    )
