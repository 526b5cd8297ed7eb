"""reasoning-gym's generators in a process of their own, started with ``PYTHONHASHSEED=0``.

Some tasks draw from the order of a set of strings (isomorphic_strings, knight_swap,
polynomial_multiplication, ransom_note and word_ladder in 0.1.25), which Python changes from process to
process: ranks would train on different problems, and an evaluation after a run would not see those of
before. The hash seed cannot be set once a process runs.

Standard input: a JSON object with ``tasks`` (a list of ``task`` and ``options``), ``size`` and ``seed``.
Standard output: one with ``entries`` (a list a task), or ``task`` and ``error``.
"""

import json
import random
import sys
from contextlib import redirect_stdout
from typing import Any


def generate(order: dict[str, Any]) -> dict[str, Any]:
    """The entries of every task of ``order``, or the first line of what a generator raised."""
    import numpy
    import reasoning_gym

    found = []
    for wanted in order["tasks"]:
        random.seed(order["seed"])  # a few tasks draw from the global generators as well
        numpy.random.seed(order["seed"])
        try:
            dataset = reasoning_gym.create_dataset(
                wanted["task"], size=order["size"], seed=order["seed"], **wanted["options"]
            )
            found.append([dataset[number] for number in range(order["size"])])
        except Exception as error:
            return {"task": wanted["task"], "error": str(error).partition("\n")[0] or type(error).__name__}
    return {"entries": found}


if __name__ == "__main__":
    with redirect_stdout(sys.stderr):
        answer = generate(json.load(sys.stdin))
    json.dump(answer, sys.stdout, default=str)
