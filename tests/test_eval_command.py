"""``igrpo eval`` as a user types it: its figures are those of the completions that it wrote."""

import json
from pathlib import Path

import pytest

from igrpo_mcore.cli import chosen_step
from igrpo_mcore.errors import UserError
from igrpo_mcore.evaluate import Request, run_eval
from tests.support.checkpoints import make_checkpoint
from tests.support.ranks import igrpo

PROBLEMS, SAMPLES, STEPS = 6, 60, 3
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
        f"eval: {{path: {root}/test.jsonl, problems: {PROBLEMS}, samples: {SAMPLES}, temperature: 1.0,\n"
        "  batch_completions: 120}\n"
        f"optimizer: {{lr: 1.0e-2}}\ntrain: {{steps: {STEPS}, prompts_per_step: 4}}\n"
        "checkpoint: {every: 1, keep: 1}\n"
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


def untimed(folder: Path) -> list[dict]:
    """The steps of metrics.jsonl without timings, and without what evaluating adds."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    left_out = ("time/", "tokens_per_s/", "memory/", "eval/")
    return [{k: v for k, v in step.items() if not k.startswith(left_out)} for step in lines]


@pytest.mark.slow
def test_a_recipe_and_a_run_that_evaluates_itself(recipe):
    runs = recipe.parent / "runs"
    status, output = igrpo("eval", recipe, REWARD, "run.name=tried")
    assert status == 0, output[-4000:]
    before = figures(runs / "tried-start" / "eval", 0)
    assert 0 < before["accuracy"] < 1

    for name, every in (("tried", 1), ("plain", 0)):
        status, output = igrpo("train", recipe, REWARD, f"run.name={name}", f"eval.every={every}")
        assert status == 0, output[-4000:]
    assert untimed(runs / "tried") == untimed(runs / "plain")

    lines = [json.loads(line) for line in (runs / "tried" / "metrics.jsonl").read_text().splitlines()]
    accuracies = [line["eval/accuracy"] for line in lines]
    best = accuracies.index(max(accuracies)) + 1
    kept = {path.name for path in (runs / "tried" / "checkpoints").iterdir()}
    assert kept == {f"step_{best:06d}", f"step_{STEPS:06d}"}
    assert "Held-out accuracy" in (runs / "tried" / "report.html").read_text()

    earlier = runs / "tried-start" / "eval" / "step_0.json"
    command = ("eval", runs / "tried", "--step", "best", "--against", earlier)
    status, output = igrpo(*command)
    assert status == 0, output[-4000:]
    after = figures(runs / "tried" / "eval", best)
    line = lines[best - 1]
    assert (after["accuracy"], after["low"], after["high"]) == (
        *(line["eval/accuracy"], line["eval/accuracy_low"], line["eval/accuracy_high"]),
    )
    assert f"gain     {after['accuracy'] - before['accuracy']:+.3f}" in output
    texts = [
        (folder / "eval" / f"step_{n}.jsonl")
        for folder, n in ((runs / "tried", best), (earlier.parents[1], 0))
    ]
    assert texts[0].read_text() != texts[1].read_text()  # two policies

    # killed in the middle of the second batch of two problems: the first is not sampled again
    whole = texts[0].read_bytes()
    torn = b"".join(whole.splitlines(keepends=True)[:3]) + b'{"id": "4", "pro'
    texts[0].write_bytes(torn)
    (runs / "tried" / "eval" / f"step_{best}.json").unlink()
    status, output = igrpo(*command)
    assert status == 0, output[-4000:]
    assert "2 of 6 problems are there already" in output
    assert texts[0].read_bytes() == whole
    assert figures(runs / "tried" / "eval", best) == after


def test_what_is_refused_before_ranks_start(recipe, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(recipe.read_text())
    for source, overrides, request, said in (
        (recipe, [], Request(step=3), "--step 3 asks for a run's checkpoint"),
        (tmp_path / "run", [], Request(step="best"), "which eval.every=N does"),
        (recipe, ["eval.path=null"], Request(), "set eval.path"),
        (recipe, [], Request(("aime",)), "did you mean aime25"),
        (recipe, ["eval.template=problem"], Request(), "lacks {problem}"),
        (recipe.parent / "checkpoint", [], Request(), "give `igrpo eval` a --suite"),
        (recipe.parent, [], Request(), "no Hugging Face folder"),
        (recipe, [], Request(against=recipe), "is no evaluation"),
        (recipe, [], Request(against=tmp_path / "none.json"), "there is no such file"),
    ):
        with pytest.raises(UserError) as caught:
            run_eval(source, overrides, request)
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="neither a number nor best"):
        chosen_step("newest")


def test_a_refusal_is_one_sentence_with_status_2(tmp_path):
    (tmp_path / "config.yaml").write_text("model: {path: m}\ndata: {path: d}\n")
    status, output = igrpo("eval", tmp_path)
    assert status == 2
    assert "holds no checkpoint" in output
    assert "Traceback" not in output
