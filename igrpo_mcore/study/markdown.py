"""The tables of a comparison as Markdown."""

from collections.abc import Sequence

from igrpo_mcore.report.progress import number
from igrpo_mcore.study.bootstrap import Estimate
from igrpo_mcore.study.groups import RunGroup
from igrpo_mcore.study.options import differing, without_seed
from igrpo_mcore.study.rows import Row, baseline_of


def tables(rows: Sequence[Row], groups: Sequence[RunGroup], missing: Sequence[str]) -> str:
    """Results by variant, held-out accuracy by seed, the options that differ, what is not finished."""
    parts = [_results(rows)]
    if any(row.held_out for row in rows):
        parts.append(_by_seed(rows))
    options = differing([without_seed(group.runs[0].options) for group in groups])
    if options:
        head = ["option", *(row.name for row in rows)]
        parts.append(_table(head, [[name, *map(str, values)] for name, values in options.items()]))
    if missing:
        parts.append(f"Not finished: {'; '.join(missing)}.\n")
    return "\n".join(parts)


def _results(rows: Sequence[Row]) -> str:
    held_out = any(row.held_out for row in rows)
    head = ["variant", "seeds"]
    head += ["held-out before", "after", "gain", f"against {baseline_of(rows)}"] if held_out else []
    head += ["groups without a gradient", "entropy, nats", "completions", "seconds"]
    lines = []
    for row in rows:
        h = row.held_out
        line = [row.name, str(row.seeds)]
        if held_out:
            line += [_shown(h.start), _shown(h.final)] if h else ["–", "–"]
            line += [_shown(h.gain, "+"), _shown(h.difference, "+")] if h else ["–", "–"]
        line += [_shown(row.without_gradient), _shown(row.entropy)]
        lines.append([*line, number(row.completions, ","), number(row.seconds, ",.0f")])
    return _table(head, lines)


def _by_seed(rows: Sequence[Row]) -> str:
    seeds = sorted({seed for row in rows for _, seed, _ in row.runs})
    by_row = [(row.name, dict(row.held_out.by_seed)) for row in rows if row.held_out]
    head = ["held-out accuracy", *(f"seed {seed}" for seed in seeds)]
    return _table(head, [[name, *(number(found.get(s), ".3f") for s in seeds)] for name, found in by_row])


def _shown(value: Estimate | None, sign: str = "") -> str:
    if value is None:
        return "–"
    spec = f"{sign}.3f"
    if value.low is None or value.high is None:
        return format(value.mean, spec)
    return f"{value.mean:{spec}} [{value.low:{spec}}, {value.high:{spec}}]"


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ["---"] * len(head)
    cells = [[cell.replace("|", r"\|").replace("\n", " ") for cell in line] for line in [head, rule, *lines]]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)
