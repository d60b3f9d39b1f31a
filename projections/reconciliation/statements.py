"""A provider's statement: its lines, read with the agreed format. Pure.

A line that cannot be read is told with its number and stops nothing else. A file that is no statement is refused as a
whole.

Amounts are decimal text and never a float. They are taken exactly; where the agreed rate makes something else than
whole micro-credits of them, a line counts as the nearest one, halves away from zero: so what many lines leave cancels
out, and a line that gives back is rounded as the one that took. What it was rounded from is kept with it, and what all
lines leave is told with the statement. Exponents and separators of thousands are refused: what can be read in two ways
is not guessed.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import NamedTuple, TypeAlias

import msgspec

from ledger.ids import TaskId
from ledger.money import AMOUNT_MAX_MICROS, MICROS_PER_CREDIT, Rounded, Rounding, rounded
from ledger.times import END_US, US_PER_SECOND, parse_rfc3339
from projections.reconciliation.statement_format import StatementFormat, Times
from projections.reconciliation.statement_records import Syntax, records

TEXT_MAX_CHARS = 256
"""Of an id or a word."""
MALFORMED_MAX = 1000
"""Malformed lines told; the others are counted."""
_AMOUNT = re.compile(r"(-?)([0-9]{1,38})(?:\.([0-9]{1,38}))?", re.ASCII)
_WHOLE = re.compile(r"[0-9]{1,15}", re.ASCII)
_US = {Times.SECONDS: US_PER_SECOND, Times.MILLISECONDS: 1000}

TaskIdIn: TypeAlias = Callable[[str], TaskId | None]
"""Reads a task's id in the spelling of any contract."""


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
    for number, values in records(data, form, syntax):
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
