"""What a study's runs say beside `igrpo compare`: ``python scripts/read_study.py runs/SWEEP``.

By variant, means over its seeds of the first and the last fifth of the steps; and of the held-out completions
of the last evaluation on the tiny task (chains such as 2+5-6) the share of right ones with a wrong line,
which a later line or a draft made good.
"""

import json
import re
import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean

METRICS = (
    "drafts/accuracy",
    "refinements/accuracy",
    "refinements/accuracy_given_right_draft",
    "refinements/accuracy_given_wrong_draft",
    "refinements/repeat_answer",
    "refinements/repeat_text",
)
LINE = re.compile(r"(-?\d+)\s*([+-])\s*(\d+)\s*=\s*(-?\d+)")


def has_wrong_line(text: str) -> bool:
    """Whether a sum or difference of two numbers in it does not hold."""
    return any(int(a) + int(sign + b) != int(c) for a, sign, b, c in LINE.findall(text))


def fifths(run: Path) -> dict[str, tuple[float, float]]:
    """Means of each metric over the first and the last fifth of the run's steps."""
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    count = max(1, len(steps) // 5)
    found = {}
    for name in METRICS:
        parts = [
            [s[name] for s in part if s.get(name) is not None] for part in (steps[:count], steps[-count:])
        ]
        if all(parts):
            found[name] = (fmean(parts[0]), fmean(parts[1]))
    return found


def right_texts(run: Path) -> list[str]:
    """The right completions of the run's last evaluation."""
    last = max((run / "eval").glob("step_*.jsonl"), key=lambda path: int(path.stem[5:]))
    problems = [json.loads(line) for line in last.read_text().splitlines()]
    return [c["text"] for p in problems for c in p["completions"] if c["parts"].get("accuracy", 0) > 0]


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit(f"usage: {sys.argv[0]} runs/SWEEP")
    variants = defaultdict(list)
    for file in sorted(Path(sys.argv[1]).glob("*/eval/step_*.json")):
        run = file.parents[1]
        name = re.sub(r"-seed\d+$", "", run.name)
        if run not in variants[name]:
            variants[name].append(run)
    for name, runs in variants.items():
        texts = [text for run in runs for text in right_texts(run)]
        wrong = fmean(has_wrong_line(text) for text in texts) if texts else 0.0
        print(f"{name}: {len(runs)} runs, {wrong:.3f} of {len(texts)} right completions have a wrong line")
        measured = [fifths(run) for run in runs if (run / "metrics.jsonl").is_file()]
        for metric in METRICS:
            if pairs := [found[metric] for found in measured if metric in found]:
                first, last = (fmean(pair[i] for pair in pairs) for i in (0, 1))
                print(f"  {metric} {first:.3f} -> {last:.3f}")


if __name__ == "__main__":
    main()
