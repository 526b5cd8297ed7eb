"""Whether two runs computed the same: ``python scripts/same_run.py RUN RUN``.

Compares metrics.jsonl step by step and names the first field that differs; what a clock or the machine
decides is left aside. Status 0 where all fields of both are equal, else 1. ``--shared`` leaves fields aside
that only one has, as runs of two versions do; ``--rounding 1e-5`` lets ``parity/`` differ by so much.
"""

import argparse
import json
from itertools import zip_longest
from pathlib import Path

MEASURED = ("time/", "tokens_per_s", "memory/", "throughput/", "engines/")


def steps(run: str) -> list[dict[str, float | None]]:
    path = Path(run) / "metrics.jsonl"
    if not path.is_file():
        raise SystemExit(f"{path} is not there; give two run folders")
    return [json.loads(line) for line in path.read_text().splitlines()]


def first_difference(
    one: str, other: str, *, whole: bool = True, shared: bool = False, rounding: float = 0.0
) -> str | None:
    """The first step and field that differ, in words; None where none does. Without ``whole`` one may have
    fewer steps; with ``shared`` a step's fields are those that both have. ``rounding`` is what the sampler's
    log-probs, and with them ``parity/``, may differ by."""
    for number, (left, right) in enumerate(zip_longest(steps(one), steps(other)), start=1):
        if left is None or right is None:
            if not whole:
                return None
            return f"{one if right is None else other} goes on with step {number}"
        for name in dict.fromkeys([*left, *right]):
            if name.startswith(MEASURED):
                continue
            if name not in left or name not in right:
                if shared:
                    continue
                return f"step {number}: {name} is only in {one if name in left else other}"
            if left[name] != right[name] and not _rounded(name, left[name], right[name], rounding):
                return f"step {number}: {name} is {left[name]} and {right[name]}"
    return None


def _rounded(name: str, left: float | None, right: float | None, rounding: float) -> bool:
    both = left is not None and right is not None
    return name.startswith("parity/") and both and abs(left - right) <= rounding


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("one", metavar="RUN")
    parser.add_argument("other", metavar="RUN")
    parser.add_argument("--shared", action="store_true")
    parser.add_argument("--rounding", type=float, default=0.0)
    arguments = parser.parse_args()
    found = first_difference(**vars(arguments))
    print(found or "the same")
    raise SystemExit(found is not None)
