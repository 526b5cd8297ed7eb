"""Completions on the disk as they are finished, so that an evaluation goes on where it was stopped."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from igrpo_mcore.errors import cannot_write
from igrpo_mcore.evaluation.answered import Answered

FINGERPRINT = "fingerprint"


class Journal:
    """``path``, a JSON-lines file with a problem a line, all of one evaluation; one process writes it.

    ``fingerprint`` says which evaluation. Lines of another one under ``path`` are moved beside it
    (``step_7.FINGERPRINT.jsonl``) and taken up again when that evaluation is asked for: nothing that was
    sampled is thrown away. Raises ``UserError`` where the folder cannot be written.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path, self._fingerprint = path, fingerprint
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            other = self._fingerprint_there()
            if other is not None and other != fingerprint:
                path.rename(self._beside(other))
                for figures in (".json", ".md", ".png"):  # they are of what was moved, and follow from it
                    path.with_suffix(figures).unlink(missing_ok=True)
            if not path.exists() and self._beside(fingerprint).exists():
                self._beside(fingerprint).rename(path)
        except OSError as error:
            raise cannot_write(path, error) from error

    def finished(self, batch: int, total: int) -> list[Answered]:
        """The problems of finished batches (``batch`` each, ``total`` in all), in order.

        A torn line and a batch that is not whole, as a killed evaluation leaves them, are cut off the file:
        those problems are sampled again, in the same company as the first time, so that rounding is the same.
        """
        found: list[Answered] = []
        lengths: list[int] = []
        try:
            for line in self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else []:
                answered = self._answered(line)
                if answered is None:
                    break
                found.append(answered)
                lengths.append(len(line))
            whole = len(found) if len(found) == total else len(found) - len(found) % batch
            if self.path.exists():
                os.truncate(self.path, sum(lengths[:whole]))
        except OSError as error:
            raise cannot_write(self.path, error) from error
        return found[:whole]

    def forget(self) -> None:
        """Remove every line of this evaluation."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def append(self, answered: Sequence[Answered]) -> None:
        """Write one finished batch through to the disk."""
        records = [{FINGERPRINT: self._fingerprint, **line.record()} for line in answered]
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write("".join(json.dumps(record) + "\n" for record in records))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def _answered(self, line: bytes) -> Answered | None:
        if not line.endswith(b"\n"):
            return None
        try:
            record = json.loads(line)
            return Answered.from_record(record) if record[FINGERPRINT] == self._fingerprint else None
        except (ValueError, KeyError, TypeError):
            return None

    def _fingerprint_there(self) -> str | None:
        """Whose lines lie under ``path``; None where there is no file, "earlier" where they do not say."""
        if not self.path.exists():
            return None
        with self.path.open("rb") as lines:
            try:
                return str(json.loads(lines.readline())[FINGERPRINT])
            except (ValueError, KeyError, TypeError):
                return "earlier"

    def _beside(self, fingerprint: str) -> Path:
        return self.path.with_suffix(f".{fingerprint}.jsonl")
