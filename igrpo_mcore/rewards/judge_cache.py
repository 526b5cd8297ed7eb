"""Verdicts that a judge has given, kept over runs: append-only files, one a process, read together."""

import contextlib
import hashlib
import json
import os
import secrets
import socket
from pathlib import Path
from typing import Any

from igrpo_mcore.errors import UserError

MOST_KEPT = 500_000
"""Verdicts in memory; the oldest go first (some 100 MB)."""
_DIGITS = 32


def key_of(request: dict[str, Any]) -> str:
    """What names a verdict: a hash of the whole request (model, messages, sampling)."""
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:_DIGITS]


class VerdictCache:
    """Scores by key. With ``folder`` they are read from all its files at the start and appended to one of
    this process's own, a JSON object a line: no two processes write to the same file, on any file system.

    A line that was cut off or damaged is skipped, and a disk that takes no more only ends the keeping.
    Raises ``UserError`` where the folder cannot be made or written to.
    """

    def __init__(self, folder: str | None) -> None:
        self._scores: dict[str, float] = {}
        self._file: int | None = None
        if folder is None:
            return
        own = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            for path in sorted(Path(folder).glob("*.jsonl")):
                self._read(path)
            self._path = Path(folder) / own
            self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise UserError(
                f"reward.judge.cache={folder} cannot be used ({error.strerror}); give a folder to write to"
            ) from error

    def __len__(self) -> int:
        return len(self._scores)

    def get(self, key: str) -> float | None:
        """The score of ``key``, None where there is none."""
        return self._scores.get(key)

    def put(self, key: str, score: float) -> None:
        """Keep a score; written at once, by one write."""
        self._keep(key, score)
        if self._file is not None:
            line = json.dumps({"key": key, "score": score}) + "\n"
            try:
                os.write(self._file, line.encode())
            except OSError:
                self.close()

    def close(self) -> None:
        """End the keeping; an empty file is not left behind."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                empty = os.fstat(self._file).st_size == 0
                os.close(self._file)
                if empty:
                    self._path.unlink()
        self._file = None

    def _read(self, path: Path) -> None:
        with path.open("rb") as file:
            for line in file:
                with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
                    fields = json.loads(line)
                    key, score = fields["key"], fields["score"]
                    known = isinstance(key, str) and len(key) == _DIGITS and isinstance(score, int | float)
                    if known and 0 <= score <= 1:
                        self._keep(key, float(score))

    def _keep(self, key: str, score: float) -> None:
        self._scores[key] = score
        if len(self._scores) > MOST_KEPT:
            del self._scores[next(iter(self._scores))]
