"""A file of the journal: records one after another, each whole or not there.

A file begins with ``MAGIC``; a record is the length and the CRC-32 of its payload (two little-endian uint32)
and the payload: a uint32, so many bytes of JSON, and raw arrays that the JSON describes. A job that is
killed in the middle of a record leaves a torn tail, which does not match its checksum and is not read.
"""

import json
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from igrpo_mcore.errors import cannot_write
from igrpo_mcore.types import Completion

MAGIC = b"igrpo journal 1\n"
_FRAME, _SIZE = struct.Struct("<II"), struct.Struct("<I")
_TOKEN: Any = np.dtype("<i4")
_LOGPROB: dict[int, Any] = {4: np.dtype("<f4"), 8: np.dtype("<f8")}


class Record(NamedTuple):
    """``fields`` are the JSON, ``arrays`` what follows it."""

    fields: dict[str, Any]
    arrays: bytes = b""


@dataclass(frozen=True)
class Place:
    """Where a record's payload lies."""

    path: Path
    offset: int
    length: int
    checksum: int


def encode(record: Record) -> bytes:
    """Frame and payload."""
    text = json.dumps(record.fields, separators=(",", ":")).encode()
    payload = _SIZE.pack(len(text)) + text + record.arrays
    return _FRAME.pack(len(payload), zlib.crc32(payload)) + payload


def decode(payload: bytes) -> Record:
    """A payload whose checksum was right."""
    end = _SIZE.size + _SIZE.unpack_from(payload)[0]
    return Record(json.loads(payload[_SIZE.size : end]), payload[end:])


def completion_record(fields: dict[str, Any], completion: Completion) -> Record:
    """``fields`` with everything of a completion. Log-probs keep their bits: as float32 where that is exact,
    as it is for what vLLM gives, else as float64."""
    rest = asdict(completion)
    tokens, logprobs = np.array(rest.pop("token_ids"), _TOKEN), np.array(rest.pop("logprobs"), _LOGPROB[8])
    with np.errstate(over="ignore"):
        narrow = logprobs.astype(_LOGPROB[4])
    exact = narrow.astype(_LOGPROB[8]).tobytes() == logprobs.tobytes()
    described = {"tokens": len(tokens), "width": 4 if exact else 8, "completion": rest}
    return Record(fields | described, tokens.tobytes() + (narrow if exact else logprobs).tobytes())


def completion_of(record: Record) -> Completion:
    """The completion that ``completion_record`` was given."""
    count = record.fields["tokens"]
    tokens = np.frombuffer(record.arrays, _TOKEN, count)
    logprobs = np.frombuffer(record.arrays, _LOGPROB[record.fields["width"]], offset=tokens.nbytes)
    return Completion(
        token_ids=tuple(tokens.tolist()), logprobs=tuple(logprobs.tolist()), **record.fields["completion"]
    )


def read_file(path: Path) -> Iterator[tuple[Place, Record]]:
    """Its records in order up to the first that is not whole; none where the file is no journal's.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            return
        while len(frame := file.read(_FRAME.size)) == _FRAME.size:
            length, checksum = _FRAME.unpack(frame)
            place = Place(path, file.tell(), length, checksum)
            payload = _whole(file, place)
            if payload is None:
                return
            yield place, decode(payload)


def read_at(file: BinaryIO, place: Place) -> Record | None:
    """The record at ``place`` of an open file; None where it is no longer what was written."""
    file.seek(place.offset)
    payload = _whole(file, place)
    return None if payload is None else decode(payload)


def _whole(file: BinaryIO, place: Place) -> bytes | None:
    payload = file.read(place.length)
    whole = len(payload) == place.length and zlib.crc32(payload) == place.checksum
    return payload if whole else None


class JournalFile:
    """A new file that records are appended to.

    A record is with the operating system when ``append`` returns, which outlives the process; ``sync``
    brings it to the disk, which outlives the machine.

    Raises:
        UserError: here and in ``append`` and ``sync``, where the file cannot be written (a full disk).
    """

    def __init__(self, path: Path) -> None:
        self.path, self.last_step = path, 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("xb", buffering=0)
        except OSError as error:
            raise cannot_write(path, error) from error
        self._write(MAGIC)

    def append(self, record: Record) -> None:
        self._write(encode(record))

    def sync(self) -> None:
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def close(self) -> None:
        self._file.close()

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            raise cannot_write(self.path, error) from error
