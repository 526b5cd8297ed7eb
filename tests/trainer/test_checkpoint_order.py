"""When a run begins, waits for and publishes its checkpoints, and what its journal then forgets."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from igrpo_mcore import trainer as trainer_module
from igrpo_mcore.config.schema import Config
from igrpo_mcore.policy.checkpoint_writer import Published
from igrpo_mcore.run.checkpoint_folder import Position
from igrpo_mcore.run.journal import NoJournal
from igrpo_mcore.run.phases import Phases
from igrpo_mcore.run.stop_signal import Stopped
from igrpo_mcore.trainer import Trainer
from tests.trainer.recording import NEVER_EVALUATED


class Journal(NoJournal):
    def __init__(self, events: list[str]) -> None:
        self.events = events

    def prune(self, before_step: int) -> None:
        self.events.append(f"prune {before_step}")


class Writer:
    """Writes in the background and is done when it is asked for the second time."""

    def __init__(self, events: list[str]) -> None:
        self.events, self.step, self.asked = events, 0, 0

    def begin(self, policy: object, position: Position, *, waits: bool) -> Published | None:
        earlier = self.finish()
        self.step, self.asked = position.step, 0
        self.events.append(f"begin {position.step}")
        return self.finish() if waits else earlier

    def poll(self) -> Published | None:
        self.asked += 1
        return self.finish() if self.asked == 2 else None

    def finish(self) -> Published | None:
        if not self.step:
            return None
        self.events.append(f"publish {self.step}")
        self.step = 0
        return Published(path=None, seconds=0.0)  # type: ignore[arg-type]


def events_of(monkeypatch, every: int, steps: int, stop_at: int | None = None) -> list[str]:
    events: list[str] = []
    config = Config()
    config.checkpoint.every, config.train.steps, config.run.name = every, steps, "r"
    trainer = Trainer.__new__(Trainer)
    trainer.config, trainer.phases, trainer.report = config, Phases(), None
    trainer.position, trainer.learner = Position(0, 0, 0), SimpleNamespace(policy=None)
    trainer.writer, trainer.pusher = Writer(events), SimpleNamespace(rank=0)
    trainer.checkpoints = SimpleNamespace(oldest_step=lambda: 7)
    trainer.held_out = NEVER_EVALUATED
    trainer.gpu = SimpleNamespace(saving=nullcontext, engine_ready=True)
    trainer.sampler = SimpleNamespace(
        journal=Journal(events),
        open_journal=lambda first: events.append(f"journal from {first}"),
        close=lambda: events.append("close"),
    )
    trainer.push = lambda: None

    def step(number: int) -> None:
        events.append(f"step {number}")
        trainer.position = Position(number, number, number)

    trainer.step = step
    monkeypatch.setattr(trainer_module, "is_main_rank", lambda: False)
    monkeypatch.setattr(
        trainer_module,
        "StopSignal",
        lambda: SimpleNamespace(on_any_rank=lambda: trainer.position.step == stop_at),
    )
    try:
        trainer.run()
    except Stopped as stopped:
        events.append(f"stopped {stopped.step}")
    return events


def test_one_is_published_when_it_is_written_and_the_last_is_waited_for(monkeypatch):
    assert events_of(monkeypatch, every=3, steps=7) == [
        *("journal from 1", "step 1", "step 2", "step 3", "begin 3"),
        *("step 4", "step 5", "publish 3", "prune 8"),
        *("step 6", "begin 6", "step 7", "publish 6", "prune 8", "begin 7", "publish 7", "prune 8", "close"),
    ]


def test_a_request_to_stop_waits_for_its_checkpoint(monkeypatch):
    assert events_of(monkeypatch, every=2, steps=9, stop_at=3) == [
        *("journal from 1", "step 1", "step 2", "begin 2", "step 3"),
        *("publish 2", "prune 8", "begin 3", "publish 3", "prune 8", "stopped 3"),
    ]


@pytest.mark.parametrize("stop_at", [None, 4])
def test_in_the_last_step_a_request_to_stop_changes_nothing(monkeypatch, stop_at):
    assert events_of(monkeypatch, every=0, steps=4, stop_at=stop_at)[-4:] == [
        "begin 4",
        "publish 4",
        "prune 8",
        "close",
    ]
