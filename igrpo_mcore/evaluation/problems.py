"""What ``--suite`` names, as problems: a suite of the hub, a file in its layout or in the recipe's, or tasks
of reasoning-gym."""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from igrpo_mcore.config.schema import Config
from igrpo_mcore.data.problems import GENERATED, asked, held_out_problems, read_problems
from igrpo_mcore.errors import UserError, one_line
from igrpo_mcore.evaluation.figures import HELD_OUT
from igrpo_mcore.evaluation.rows import file_rows
from igrpo_mcore.evaluation.suites import SUITES, Row, Suite
from igrpo_mcore.types import Problem


@dataclass(frozen=True)
class ProblemSet:
    """Problems to evaluate on, ``samples`` completions each; ``name`` is that of its folder."""

    name: str
    problems: list[Problem]
    samples: int


def split_names(given: Sequence[str]) -> list[str]:
    """``--suite`` values at their commas, but for those between reasoning-gym's tasks."""
    names: list[str] = []
    for name in (part.strip() for value in given for part in value.split(",")):
        alone = name in SUITES or "=" in name or name.startswith(GENERATED) or Path(name).suffix
        if names and names[-1].startswith(GENERATED) and not alone:
            names[-1] += f",{name}"
        else:
            names.append(name)
    return names


def problem_sets(
    config: Config, suites: Sequence[str], samples: int | None = None, limit: int | None = None
) -> list[ProblemSet]:
    """The sets of ``--suite``, each in ``eval.template``; the held-out problems where none is named.

    Args:
        samples: completions a problem; None takes the suite's, elsewhere ``eval.samples``.
        limit: problems taken of each set, the first ones; None takes all.

    Raises:
        UserError: an unknown name, a set named twice, one that cannot be read, or a row without an answer.
    """
    if samples is not None and samples > 1 and config.eval.temperature == 0:
        raise UserError(
            f"--samples {samples} of greedy completions (eval.temperature=0) are all the same; leave it out"
        )
    if not suites:
        found = [ProblemSet(HELD_OUT, held_out_problems(config), config.eval.samples)]
    else:
        named = [_problem_set(config, name) for name in suites]
        found = [replace(s, problems=asked(s.problems, config.eval.template)) for s in named]
    names = [one.name for one in found]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"--suite names {name} more than once; name each set once")
    greedy = config.eval.temperature == 0
    return [
        ProblemSet(one.name, one.problems[:limit], 1 if greedy else samples or one.samples) for one in found
    ]


def _problem_set(config: Config, name: str) -> ProblemSet:
    samples = config.eval.samples
    if name.startswith(GENERATED):
        from igrpo_mcore.data.generated import generated  # reasoning-gym is an extra

        tasks = name.removeprefix(GENERATED).split(",")
        options = {task: config.data.options[task] for task in tasks if task in config.data.options}
        data = replace(config.data, path=name, options=options)
        problems = generated(data, held_out=True)[: config.eval.problems]
        return ProblemSet("-".join([GENERATED.rstrip(":"), *tasks]), problems, samples)
    suite_name, in_file, path = name.partition("=")
    if suite_name in SUITES:
        suite = SUITES[suite_name]
        rows = file_rows(Path(path), f"--suite {name}") if in_file else _hub_rows(suite_name, suite)
        return ProblemSet(suite_name, _problems(suite, rows), suite.samples)
    if in_file or not (Path(name).suffix or Path(name).exists()):
        near = difflib.get_close_matches(suite_name, SUITES, 1, cutoff=0.7)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(SUITES)}"
        raise UserError(
            f"no suite {suite_name!r}; {hint} (or SUITE=FILE, a JSONL or Parquet file, reasoning_gym:TASK)"
        )
    return ProblemSet(
        Path(name).stem,
        read_problems(replace(config.data, path=name, subset=None, pass_rate_field=None)),
        samples,
    )


def _problems(suite: Suite, rows: Iterator[tuple[int, str, Row]]) -> list[Problem]:
    found = []
    for number, place, row in rows:
        try:
            problem, answer = suite.read(row)
        except KeyError as error:
            raise UserError(
                f"{place} has no column {error} (it has {', '.join(map(str, row))}), which rows of "
                f"{suite.hub} have; give a file of the same layout"
            ) from error
        except (TypeError, ValueError, IndexError) as error:
            raise UserError(f"{place} cannot be read as a row of {suite.hub} ({one_line(error)})") from error
        if not problem.strip() or not answer.strip():
            raise UserError(f"{place} has an empty problem or answer; fill it in or remove the row")
        identifier = row.get(suite.identifier) if suite.identifier else None
        found.append(Problem(str(number if identifier is None else identifier), problem, answer))
    if not found:
        raise UserError(f"the suite of {suite.hub} has no rows")
    return found


def _hub_rows(name: str, suite: Suite) -> Iterator[tuple[int, str, Any]]:
    import datasets

    try:
        dataset = datasets.load_dataset(suite.hub, suite.subset, split=suite.split)
    except Exception as error:  # the hub client raises a dozen unrelated classes
        raise UserError(
            f"the suite {name} ({suite.hub}, {suite.subset or 'default'}, {suite.split}) cannot be loaded "
            f"({one_line(error)}); fetch it where there is a network, with HF_HUB_OFFLINE unset, log in to "
            f"the hub if it is gated, or give its rows as --suite {name}=FILE.jsonl"
        ) from error
    for number, row in enumerate(dataset, start=1):
        yield number, f"{suite.hub}, row {number}", row
