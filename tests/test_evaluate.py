"""``igrpo eval`` from the command's own function to its files, by a sampler that answers what it is told."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from igrpo_mcore import evaluate as command
from igrpo_mcore.config.load import load_config
from igrpo_mcore.evaluate import Request, evaluate, judged_by_accuracy
from igrpo_mcore.evaluation.files import read
from igrpo_mcore.evaluation.problems import problem_sets
from igrpo_mcore.rewards.accuracy import accuracy_reward
from igrpo_mcore.rewards.options import options_of
from igrpo_mcore.target import Target
from igrpo_mcore.types import Completion, Group, Prompt, Score

PROBLEMS = 5
ANSWERS = ("3", "0.5", "\\frac{1}{2}", None)
"""Of each problem's four completions: 0.5 has the majority."""


class ScriptedSampler:
    """Stops after ``batches`` batches as a killed job does."""

    def __init__(self, config, batches: int | None = None) -> None:
        self.reward_options = options_of(config.reward)
        self.left, self.firsts, self.closed = batches, [], False

    def single_shot(self, problems, sampling, key, first=0):
        assert sampling.num_samples == len(ANSWERS)
        if self.left == 0:
            raise KeyboardInterrupt
        self.left = None if self.left is None else self.left - 1
        self.firsts.append((key, first))
        return [self.group(problem) for problem in problems]

    def group(self, problem) -> Group:
        texts = ["hm" if answer is None else f"\\boxed{{{answer}}}" for answer in ANSWERS]
        completions = tuple(Completion((7, 8), (-0.5, -0.25), text, False) for text in texts)
        right = [
            accuracy_reward(problem, completion, options=self.reward_options) for completion in completions
        ]
        return Group(Prompt(problem, (1,)), completions, tuple(Score(r, {"accuracy": r}) for r in right))

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def target(tmp_path, monkeypatch) -> Target:
    monkeypatch.delenv("RANK", raising=False)
    (tmp_path / "weights").mkdir()
    rows = [{"problem": f"Problem {i}", "answer": "1/2" if i < 3 else "3", "id": i} for i in range(PROBLEMS)]
    (tmp_path / "aime.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "recipe.yaml").write_text(
        f"model: {{path: {tmp_path}/weights}}\ndata: {{path: d}}\n"
        "reward: {accuracy_from: boxed, workers: 1, weights: {'my:own': 1.0}}\n"
        f"eval: {{path: {tmp_path}/aime.jsonl, batch_completions: 8, samples: 4}}\n"
        f"run: {{dir: {tmp_path}/runs, name: r}}\n"
    )
    return Target(load_config(tmp_path / "recipe.yaml"), None, 6)


def run(
    monkeypatch, target: Target, suites: tuple[str, ...], batches: int | None = None, votes=False, **options
):
    sampler = ScriptedSampler(target.config, batches)
    monkeypatch.setattr(command, "start_sampler", lambda *_: sampler)
    if not votes:  # counted in processes that take seconds to start
        monkeypatch.setattr(command, "winners", lambda answered, *_: [1] * len(answered))
    sets = problem_sets(target.config, suites, samples=4)
    evaluate(target, sets, Request(suites, **options))
    return sampler


def folder(target: Target) -> Path:
    return Path(target.config.run.dir) / "r" / "eval"


def test_a_suite(monkeypatch, target, tmp_path, capsys):
    suite = f"aime24={tmp_path}/aime.jsonl"
    sampler = run(monkeypatch, target, (suite,), show=2, votes=True)
    assert sampler.firsts == [("eval/aime24", 0), ("eval/aime24", 2), ("eval/aime24", 4)]
    assert sampler.closed
    found = read(folder(target) / "aime24" / "step_6.json")
    assert found.accuracy == pytest.approx((3 * 2 / 4 + 2 * 1 / 4) / 5)
    assert found.majority is not None
    assert found.majority.value == pytest.approx(3 / 5)  # 0.5 wins everywhere and is right for three
    assert found.pass_at["2"].value == pytest.approx((3 * 5 / 6 + 2 * 1 / 2) / 5)
    assert found.any_right == 1
    said = capsys.readouterr().out
    assert "Problem 1" in said
    assert "Problem 2" not in said
    assert "2 of 5 problems" in said
    assert str(found) in said


