"""``igrpo data check``: what a problem set holds, before a run is built on it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from igrpo_mcore.config.schema import DataConfig
from igrpo_mcore.data.filters import same_text
from igrpo_mcore.data.problems import read_problems
from igrpo_mcore.errors import UserError
from igrpo_mcore.types import Problem

MALFORMED_STATUS = 2
SHOWN = 10


@dataclass(frozen=True)
class Finding:
    """``malformed`` has a sentence for each row that is no problem. ``duplicates`` are rows whose text was
    there before, ``contradicting`` those of them with another answer. ``lengths`` are tokens of the problem
    texts, none without a tokenizer. ``unread`` are problems whose answer the accuracy reward reads no final
    value in, or is a word."""

    problems: int
    malformed: list[str]
    duplicates: list[Problem]
    contradicting: list[Problem]
    characters: list[int]
    lengths: list[int] | None
    unread: list[Problem]


def check_data(config: DataConfig, tokenizer_path: str | None = None, show: int = SHOWN) -> int:
    """Read all of ``config.path``, print what was found, ``show`` examples of each fault.

    Returns:
        0; 2 where a row is malformed or there is no problem at all.

    Raises:
        UserError: the set or the tokenizer cannot be read.
    """
    found = examined(config, tokenizer_path)
    printed(config.path, found, show)
    return MALFORMED_STATUS if found.malformed or not found.problems else 0


def examined(config: DataConfig, tokenizer_path: str | None = None) -> Finding:
    """What ``check_data`` prints."""
    faults: list[UserError] = []
    problems = read_problems(config, faults.append)
    firsts: dict[str, Problem] = {}
    duplicates, contradicting = [], []
    for problem in problems:
        first = firsts.setdefault(same_text(problem), problem)
        if first is not problem:
            duplicates.append(problem)
            if first.answer.strip() != problem.answer.strip():
                contradicting.append(problem)
    lengths = None
    if tokenizer_path is not None:
        from igrpo_mcore.data.tokenizer import load_tokenizer

        tokenizer = load_tokenizer(tokenizer_path)
        lengths = [len(tokenizer(p.problem, add_special_tokens=False)["input_ids"]) for p in problems]
    return Finding(
        len(problems),
        [str(fault) for fault in faults],
        duplicates,
        contradicting,
        [len(problem.problem) for problem in problems],
        lengths,
        [problem for problem in problems if not _has_value(problem.answer)],
    )


def _has_value(answer: str) -> bool:
    """Read by the accuracy reward, but for a word, which it takes for a product of its letters."""
    from igrpo_mcore.rewards.accuracy import reads_as_value  # sympy takes its time

    word = answer.strip()
    return reads_as_value(answer) and not (len(word) > 1 and word.isalpha())


def printed(path: str, found: Finding, show: int) -> None:
    """A table, then examples."""
    table = Table(title=escape(path), show_header=False)
    table.add_row("problems", f"{found.problems:,}")
    table.add_row("malformed rows", f"{len(found.malformed):,}")
    table.add_row(
        "duplicates", f"{len(found.duplicates):,}, {len(found.contradicting):,} of them with another answer"
    )
    table.add_row("characters a problem", _spread(found.characters))
    if found.lengths is not None:
        table.add_row("tokens a problem", _spread(found.lengths))
    table.add_row("answers without a final value", f"{len(found.unread):,}")
    console = Console()
    console.print(table)
    for what, lines in (
        ("Malformed", found.malformed),
        ("Another answer to the same text", [_line(problem) for problem in found.contradicting]),
        (
            "No final value: right only as written (docs/rewards.md)",
            [
                f"{answer} ({times} times)"
                for answer, times in Counter(p.answer for p in found.unread).most_common()
            ],
        ),
    ):
        if lines:
            console.print(f"{what}:")
            for line in lines[:show]:
                console.print(f"  {escape(line[:300])}", highlight=False, soft_wrap=True)
            if len(lines) > show:
                console.print(f"  and {len(lines) - show:,} more")


def _line(problem: Problem) -> str:
    return f"{problem.id}: {problem.answer!r} to {problem.problem!r}"


def _spread(values: Sequence[int]) -> str:
    if not values:
        return "–"
    ordered = sorted(values)
    high = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    return f"median {median(ordered):g}, 99 % at most {high:,}, longest {ordered[-1]:,}"
