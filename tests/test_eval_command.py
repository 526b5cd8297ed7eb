"""``igrpo eval`` as a user types it: its figures are those of the completions that it wrote."""

import json
from pathlib import Path

import pytest

from tests.support.checkpoints import make_checkpoint
from tests.support.ranks import igrpo

PROBLEMS, SAMPLES = 6, 60
ANSWER = 7
"""Of every held-out problem; a random model writes it now and then."""
REWARD = "reward.weights={'tests.support.rewards:digit_share': 0.25, accuracy: 1.0, format: 0.0}"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("eval")
    make_checkpoint(root / "checkpoint", "llama", layers=2, tie_word_embeddings=True)
    for name, first in (("train", 10), ("test", 50)):
        lines = [
            json.dumps({"problem": f"{i}-{i - ANSWER}=", "answer": str(ANSWER)})
            for i in range(first, first + 8)
        ]
        (root / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    path = root / "recipe.yaml"
    path.write_text(
        f"model: {{path: {root}/checkpoint, dtype: float32}}\ndata: {{path: {root}/train.jsonl}}\n"
        "parallel: {dp: 2}\nreward: {accuracy_from: anywhere}\n"
        "rollout: {num_drafts: 2, num_refinements: 2, max_prompt_tokens: 64, max_completion_tokens: 3}\n"
        f"eval: {{path: {root}/test.jsonl, problems: {PROBLEMS}, samples: {SAMPLES}, temperature: 1.0}}\n"
        "optimizer: {lr: 1.0e-2}\ntrain: {steps: 2, prompts_per_step: 4}\ncheckpoint: {every: 1, keep: 2}\n"
        f"run: {{dir: {root}/runs, tensorboard: false}}\n"
    )
    return path


def figures(folder: Path, step: int) -> dict:
    """The written figures, after each is counted from the written completions."""
    found = json.loads((folder / f"step_{step}.json").read_text())
    lines = [json.loads(line) for line in (folder / f"step_{step}.jsonl").read_text().splitlines()]
    assert [line["problem"] for line in lines] == [f"{i}-{i - ANSWER}=" for i in range(50, 50 + PROBLEMS)]
    assert all(len(line["completions"]) == SAMPLES for line in lines)
    each = [completion for line in lines for completion in line["completions"]]
    for completion in each:
        text = completion["text"]
        share = sum(character.isdigit() for character in text) / len(text) if text else 0.0
        assert completion["reward"] == pytest.approx(0.25 * share + completion["parts"]["accuracy"])
        assert completion["parts"]["accuracy"] == 0 or str(ANSWER) in text
    right = [[completion["parts"]["accuracy"] == 1 for completion in line["completions"]] for line in lines]
    count = PROBLEMS * SAMPLES
    assert found["accuracy"] == pytest.approx(sum(map(sum, right)) / count)
    assert found["any_right"] == pytest.approx(sum(map(any, right)) / PROBLEMS)
    assert found["reward"] == pytest.approx(sum(completion["reward"] for completion in each) / count)
    assert found["low"] <= found["accuracy"] <= found["high"]
    assert (found["step"], found["problems"], found["samples"]) == (step, PROBLEMS, SAMPLES)
    return found


@pytest.mark.slow
def test_a_recipe_and_the_checkpoints_of_its_run(recipe):
    runs = recipe.parent / "runs"
    status, output = igrpo("eval", recipe, REWARD, "run.name=tried")
    assert status == 0, output[-4000:]
    before = figures(runs / "tried-start" / "eval", 0)
    assert 0 < before["accuracy"] < 1

    status, output = igrpo("train", recipe, REWARD, "run.name=tried")
    assert status == 0, output[-4000:]
    earlier = runs / "tried-start" / "eval" / "step_0.json"
    texts = set()
    for step, options in ((2, ["--against", earlier]), (1, ["--step", 1])):
        status, output = igrpo("eval", runs / "tried", *options)
        assert status == 0, output[-4000:]
        after = figures(runs / "tried" / "eval", step)
        texts.add((runs / "tried" / "eval" / f"step_{step}.jsonl").read_text())
        if step == 2:
            gain = after["accuracy"] - before["accuracy"]
            assert f"gain     {gain:+.3f}" in output
    assert len(texts) == 2  # two checkpoints, two policies


def test_what_is_refused_before_ranks_start(recipe, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(recipe.read_text())
    for arguments, said in (
        ((recipe, "--step", "3"), "--step 3 asks for a run's checkpoint"),
        ((tmp_path / "run",), "holds no checkpoint"),
        ((recipe, "eval.path=null"), "set eval.path"),
    ):
        status, output = igrpo("eval", *arguments)
        assert status == 2
        assert said in output
        assert "Traceback" not in output
