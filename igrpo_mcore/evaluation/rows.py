"""The rows of a local file, all columns of them."""

from collections.abc import Iterator
from pathlib import Path

from igrpo_mcore.data.problems import JSONL_SUFFIXES, PARQUET_SUFFIXES, Row, jsonl_rows
from igrpo_mcore.errors import UserError, one_line


def file_rows(path: Path, option: str) -> Iterator[Row]:
    """Number (from 1), place ("set.jsonl, line 3") and columns of each row of a JSONL or Parquet file.

    Raises:
        UserError: no such file, another kind of file, or one that cannot be read; ``option`` named it.
    """
    path = path.expanduser()
    if not path.is_file():
        raise UserError(f"{option}: there is no file {path}; correct the path")
    if path.suffix.lower() in PARQUET_SUFFIXES:
        yield from _parquet_rows(path, option)
    elif path.suffix.lower() in JSONL_SUFFIXES:
        yield from jsonl_rows(path)
    else:
        raise UserError(f"{option}: {path} is neither JSONL nor Parquet by its name; rename it to .jsonl")


def _parquet_rows(path: Path, option: str) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(
            f"{option}: {path} cannot be read as Parquet ({one_line(error)}); write it anew"
        ) from error
    for number, row in enumerate(rows, start=1):
        yield number, f"{path}, row {number}", row
