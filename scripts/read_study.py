"""What a study's runs say beside `igrpo compare`: ``python scripts/read_study.py runs/SWEEP``.

By variant, means over its seeds of the first and the last fifth of the steps; and of the held-out completions
of the last evaluation the share in the right format and, on the tiny task (chains such as 2+5-6), the share
of right ones with a wrong line, which a later line or a draft made good.
"""

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from igrpo_mcore.study.groups import load_groups
from igrpo_mcore.study.manifest import read_manifest

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


def last_completions(run: Path) -> list[dict[str, Any]]:
    """The completions of the run's last evaluation."""
    last = max((run / "eval").glob("step_*.jsonl"), key=lambda path: int(path.stem[5:]))
    return [c for line in last.read_text().splitlines() for c in json.loads(line)["completions"]]


def say_completions(name: str, runs: Sequence[Path]) -> None:
    completions = [completion for run in runs for completion in last_completions(run)]
    parts = [completion["parts"] for completion in completions]
    right = [c["text"] for c, part in zip(completions, parts, strict=True) if part.get("accuracy", 0) > 0]
    wrong = fmean(map(has_wrong_line, right)) if right else 0.0
    print(f"{name}: {len(runs)} runs, {wrong:.3f} of {len(right)} right completions have a wrong line")
    if all("format" in part for part in parts):
        print(f"  format {fmean(part['format'] for part in parts):.3f}")


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit(f"usage: {sys.argv[0]} runs/SWEEP")
    sweep = Path(sys.argv[1])
    groups, _ = load_groups([sweep])
    for start in dict.fromkeys(variant.start for variant in read_manifest(sweep)):
        if (sweep / start).is_dir():
            say_completions(start, [sweep / start])
    for group in groups:
        say_completions(group.name, [run.folder for run in group.runs if run.final])
        for metric in METRICS:
            both = [(run.fifth(metric, last=False), run.fifth(metric, last=True)) for run in group.runs]
            pairs = [(first, last) for first, last in both if first is not None and last is not None]
            if pairs:
                first, last = (fmean(column) for column in zip(*pairs, strict=True))
                print(f"  {metric} {first:.3f} -> {last:.3f}")


if __name__ == "__main__":
    main()
