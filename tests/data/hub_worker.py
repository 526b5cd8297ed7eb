"""Reads by the hub's own clients all that ``RECIPE`` names there, and every suite; prints it as JSON."""

import json
import sys

from igrpo_mcore.config.load import load_config
from igrpo_mcore.data.problems import held_out_problems, load_problems
from igrpo_mcore.data.tokenizer import load_tokenizer
from igrpo_mcore.errors import UserError
from igrpo_mcore.evaluation.problems import problem_sets
from igrpo_mcore.evaluation.suites import SUITES
from igrpo_mcore.weights.checkpoint import open_checkpoint, resolve_checkpoint


def main() -> None:
    config = load_config(sys.argv[1])
    suites: dict[str, object] = {}
    for name in SUITES:
        try:
            (found,) = problem_sets(config, [name])
            suites[name] = [[problem.id, problem.problem, problem.answer] for problem in found.problems]
        except UserError as error:
            suites[name] = str(error)
    read = {
        "problems": [[problem.problem, problem.answer] for problem in load_problems(config.data)],
        "held out": [[problem.problem, problem.answer] for problem in held_out_problems(config)],
        "token ids": load_tokenizer(config.model.path)("1+1=")["input_ids"],
        "tensors": sorted(open_checkpoint(resolve_checkpoint(config.model.path)).files),
        "suites": suites,
    }
    print("READ", json.dumps(read))


if __name__ == "__main__":
    main()
