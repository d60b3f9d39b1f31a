"""The records of a statement's file, CSV or JSON lines: text, not yet understood. Pure.

So that a stray quote spoils one line and not all that follow, a record is one line of the file: quoted text holds no
line breaks. A number of JSON is taken as the digits that stand there, and never becomes a float. A line of JSON that
names a member twice, of which one reader takes the first and the next one the last, is refused: what can be read in two
ways is not guessed. To look for that is a fifteenth of what it takes to read a line.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from functools import partial
from itertools import chain
from typing import TypeAlias

import msgspec

from projections.reconciliation.statement_format import COLUMNS, StatementFormat

LINE_MAX_BYTES = 64 * 1024
_LOOKED_AT_BYTES = 64 * 1024
_MARK = "\ufeff"

Values: TypeAlias = Callable[[], list[str]]
"""Raises ValueError when they cannot be read; says why."""


class NotAStatementError(ValueError):
    """The file is no statement in the agreed format; nothing of it was used."""


class Syntax(StrEnum):
    """How the lines are written."""

    CSV = "csv"
    JSON_LINES = "json-lines"


def records(data: bytes, form: StatementFormat, syntax: Syntax | None) -> Iterator[tuple[int, Values]]:
    """For each line of the file that is a record, its number, and what reads its values, in the order of `COLUMNS`.

    Raises:
        NotAStatementError: it is empty or binary, or has not the agreed columns.
    """
    data = data.removeprefix(_MARK.encode())
    if not data.strip():
        raise NotAStatementError("the file is empty")
    if b"\x00" in data[:_LOOKED_AT_BYTES]:
        raise NotAStatementError("the file is binary")
    syntax = syntax or (Syntax.JSON_LINES if data.lstrip()[:1] == b"{" else Syntax.CSV)
    numbered = (
        (number, raw.rstrip(b"\r\n")) for number, raw in enumerate(io.BytesIO(data), start=1) if raw.strip(b"\r\n\t ")
    )
    return _csv_records(numbered, form) if syntax is Syntax.CSV else _json_records(numbered, form)


def _csv_records(numbered: Iterator[tuple[int, bytes]], form: StatementFormat) -> Iterator[tuple[int, Values]]:
    _, head = next(numbered)
    try:
        names = [name.strip() for name in _split(_text(head), form.delimiter)]
    except ValueError as error:
        raise NotAStatementError(f"the first line does not name columns: {error}") from None
    if any(_MARK in name for name in names):
        raise NotAStatementError("a byte order mark hides the name of a column")
    if len(set(names)) != len(names):
        raise NotAStatementError("two columns have the same name")
    _require(names, form)
    places = [names.index(name) if name in names else None for name in _wanted(form)]
    width = len(names)
    return ((number, partial(_csv_values, raw, form.delimiter, places, width)) for number, raw in numbered)


def _csv_values(raw: bytes, delimiter: str, places: Sequence[int | None], width: int) -> list[str]:
    values = _split(_text(raw), delimiter)
    if len(values) != width:
        raise ValueError(f"{len(values)} values in {width} columns")
    return ["" if place is None else values[place].strip() for place in places]


def _json_records(numbered: Iterator[tuple[int, bytes]], form: StatementFormat) -> Iterator[tuple[int, Values]]:
    first = next(numbered)
    try:
        names = list(_object(first[1]))
    except ValueError as error:
        raise NotAStatementError(f"the first line is no object of JSON: {error}") from None
    _require(names, form)
    wanted = _wanted(form)
    return ((number, partial(_json_values, raw, wanted)) for number, raw in chain([first], numbered))


def _json_values(raw: bytes, wanted: Sequence[str]) -> list[str]:
    members = _object(raw)
    _name_once(raw, members)
    return [_json_text(name, members.get(name)) for name in wanted]


_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode = msgspec.json.Encoder().encode
_string = msgspec.json.Decoder(str)


def _object(raw: bytes) -> dict[str, msgspec.Raw]:
    _text(raw)  # for its length and its UTF-8
    try:
        return _members.decode(raw)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(str(error)) from None


def _name_once(raw: bytes, members: Mapping[str, msgspec.Raw]) -> None:
    """Check that *members* are all that the line names: of two that are called alike only the last one is among them.

    Without escapes the marks around texts tell, for values stand in *members* as they stand in the line.

    Raises:
        ValueError: one is named twice.
    """
    if b"\\" in raw:
        try:
            json.loads(raw, object_pairs_hook=_once_each, parse_int=str, parse_float=str)
        except RecursionError as error:
            raise ValueError(str(error)) from None
    elif raw.count(b'"') != _encode(members).count(b'"'):
        raise _twice()


def _once_each(members: list[tuple[str, object]]) -> None:
    if len(dict(members)) != len(members):
        raise _twice()


def _twice() -> ValueError:
    return ValueError("a member is named twice")


def _json_text(name: str, value: msgspec.Raw | None) -> str:
    """A string's text, or a number's digits as they stand: no float comes to be."""
    raw = b"null" if value is None else bytes(value)
    if raw == b"null":
        return ""
    if raw[:1] == b'"':
        return _string.decode(raw).strip()
    if raw[:1] in b"-0123456789":
        return raw.decode()
    raise ValueError(f"{name} is neither text nor a number")


def _text(raw: bytes) -> str:
    if len(raw) > LINE_MAX_BYTES:
        raise ValueError(f"the line is longer than {LINE_MAX_BYTES} bytes")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise ValueError("the line is not UTF-8") from None


def _split(text: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([text], delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise ValueError(str(error)) from None


def _wanted(form: StatementFormat) -> list[str]:
    """The name in the file of each of COLUMNS."""
    return [getattr(form.columns, name) or name for name in COLUMNS]


def _require(names: Sequence[str], form: StatementFormat) -> None:
    """Check that the agreed columns are there.

    Raises:
        NotAStatementError: they are not.
    """
    there = {column for column, name in zip(COLUMNS, _wanted(form), strict=True) if name in names}
    agreed = {column for column in COLUMNS if getattr(form.columns, column)}
    missing = sorted((agreed | {"amount"}) - there)
    if missing:
        raise NotAStatementError(f"no column for {', '.join(missing)} among {', '.join(names)[:200]!r}")
    if not there & {"provider_task_id", "our_task_id"}:
        raise NotAStatementError("no column for provider_task_id or our_task_id")