def test_a_killed_evaluation_goes_on_with_the_same_figures(monkeypatch, target, tmp_path, capsys):
    whole = run(monkeypatch, target, ())
    assert whole.firsts == [("eval", 0), ("eval", 2), ("eval", 4)]
    path = folder(target) / "step_6.json"
    first, lines = path.read_bytes(), path.with_suffix(".jsonl").read_bytes()
    for file in folder(target).iterdir():
        file.unlink()
    with pytest.raises(KeyboardInterrupt):
        run(monkeypatch, target, (), batches=2)
    assert not path.exists()
    assert run(monkeypatch, target, ()).firsts == [("eval", 4)]
    assert "4 of 5 problems are there already" in capsys.readouterr().out
    assert (path.read_bytes(), path.with_suffix(".jsonl").read_bytes()) == (first, lines)
    assert run(monkeypatch, target, ()).firsts == []  # all is there: figures anew, nothing sampled
    assert path.read_bytes() == first


def test_another_seed_is_another_evaluation(monkeypatch, target):
    run(monkeypatch, target, ())
    target.config.train.seed = 1
    assert len(run(monkeypatch, target, ()).firsts) == 3
    target.config.train.seed = 0
    assert run(monkeypatch, target, ()).firsts == []


def test_several_suites_share_a_table_and_a_plot(monkeypatch, target, tmp_path, capsys):
    suites = (f"aime24={tmp_path}/aime.jsonl", f"{tmp_path}/aime.jsonl")
    run(monkeypatch, target, suites)
    table = (folder(target) / "suites_step_6.md").read_text()
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:]] == ["aime24", "aime"]
    assert (folder(target) / "suites_step_6.png").stat().st_size > 1000
    assert table in capsys.readouterr().out


def test_tokens_are_kept_when_asked_for(monkeypatch, target):
    target.config.eval.keep_tokens = True
    run(monkeypatch, target, ())
    line = json.loads((folder(target) / "step_6.jsonl").read_text().splitlines()[0])
    assert line["prompt_token_ids"] == [1]
    assert line["completions"][0]["token_ids"] == [7, 8]
    assert line["completions"][0]["logprobs"] == [-0.5, -0.25]


def test_earlier_figures_stand_beside(monkeypatch, target, tmp_path, capsys):
    run(monkeypatch, target, ())
    earlier = folder(target) / "step_6.json"
    run(monkeypatch, target, (), against=earlier)
    assert "gain     +0.000" in capsys.readouterr().out


def test_who_judges(target):
    judged_by_accuracy(target.config, ("mine.jsonl", "reasoning_gym:gcd"))
    assert "my:own" in target.config.reward.weights
    judged_by_accuracy(target.config, ("mine.jsonl,math500",))
    assert target.config.reward.weights == {"accuracy": 1.0, "format": 1.0}


def test_the_ranks_are_asked_for_the_same():
    request = Request(("aime24,amc23", "x=y.jsonl"), 4, None, Path("a.json"), 0, "best")
    assert request.arguments() == [
        *("--suite", "aime24,amc23", "--suite", "x=y.jsonl"),
        *("--samples", "4", "--against", "a.json", "--show", "0", "--step", "best"),
    ]


def test_a_job_checks_once(monkeypatch, target, tmp_path):
    """Under torchrun rank 0 checks; ranks that the command started itself have been checked."""
    checked = []
    monkeypatch.setattr(command, "check", lambda config, ranks, sets: checked.append(ranks))
    monkeypatch.setattr(command, "evaluate", lambda *_: None)
    recipe = tmp_path / "recipe.yaml"
    for rank, done, expected in (("0", "", [4]), ("1", "", []), ("0", "1", [])):
        monkeypatch.setattr(command, "os", SimpleNamespace(environ={}))
        environment = {"RANK": rank, "WORLD_SIZE": "4", command.CHECKED: done}
        command.os.environ.update(environment)
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", "4")
        assert command.run_eval(recipe, None, Request()) == 0
        assert checked == expected
        checked.clear()
