"""Read a problem set: JSONL, Parquet, or anything ``datasets.load_dataset`` opens."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from igrpo_mcore.config.schema import Config, DataConfig
from igrpo_mcore.data.filters import filtered
from igrpo_mcore.errors import UserError, one_line
from igrpo_mcore.hub import HUB_ID
from igrpo_mcore.types import Problem

ID_COLUMN = "id"
JSONL_SUFFIXES = (".jsonl", ".json", ".ndjson")
PARQUET_SUFFIXES = (".parquet", ".pq")
GENERATED = "reasoning_gym:"
"""Begins a ``data.path`` that names reasoning-gym tasks."""

Row = tuple[int, str, dict[str, Any]]
"""Number (from 1), where it stands ("set.jsonl, line 3"), and the columns of one row."""


Fault = Callable[[UserError], None]
"""What is done with a malformed row; none ends the reading."""


def load_problems(config: DataConfig) -> list[Problem]:
    """The problems to train on: every set's, after its filters, one set after the other.

    Raises:
        UserError: as ``load_sets``.
    """
    return [problem for of_set in load_sets(config) for problem in of_set]


def load_sets(config: DataConfig) -> list[list[Problem]]:
    """``data.path`` and the sets of ``data.mixture``, each in file order and after ``data``'s filters.

    Raises:
        UserError: as ``read_problems``, and for a set of which the filters leave nothing.
    """
    return [filtered(read_problems(of_set), of_set) for of_set in sets_of(config)]


def sets_of(config: DataConfig) -> list[DataConfig]:
    """One configuration a set: ``data`` itself, and with each set of its mixture in its place."""
    return [
        replace(config, mixture=[]),
        *(
            replace(
                config,
                path=other.path,
                weight=other.weight,
                subset=other.subset,
                split=other.split or config.split,
                problem_field=other.problem_field or config.problem_field,
                answer_field=other.answer_field or config.answer_field,
                mixture=[],
            )
            for other in config.mixture
        ),
    ]


def read_problems(config: DataConfig, on_fault: Fault | None = None) -> list[Problem]:
    """Every problem of ``config.path`` alone, in file order, without filters.

    A problem's id is its ``id`` column where there is one, otherwise its line (JSONL) or row number,
    from 1. Numbers are accepted as answers. Raises ``UserError`` for a missing or unreadable file, a
    line that is not a JSON object, a row without problem or answer, and a set without rows; the
    message names the file and the line. With ``on_fault`` malformed rows are told to it and left out. A
    ``reasoning_gym:`` path is generated, see ``generated``.
    """
    if config.path.startswith(GENERATED):
        from igrpo_mcore.data.generated import generated  # reasoning-gym is an extra

        return generated(config, held_out=False)
    problems = []
    for row in _rows(config, on_fault):
        try:
            problems.append(_problem(row, config))
        except UserError as error:
            if on_fault is None:
                raise
            on_fault(error)
    if not problems and on_fault is None:
        raise UserError(f"{config.path} holds no problems: add at least one, or point data.path elsewhere.")
    return problems


def held_out_problems(config: Config) -> list[Problem]:
    """The first ``eval.problems`` problems of ``eval.path``, else those that a generated ``data.path`` holds
    out, as ``eval.template`` puts them.

    Raises:
        UserError: as ``load_problems``, and where there is neither.
    """
    data, options = config.data, config.eval
    if options.path is not None:
        found = read_problems(
            replace(data, path=options.path, subset=options.subset, split=options.split, pass_rate_field=None)
        )
        return asked(found[: options.problems], options.template)
    if not data.path.startswith(GENERATED):
        raise UserError(
            f"no held-out problems of data.path={data.path} are known; set eval.path to a set of them, "
            "or give `igrpo eval` a --suite"
        )
    from igrpo_mcore.data.generated import generated

    return asked(generated(data, held_out=True)[: options.problems], options.template)


def asked(problems: Sequence[Problem], template: str) -> list[Problem]:
    """The problems with their texts in ``template`` (``eval.template``)."""
    return [replace(p, problem=template.replace("{problem}", p.problem)) for p in problems]


def _rows(config: DataConfig, on_fault: Fault | None) -> Iterator[Row]:
    path = Path(config.path).expanduser()
    suffix = path.suffix.lower()
    if path.is_file():
        if suffix in JSONL_SUFFIXES:
            return jsonl_rows(path, on_fault)
        if suffix in PARQUET_SUFFIXES:
            return _parquet_rows(path, config)
        raise UserError(f"{path} is neither JSONL nor Parquet by its name: rename it to .jsonl or .parquet.")
    known_suffix = suffix in JSONL_SUFFIXES + PARQUET_SUFFIXES
    if path.is_dir() or (HUB_ID.fullmatch(config.path) and not known_suffix):
        return _dataset_rows(config)
    raise UserError(f"There is no file {path}: correct data.path.")


def jsonl_rows(path: Path, on_fault: Fault | None = None) -> Iterator[Row]:
    """Every object of a JSON-lines file, all of its columns. Raises ``UserError`` naming the line."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = number, f"{path}, line {number}", _json_object(line, f"{path}, line {number}")
            except UserError as error:
                if on_fault is None:
                    raise
                on_fault(error)
                continue
            yield row


