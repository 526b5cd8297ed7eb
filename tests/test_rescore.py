"""A run's kept samples under today's accuracy reward, looked for where that run looked."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from igrpo_mcore.cli import app
from igrpo_mcore.config.reward_choices import AccuracyFrom
from igrpo_mcore.errors import UserError
from igrpo_mcore.rescore import rescored, summary

PROMPT = "<|user|>What is 3 + 4?<|assistant|>"


def make_run(folder: Path, texts: list[str], option: str = "anywhere", prompt: str = PROMPT) -> Path:
    """A run whose steps kept one completion each, of drafts and refinements by turns, all rewarded then."""
    folder.mkdir()
    (folder / "config.yaml").write_text(
        f"model: {{path: m}}\nreward: {{accuracy_from: {option}}}\ndata: {{path: d.jsonl}}\n"
    )
    lines = []
    for step, text in enumerate(texts, start=1):
        sample = {"text": text, "reward": 1.0, "parts": {"accuracy": 1.0, "format": 0.0}, "truncated": False}
        stages = [{"name": "drafts", "prompt": prompt, "completions": [sample] * (step % 2)}]
        stages += [{"name": "refinements", "prompt": prompt, "completions": [sample] * (1 - step % 2)}]
        record = {"step": step, "id": "7", "problem": "What is 3 + 4?", "answer": "7", "stages": stages}
        lines.append(json.dumps(record))
    (folder / "samples.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def now(*arguments) -> list[float]:
    return [one.now for one in rescored(*arguments)]


def test_answers_are_looked_for_where_the_run_looked_unless_said_otherwise(tmp_path):
    texts = ["It is 7.", "<answer>7</answer>", "It is \\boxed{7}.", "It is 8.", "3 + 4"]
    run = make_run(tmp_path / "run", texts)
    assert now(run) == [1, 1, 1, 0, 0]
    assert now(run, AccuracyFrom.answer_tag) == [0, 1, 0, 0, 0]
    assert now(run, AccuracyFrom.boxed) == [0, 0, 1, 0, 0]
    assert now(make_run(tmp_path / "boxed", texts, "boxed")) == [0, 0, 1, 0, 0]


def test_a_completion_that_began_inside_the_thinking_is_read_as_such(tmp_path):
    texts = ["It is 7.", "It is 8.</think>It is 7.", "It is 7.</think>It is 8."]
    opened = make_run(tmp_path / "opened", texts, prompt=PROMPT + "<think>\n")
    assert now(opened) == [0, 1, 0]
    assert now(make_run(tmp_path / "plain", texts))[0] == 1


def test_what_changed_is_said_by_fifths_of_the_steps(tmp_path):
    run = make_run(tmp_path / "run", ["7"] * 4 + ["3 + 4"] + ["7"] * 4 + ["It is 8."])
    text = summary(run, rescored(run))
    assert text.splitlines()[:4] == [
        f"{run}: 10 completions of 10 steps",
        "  first fifth  accuracy then 1.0000, now 1.0000",
        "  last fifth   accuracy then 1.0000, now 0.5000",
        "  2 completions are scored differently now",
    ]
    assert "step 5: 1 -> 0  'What is 3 + 4?' [7]  '3 + 4'" in text
    said = CliRunner().invoke(app, ["rescore", str(run)])
    assert (said.exit_code, said.output) == (0, text + "\n")


def test_refusals(tmp_path):
    with pytest.raises(UserError, match=r"absent is no run's folder: it has no config.yaml"):
        rescored(tmp_path / "absent")
    with pytest.raises(UserError, match=r"holds no completion with an accuracy; set run\.samples"):
        rescored(make_run(tmp_path / "empty", []))
