"""Evaluation on a schedule, by a sampler that answers what it is told: when, what, and which is the best."""

import json
from types import SimpleNamespace

import pytest

from igrpo_mcore.config.schema import Config, DataConfig, ModelConfig
from igrpo_mcore.evaluation.files import figures_path, read
from igrpo_mcore.evaluation.held_out import WHILE_TRAINING, HeldOut
from igrpo_mcore.evaluation.journal import Journal
from igrpo_mcore.run.checkpoint_folder import CheckpointFolder, Position
from igrpo_mcore.study.evaluations import right_by_problem
from igrpo_mcore.types import Completion, Group, Prompt, Score

LAYOUT = {"tp": 1, "pp": 1, "dp": 1}


class TellingSampler:
    """Answers the first ``right`` of 4 completions of every problem; keeps what it was asked."""

    def __init__(self) -> None:
        self.right, self.asked, self.resets = 0, [], 0
        self.engine = SimpleNamespace(reset_prefix_cache=self.reset)

    def reset(self) -> None:
        self.resets += 1

    def single_shot(self, problems, sampling, key, first=0):
        self.asked.append(([p.problem for p in problems], sampling, key, first))
        scores = tuple(Score(float(i < self.right), {"accuracy": float(i < self.right)}) for i in range(4))
        completions = (Completion((1, 2), (0.0, 0.0), "7", False),) * 4
        return [Group(Prompt(problem, ()), completions, scores) for problem in problems]


@pytest.fixture
def config(tmp_path) -> Config:
    file = tmp_path / "held.jsonl"
    file.write_text("".join(json.dumps({"problem": f"{i}+1", "answer": i + 1}) + "\n" for i in range(5)))
    found = Config(model=ModelConfig(path="m"), data=DataConfig(path="d"))
    found.eval.path, found.eval.every, found.eval.samples = str(file), 2, 4
    found.eval.batch_completions, found.eval.template = 8, "Say {problem}"
    found.train.steps = 5
    found.run.dir, found.run.name = str(tmp_path), "run"
    return found


def save(folder: CheckpointFolder, step: int) -> None:
    folder.begin(step)
    folder.publish(Position(step, 0, 0), LAYOUT)


def test_when_and_what(config, tmp_path):
    sampler = TellingSampler()
    held_out = HeldOut(config, sampler, CheckpointFolder(tmp_path / "checkpoints"))
    sampler.right = 3
    assert [step for step in range(1, 6) if held_out.evaluate(step)] == [2, 4, 5]
    first = sampler.asked[:3]  # 5 problems, 2 a batch of 8 completions
    assert [problems for problems, *_ in first] == [
        ["Say 0+1", "Say 1+1"],
        ["Say 2+1", "Say 3+1"],
        ["Say 4+1"],
    ]
    assert [start for *_, start in first] == [0, 2, 4]
    _, sampling, key, _ = first[0]
    assert (sampling.num_samples, sampling.temperature, sampling.top_p, key) == (4, 0.6, 0.95, "eval")
    assert sampler.resets == 3  # nothing of it is left in the engine for training
    found = held_out.evaluate(4)
    assert found["eval/accuracy"] == found["eval/accuracy_low"] == found["eval/accuracy_high"] == 0.75
    assert (found["eval/any_right"], found["eval/length_mean"]) == (1, 2)


def test_figures_and_completions_are_left_as_igrpo_eval_leaves_them(config, tmp_path):
    sampler = TellingSampler()
    held_out = HeldOut(config, sampler, CheckpointFolder(tmp_path / "checkpoints"))
    for sampler.right in (1, 3):  # the step is evaluated twice where a run resumes before it
        held_out.evaluate(2)
    path = figures_path(tmp_path / "run", "held_out", 2)
    assert read(path).accuracy == 0.75
    assert list(right_by_problem(tmp_path / "run", 2).values()) == [0.75] * 5
    # those of `igrpo eval` of the checkpoint are another evaluation: nothing is mixed, nothing thrown away
    assert Journal(path.with_suffix(".jsonl"), "fedcba").finished(2, 5) == []
    assert len(Journal(path.with_suffix(".jsonl"), WHILE_TRAINING).finished(2, 5)) == 5


def test_never_by_default(config, tmp_path):
    config.eval.every = 0
    config.eval.path = "missing.jsonl"  # not even read
    held_out = HeldOut(config, TellingSampler(), CheckpointFolder(tmp_path))
    assert all(held_out.evaluate(step) == {} for step in range(1, 6))


def run(config, folder: CheckpointFolder, rights: list[int], first: int = 1) -> list[int]:
    """Steps after which a checkpoint is written for being the best."""
    sampler, saved = TellingSampler(), []
    held_out = HeldOut(config, sampler, folder)
    for step, right in enumerate(rights, start=first):
        sampler.right = right
        held_out.evaluate(step)
        if held_out.improved:
            saved.append(step)
        if held_out.improved or step == config.train.steps:
            save(folder, step)
    return saved


def names(folder: CheckpointFolder) -> list[str]:
    return [path.name for path in folder.all()]


def test_the_best_is_kept_beside_the_newest(config, tmp_path):
    config.eval.every, config.train.steps = 1, 6
    folder = CheckpointFolder(tmp_path / "checkpoints", keep=1, keep_best=True)
    assert run(config, folder, [1, 3, 2, 3, 0, 2]) == [1, 2]
    assert names(folder) == ["step_000002", "step_000006"]
    assert folder.best() == folder.path(2)
    assert folder.accuracy(folder.path(2)) == 0.75
    assert folder.accuracy(folder.path(6)) == 0.5
    assert folder.latest() == folder.path(6)
    assert folder.read(folder.path(2))[0].step == 2


def test_a_run_that_goes_on_knows_its_best(config, tmp_path):
    config.eval.every, config.train.steps = 1, 4
    folder = CheckpointFolder(tmp_path / "checkpoints", keep=1, keep_best=True)
    run(config, folder, [1, 3])
    again = CheckpointFolder(tmp_path / "checkpoints", keep=1, keep_best=True)
    assert run(config, again, [2, 4], first=3) == [4]
    assert names(again) == ["step_000004"]


def test_without_keep_best_only_the_newest_stay(config, tmp_path):
    config.eval.every, config.train.steps, config.checkpoint.keep_best = 1, 3, False
    folder = CheckpointFolder(tmp_path / "checkpoints", keep=1)
    assert run(config, folder, [4, 1, 1]) == []
    assert names(folder) == ["step_000003"]
