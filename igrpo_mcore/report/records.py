"""JSON-lines files of a run: one flushed object a line, readable while it runs and after a crash."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from igrpo_mcore.errors import cannot_write

METRICS_FILE = "metrics.jsonl"
SAMPLES_FILE = "samples.jsonl"


class JsonLines:
    """Appends objects to a file, each flushed, starting with step ``first_step``.

    Lines of that step and later ones, left by a run that is being resumed from before them, are
    removed first. Raises ``UserError`` where the file cannot be written (a full disk, say).
    """

    def __init__(self, path: Path, first_step: int) -> None:
        self._path = path
        try:
            if path.exists():
                kept = [record for record in read_records(path) if record["step"] < first_step]
                rewritten = path.with_name(path.name + ".new")
                lines = "".join(_line(record) for record in kept)
                rewritten.write_text(lines, encoding="utf-8", errors="backslashreplace")
                rewritten.replace(path)  # whole or not at all
            # a lone surrogate, which a problem's text may hold, becomes JSON's own \\uXXXX
            self._file = path.open("a", encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise cannot_write(path, error) from error

    def append(self, record: dict[str, Any]) -> None:
        """Write one line; numbers that JSON cannot hold (NaN, infinities) become null."""
        try:
            self._file.write(_line(record))
            self._file.flush()
        except OSError as error:
            raise cannot_write(self._path, error) from error

    def close(self) -> None:
        try:
            self._file.close()
        except OSError as error:  # what a failed flush left in the buffer
            raise cannot_write(self._path, error) from error


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON-lines file; a line cut short by a crash is left out."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict) and "step" in record:
                yield record


def read_metrics(run_dir: Path) -> list[dict[str, float | None]]:
    """The steps in ``run_dir/metrics.jsonl``, in order; none where there is no such file."""
    return list(read_records(run_dir / METRICS_FILE))


def _line(record: dict[str, Any]) -> str:
    return json.dumps(_finite(record), ensure_ascii=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return value
