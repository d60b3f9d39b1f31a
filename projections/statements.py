"""A provider's statement: its file read line by line, CSV or JSON lines. Pure.

A line that cannot be read is told with its number and stops nothing else. So that a stray quote spoils one line and
not all that follow, a record is one line of the file: quoted text holds no line breaks. A file that is no statement is
refused as a whole.

Amounts are decimal text and never a float, also where JSON writes them as numbers. They are taken exactly; where the
agreed rate makes something else than whole micro-credits of them, a line counts as the nearest one, halves away from
zero: so what many lines leave cancels out, and a line that gives back is rounded as the one that took. What it was
rounded from is kept with it, and what all lines leave is told with the statement. Exponents and separators of thousands
are refused, and so is a line of JSON that names a member twice, of which one reader takes the first and the next one
the last: what can be read in two ways is not guessed. To look for that is a fifteenth of what it takes to read a line.
"""

import csv
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from fractions import Fraction
from functools import partial
from itertools import chain
from typing import NamedTuple, TypeAlias

import msgspec

from ledger.ids import TaskId
from ledger.money import AMOUNT_MAX_MICROS, MICROS_PER_CREDIT, Rounded, Rounding, rounded
from ledger.times import END_US, US_PER_SECOND, parse_rfc3339
from projections.statement_format import COLUMNS, StatementFormat, Times

LINE_MAX_BYTES = 64 * 1024
TEXT_MAX_CHARS = 256
"""Of an id or a word."""
MALFORMED_MAX = 1000
"""Malformed lines told; the others are counted."""
_LOOKED_AT_BYTES = 64 * 1024
_MARK = "\ufeff"
_AMOUNT = re.compile(r"(-?)([0-9]{1,38})(?:\.([0-9]{1,38}))?", re.ASCII)
_WHOLE = re.compile(r"[0-9]{1,15}", re.ASCII)
_US = {Times.SECONDS: US_PER_SECOND, Times.MILLISECONDS: 1000}

TaskIdIn: TypeAlias = Callable[[str], TaskId | None]
"""Reads a task's id in the spelling of any contract."""


class NotAStatementError(ValueError):
    """The file is no statement in the agreed format; nothing of it was used."""


class Syntax(StrEnum):
    """How the lines are written."""

    CSV = "csv"
    JSON_LINES = "json-lines"


class Line(msgspec.Struct, frozen=True, gc=False):
    """A line of a statement. The amount is micro-credits, times are Unix microseconds; texts are empty if absent."""

    number: int
    line_id: str
    provider_task_id: str
    our_task_id: str
    task: TaskId | None
    """The task that ``our_task_id`` spells."""
    model: str
    status: str
    amount_micros: int
    currency: str
    started_at_us: int | None
    finished_at_us: int | None
    billed_at_us: int | None
    rounded_from: str = ""
    """The amount in its own unit, where the rate makes no whole number of micro-credits of it; empty: it does."""

    @property
    def at_us(self) -> int | None:
        """When its work ended, or what comes closest to it."""
        return self.finished_at_us or self.billed_at_us or self.started_at_us


class Malformed(NamedTuple):
    """A line that cannot be read."""

    number: int
    reason: str


class Statement(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A statement: its lines in the order of the file."""

    digest: str
    """SHA-256 of the file, in hex."""
    currency: str
    lines: Sequence[Line]
    malformed: Sequence[Malformed]
    malformed_count: int
    remainder: Fraction = Fraction()
    """What the lines' amounts lack of what the rate makes of them, all added up, in micro-credits."""

    @property
    def billed_micros(self) -> int:
        """All lines added up, whatever their currency."""
        return sum(line.amount_micros for line in self.lines)


def read_statement(data: bytes, form: StatementFormat, *, task_in: TaskIdIn, syntax: Syntax | None = None) -> Statement:
    """The statement in *data*. Without *syntax*, what begins with a brace is JSON lines.

    Raises:
        NotAStatementError: it is empty or binary, or has not the agreed columns.
    """
    lines: list[Line] = []
    malformed: list[Malformed] = []
    count = 0
    cells = _Cells(form, task_in)
    for number, values in _records(data, form, syntax):
        try:
            lines.append(cells.line(number, values()))
        except ValueError as error:
            count += 1
            if count <= MALFORMED_MAX:
                malformed.append(Malformed(number, str(error)))
    return Statement(
        digest=hashlib.sha256(data).hexdigest(),
        currency=form.currency or _most_used(lines),
        lines=lines,
        malformed=malformed,
        malformed_count=count,
        remainder=sum((Fraction(left, divisor) for divisor, left in cells.left.items()), Fraction()),
    )


def micros_in(text: str, rate: Fraction) -> Rounded:
    """Micro-credits of *text* units at *rate* credits each, to the nearest.

    Raises:
        ValueError: it is no plain decimal, or too large.
    """
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise ValueError(f"amount {text[:40]!r} is no plain decimal such as 1.5")
    sign, whole, fraction = match.groups(default="")
    above = int(sign + whole + fraction) * rate.numerator * MICROS_PER_CREDIT
    amount = rounded(above, 10 ** len(fraction) * rate.denominator, to=Rounding.NEAREST)
    if abs(amount.whole) > AMOUNT_MAX_MICROS:
        raise ValueError(f"amount {text[:40]} is too large")
    return amount


# Records: for each line of the file, its number and what reads its values, in the order of COLUMNS

Values: TypeAlias = Callable[[], list[str]]


def _records(data: bytes, form: StatementFormat, syntax: Syntax | None) -> Iterator[tuple[int, Values]]:
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


# Values


class _Cells:
    """Makes lines of values; all that is the same for each of them is looked up once."""

    def __init__(self, form: StatementFormat, task_in: TaskIdIn) -> None:
        self._rate = form.terms().rate
        self._times = form.times
        self._task_in = task_in
        self.left: Counter[int] = Counter()
        """What the amounts lack, by divisor."""

    def line(self, number: int, values: Sequence[str]) -> Line:
        """The line.

        Raises:
            ValueError: a value is none of its column's; says which.
        """
        line_id, provider_id, our_id, model, status, amount, currency, started_at, finished_at, billed_at = values
        for text in (line_id, provider_id, our_id, model, status, currency):
            if len(text) > TEXT_MAX_CHARS or not text.isprintable():
                raise ValueError(f"{text[:40]!r} is longer than {TEXT_MAX_CHARS} characters or not printable")
        micros, left, divisor = micros_in(amount, self._rate)
        line = Line(
            number,
            line_id,
            provider_id,
            our_id,
            self._task_in(our_id) if our_id else None,
            model,
            status,
            micros,
            currency,
            self._time(started_at, "started_at"),
            self._time(finished_at, "finished_at"),
            self._time(billed_at, "billed_at"),
            amount if left else "",
        )
        if left:
            self.left[divisor] += left
        return line

    def _time(self, text: str, column: str) -> int | None:
        if not text:
            return None
        if self._times is Times.RFC3339:
            at_us = parse_rfc3339(text)
        else:
            at_us = int(text) * _US[self._times] if _WHOLE.fullmatch(text) else None
        if at_us is None or at_us >= END_US:
            raise ValueError(f"{column} {text[:40]!r} is no time in {self._times}")
        return at_us


def _most_used(lines: Sequence[Line]) -> str:
    """The currency of most lines, the first of several; empty when none names one."""
    named = Counter(line.currency for line in lines if line.currency)
    return named.most_common(1)[0][0] if named else ""
