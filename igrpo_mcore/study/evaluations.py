"""What ``igrpo eval`` left of a policy, problem by problem."""

import json
from pathlib import Path
from statistics import fmean

from igrpo_mcore.report.draft_metrics import is_right
from igrpo_mcore.types import Score

EVAL_FOLDER = "eval"


def evaluation_file(run_dir: Path, step: int) -> Path:
    """The figures of a step's policy on the recipe's held-out problems."""
    return run_dir / EVAL_FOLDER / f"step_{step}.json"


def right_by_problem(run_dir: Path, step: int) -> dict[str, float]:
    """Share of right completions of each problem by its id; empty where that step was not evaluated."""
    figures = evaluation_file(run_dir, step)
    path = figures.with_suffix(".jsonl")
    if not (
        figures.is_file() and path.is_file()
    ):  # the figures come last: until then problems may be missing
        return {}
    shares = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        problem = json.loads(line)
        scores = [Score(c["reward"], c["parts"]) for c in problem["completions"]]
        shares[str(problem["id"])] = fmean(is_right(score) for score in scores)
    return shares
