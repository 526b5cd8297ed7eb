"""sweep.json: the variants of a sweep in order, with their runs, for ``igrpo compare``."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from igrpo_mcore.errors import UserError, cannot_write
from igrpo_mcore.study.budget import completions_of
from igrpo_mcore.study.jobs import start_folder, starts_of
from igrpo_mcore.study.variants import SweepRun

MANIFEST_FILE = "sweep.json"


@dataclass(frozen=True)
class VariantRuns:
    """A variant with the folders of its runs beside the manifest, those of their start's evaluation, the
    completions that each run samples, and the variant that it is compared with (none: the first)."""

    name: str
    options: list[str]
    runs: list[str]
    start: str
    completions: int
    baseline: str = ""


def write_manifest(folder: Path, runs: Sequence[SweepRun]) -> Path:
    """Write ``folder/sweep.json``.

    Raises:
        UserError: it cannot be written.
    """
    starts = starts_of(runs)
    variants = []
    for name in dict.fromkeys(run.variant.name for run in runs):
        own = [run for run in runs if run.variant.name == name]
        variants.append(
            VariantRuns(
                name,
                list(own[0].variant.options),
                [run.name for run in own],
                start_folder(starts[name]).name,
                completions_of(own[0].config),
                own[0].variant.baseline,
            )
        )
    path = folder / MANIFEST_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"variants": [asdict(v) for v in variants]}, indent=1) + "\n")
    except OSError as error:
        raise cannot_write(path, error) from error
    return path


def read_manifest(folder: Path) -> list[VariantRuns]:
    """The variants of the sweep in ``folder``; none where it holds no sweep.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / MANIFEST_FILE
    if not path.is_file():
        return []
    try:
        return [VariantRuns(**variant) for variant in json.loads(path.read_text())["variants"]]
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} is damaged ({error}); `igrpo sweep FILE` writes it anew") from error
