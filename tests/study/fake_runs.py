"""Runs' folders as a trainer and `igrpo eval` leave them, of made-up numbers."""

import json
from collections.abc import Sequence
from pathlib import Path

from igrpo_mcore.config.load import to_yaml
from igrpo_mcore.config.schema import Config, Selection
from igrpo_mcore.run.checkpoint_folder import CheckpointFolder, Position

NASTY = '</pre><script>alert("hacked")</script> 5 < 6 & {{ 7 * 7 }}'


def config(selection: str = "best", seed: int = 0, steps: int = 10) -> Config:
    made = Config()
    made.model.path, made.data.path = "some/model", "set.jsonl"
    made.rollout.selection = Selection(selection)
    made.train.seed, made.train.steps = seed, steps
    return made


def write_run(
    folder: Path,
    options: Config,
    accuracy: Sequence[float],
    held_out: dict[str, list[float]] | None = None,
    text: str = NASTY,
) -> Path:
    """A run that has taken ``len(accuracy)`` steps; ``held_out`` are the accuracies of each problem's
    completions under its last policy."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(to_yaml(options))
    lines = [
        {
            "step": step,
            "drafts/accuracy": value,
            "drafts/reward_mean": 1 + value,
            "groups/zero_std_share": 0.25,
            "policy/entropy": 0.5 if step % 2 else None,
            "hacking/drafts_expression_share": 0.125,
            "time/step_s": 2.0,
        }
        for step, value in enumerate(accuracy, start=1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    completion = {
        "text": text,
        "reward": 1.0,
        "parts": {"accuracy": 1.0},
        "failures": [],
        "tokens": 9,
        "truncated": False,
    }
    sample = {
        "step": len(accuracy),
        "id": "p1",
        "problem": "<2+3>",
        "answer": "5",
        "stages": [
            {
                "name": "completions",
                "prompt": f"q {text}",
                "completions": [completion] * 2,
                "chosen": None,
                "overflowed": False,
            }
        ],
    }
    (folder / "samples.jsonl").write_text(json.dumps(sample) + "\n")
    if held_out is not None:
        write_evaluation(folder, len(accuracy), held_out)
    return folder


def write_evaluation(folder: Path, step: int, held_out: dict[str, list[float]]) -> None:
    (folder / "eval").mkdir(parents=True, exist_ok=True)
    lines = [
        {
            "id": name,
            "completions": [
                {"text": "", "reward": v + 1, "parts": {"accuracy": v, "format": 1.0}} for v in values
            ],
        }
        for name, values in held_out.items()
    ]
    (folder / f"eval/step_{step}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / f"eval/step_{step}.json").write_text("{}\n")


def write_checkpoint(folder: Path, step: int) -> None:
    checkpoints = CheckpointFolder(folder / "checkpoints")
    checkpoints.begin(step)
    checkpoints.publish(Position(step, step, step), {"tp": 1})