def _json_object(line: bytes, place: str) -> dict[str, Any]:
    try:
        columns = json.loads(line)
    except (ValueError, RecursionError) as error:  # malformed or too deep, or bytes that are not UTF-8
        raise UserError(f"{place}: not JSON ({error}); write one JSON object a line.") from error
    if not isinstance(columns, dict):
        raise UserError(f"{place}: a {type(columns).__name__}, not a JSON object; write one object a line.")
    return columns


def _parquet_rows(path: Path, config: DataConfig) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    wanted = {config.problem_field, config.answer_field, ID_COLUMN, config.pass_rate_field}
    try:
        file = pyarrow.parquet.ParquetFile(path)
        columns = [name for name in file.schema_arrow.names if name in wanted]
        _require_columns(file.schema_arrow.names, str(path), config)
        number = 0
        for batch in file.iter_batches(columns=columns):
            for columns_of_row in batch.to_pylist():
                number += 1
                yield number, f"{path}, row {number}", columns_of_row
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read as Parquet ({error}): write it anew.") from error


def _dataset_rows(config: DataConfig) -> Iterator[Row]:
    """Rows of a hub data set or of a local folder, through ``datasets.load_dataset``."""
    import datasets

    try:
        dataset = datasets.load_dataset(config.path, config.subset, split=config.split)
    except Exception as error:  # the hub client raises a dozen unrelated classes
        raise UserError(
            f"The data set {config.path} ({config.subset or 'default'}, split {config.split}) cannot be "
            f"loaded ({one_line(error)}): correct path, subset and split (data.path, eval.path or "
            "data.mixture), log in to the hub, or give a local JSONL or Parquet file."
        ) from error
    _require_columns(dataset.column_names, config.path, config)
    for number, columns in enumerate(dataset, start=1):
        yield number, f"{config.path} ({config.split}), row {number}", columns


def _require_columns(present: list[str], source: str, config: DataConfig) -> None:
    for option in ("problem_field", "answer_field", "pass_rate_field"):
        column = getattr(config, option)
        if column is not None and column not in present:
            raise UserError(
                f"{source} has no column {column!r} (it has {', '.join(present)}): set data.{option}."
            )


def _problem(row: Row, config: DataConfig) -> Problem:
    number, place, columns = row
    text = _text(columns, config.problem_field, place, "problem_field")
    answer = _text(columns, config.answer_field, place, "answer_field")
    identifier = columns.get(ID_COLUMN)
    return Problem(
        id=str(number if identifier is None else identifier),
        problem=text,
        answer=answer,
        pass_rate=_pass_rate(columns, config.pass_rate_field, place),
    )


def _pass_rate(columns: dict[str, Any], column: str | None, place: str) -> float | None:
    if column is None:
        return None
    value = columns.get(column)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise UserError(f"{place}: {column!r} is {value!r}; a pass rate is a number from 0 to 1.")
    return float(value)


def _text(columns: dict[str, Any], column: str, place: str, option: str) -> str:
    value = columns.get(column)
    if value is None:
        raise UserError(f"{place}: no {column!r}; add it, or set data.{option} to the column that holds it.")
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise UserError(f"{place}: {column!r} is a {type(value).__name__}; it must be a text or a number.")
    text = str(value)
    if not text.strip():
        raise UserError(f"{place}: {column!r} is empty; fill it in or remove the row.")
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise UserError(
            f"{place}: {column!r} holds half a surrogate pair (\\ud800 or so); write whole characters."
        )
    return text
