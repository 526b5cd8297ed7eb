"""The files of an evaluation: figures as JSON and as a Markdown table, beside the completions."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from igrpo_mcore.errors import UserError, cannot_write
from igrpo_mcore.evaluation.bootstrap import Estimate
from igrpo_mcore.evaluation.figures import HELD_OUT, Evaluation


def figures_path(run: Path, suite: str, step: int) -> Path:
    """``eval/step_N.json`` in the run's folder, and ``eval/SUITE/step_N.json`` of a named suite."""
    folder = run / "eval" if suite == HELD_OUT else run / "eval" / suite
    return folder / f"step_{step}.json"


def write(path: Path, measured: Evaluation) -> None:
    """Write the figures, their table (``.md``) and, with pass@k at several k, its curve (``.png``).

    Raises:
        UserError: a file cannot be written.
    """
    from igrpo_mcore.evaluation.plot import draw_pass_at  # matplotlib is slow to load

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(dataclasses.asdict(measured), indent=1) + "\n")
        path.with_suffix(".md").write_text(table([measured]))
        if len(measured.pass_at) > 1:
            draw_pass_at([measured], path.with_suffix(".png"))
    except OSError as error:
        raise cannot_write(path, error) from error


def read(path: Path) -> Evaluation:
    """Figures that ``write`` wrote.

    Raises:
        UserError: ``path`` holds none.
    """
    try:
        found: dict[str, Any] = json.loads(path.read_text())
        pass_at = {k: Estimate(*value) for k, value in found.pop("pass_at", {}).items()}
        majority = found.pop("majority", None)
        return Evaluation(**found, pass_at=pass_at, majority=Estimate(*majority) if majority else None)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        names = ", ".join(field.name for field in dataclasses.fields(Evaluation))
        raise UserError(f"{path} is no evaluation ({error}); give a step_N.json with {names}") from error


def table(measured: Sequence[Evaluation]) -> str:
    """A Markdown table, a row a suite: every mean with its 95 % interval over problems."""
    ks = sorted({int(k) for one in measured for k in one.pass_at if int(k) > 1})
    heads = ["suite", "step", "problems", "samples", "mean@k", *[f"pass@{k}" for k in ks], "majority"]
    heads += ["truncated", "tokens"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for one in measured:
        accuracy = Estimate(one.accuracy, one.low, one.high)
        cells = [one.suite, one.step, one.problems, one.samples, accuracy]
        cells += [one.pass_at.get(str(k), "") for k in ks]
        cells += [one.majority or "", f"{one.truncated:.3f}", f"{one.length:.1f}"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"
