"""The sinks of a step's numbers, read back by other programs' readers."""

import json
import math
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from igrpo_mcore.config.schema import RunConfig
from igrpo_mcore.errors import UserError
from igrpo_mcore.report.metrics import MetricsWriter
from igrpo_mcore.report.records import JsonLines, read_metrics
from igrpo_mcore.report.samples import SamplesWriter
from tests.support.rollouts import random_rollouts

QUIET = RunConfig(name="r", tensorboard=False)


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """Writes past ``size`` bytes of a file fail with EFBIG, as they do with ENOSPC on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_each_step_is_one_flushed_json_object(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path, QUIET, {})
    writer.write({"step": 1, "policy/kl": None, "policy/grad_norm": 0.5})
    writer.write({"policy/grad_norm": math.nan, "policy/kl": math.inf, "step": 2.0})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line, parse_constant=pytest.fail) for line in lines] == [
        {"step": 1, "policy/kl": None, "policy/grad_norm": 0.5},
        {"step": 2, "policy/grad_norm": None, "policy/kl": None},
    ]
    assert next(iter(json.loads(lines[1]))) == "step"
    writer.close()


def test_resuming_replaces_the_steps_after_the_checkpoint(tmp_path: Path) -> None:
    for first, last in ((1, 5), (4, 6)):
        writer = MetricsWriter(tmp_path, QUIET, {}, first_step=first)
        for step in range(first, last + 1):
            writer.write({"step": step, "start": first})
        writer.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "sta')  # the crash came in the middle of a line
    expected = [(1, 1), (2, 1), (3, 1), (4, 4), (5, 4), (6, 4)]
    assert [(record["step"], record["start"]) for record in read_metrics(tmp_path)] == expected


def test_tensorboard_reads_what_was_measured(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    writer = MetricsWriter(tmp_path, RunConfig(name="r"), {})
    for step in (1, 2):
        writer.write({"step": step, "policy/entropy": step / 4, "policy/kl": None})
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("policy/entropy")] == [(1, 0.25), (2, 0.5)]
    assert events.Tags()["scalars"] == ["policy/entropy"]
    writer.close()


def test_wandb_keeps_an_offline_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    config = RunConfig(name="group/r", tensorboard=False, wandb_project="p")
    writer = MetricsWriter(tmp_path, config, {"train": {"steps": 2}})
    writer.write({"step": 1, "policy/entropy": 0.25, "policy/kl": None})
    writer.close()
    (log,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert b"policy/entropy" in log.read_bytes()


def test_wandb_without_a_login_is_the_users_to_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """wandb keeps its first mode for the whole process, so its refusal is raised by hand here."""
    import wandb

    def refuse(**_: object) -> None:
        raise wandb.errors.UsageError("No API key configured")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(UserError, match="wandb login"):
        MetricsWriter(tmp_path, RunConfig(name="r", tensorboard=False, wandb_project="p"), {})


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "metrics.jsonl", 1)
    with files_limited_to(40):
        lines.append({"step": 1})
        with pytest.raises(UserError, match=r"metrics\.jsonl cannot be written \(.+\): free space"):
            lines.append({"step": 2, "text": "x" * 100})
        with pytest.raises(UserError, match=r"metrics\.jsonl cannot be written"):
            lines.close()
    assert read_metrics(tmp_path) == [{"step": 1}]


def test_samples_hold_everything_of_the_first_prompts(tmp_path: Path) -> None:
    writer = SamplesWriter(tmp_path, 2, decode=lambda ids: f"{len(ids)} tokens")
    rollouts = random_rollouts(0)
    writer.write(3, rollouts)
    writer.write(4, random_rollouts(1, two_stage=False))
    writer.close()
    records = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [3, 3, 4, 4]
    first = records[0]
    assert (first["id"], first["problem"], first["answer"]) == ("p1", "What is <2+3>?", "5")
    assert [(s["name"], s["prompt"], s["chosen"]) for s in first["stages"]] == [
        ("drafts", "3 tokens", 2),
        ("refinements", "7 tokens", None),
    ]
    for written, stage in zip(first["stages"], rollouts[0].stages, strict=True):
        assert written["overflowed"] == stage.overflowed
        assert [c["reward"] for c in written["completions"]] == stage.group.rewards
        assert [c["parts"] for c in written["completions"]] == [score.parts for score in stage.group.scores]
        assert [c["truncated"] for c in written["completions"]] == [
            completion.truncated for completion in stage.group.completions
        ]
    (plain,) = records[2]["stages"]
    assert (plain["name"], plain["chosen"], len(plain["completions"])) == ("completions", None, 8)
