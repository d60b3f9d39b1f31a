"""How a provider writes its statements, and how exactly they must agree: one table of the configuration each.

Everything has a default, which is a CSV or JSON lines with columns of these very names, in credits.
"""

import re
from calendar import monthrange
from datetime import UTC, datetime
from enum import StrEnum
from fractions import Fraction
from typing import Annotated, NamedTuple

import msgspec

from ledger.money import parse_credits
from ledger.task import Status
from ledger.times import US_PER_DAY, US_PER_SECOND

_RATIONAL = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,18})?(?:/[0-9]{1,18}(?:\.[0-9]{1,18})?)?", re.ASCII)

OUTCOMES = {
    "completed": Status.COMPLETED,
    "succeeded": Status.COMPLETED,
    "success": Status.COMPLETED,
    "failed": Status.FAILED,
    "error": Status.FAILED,
    "cancelled": Status.CANCELLED,
    "canceled": Status.CANCELLED,
    "expired": Status.EXPIRED,
}
"""The words of an outcome that need no configuration."""


class Columns(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the columns are called. One that is named here must be there; None: it is read under its own name if it is.

    There must be an amount, and an id of the provider's or of ours.
    """

    line_id: str | None = None
    provider_task_id: str | None = None
    our_task_id: str | None = None
    model: str | None = None
    status: str | None = None
    amount: str | None = None
    currency: str | None = None
    started_at: str | None = None
    finished_at: str | None = None
    billed_at: str | None = None


COLUMNS = Columns.__struct_fields__


class Times(StrEnum):
    """How times are written."""

    RFC3339 = "rfc3339"
    SECONDS = "seconds"
    """Whole seconds of the Unix epoch."""
    MILLISECONDS = "milliseconds"


class PeriodLength(StrEnum):
    """What one statement covers, in UTC, where the command does not say."""

    DAY = "day"
    MONTH = "month"


class Terms(NamedTuple):
    """The numbers of a format, as they are reckoned with."""

    rate: Fraction
    tolerance_micros: int
    tolerance: Fraction
    """Of what is booked, as a share."""
    window_us: int


class StatementFormat(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table ``[statements.PROVIDER]``."""

    columns: Columns = Columns()
    delimiter: Annotated[str, msgspec.Meta(min_length=1, max_length=1)] = ","
    times: Times = Times.RFC3339
    currency: str | None = None
    """What it must bill in; None: the currency of most of its lines."""
    credits_per_unit: str = "1"
    """Credits for one unit of that currency: a decimal (``"0.5"``) or a fraction of two (``"1/3"``)."""
    tolerance_credits: str = "0"
    """Amounts of a task that differ by no more than this agree."""
    tolerance_percent: str = "0"
    """The same, in percent of what is booked; the larger of both counts."""
    period: PeriodLength = PeriodLength.MONTH
    late_after_days: Annotated[int, msgspec.Meta(ge=0, le=366)] = 5
    """A line is late when it is billed so long after the end of the period in which its task ended."""
    match_window_seconds: Annotated[int, msgspec.Meta(ge=0, le=366 * 86_400)] = 3600
    """How far apart a line without ids and a task may be that are one."""
    statuses: dict[str, Status] = {}
    """The provider's words for outcomes, in lower case, beside `OUTCOMES`."""
    owner: str | None = None
    """Whose the breaks are that its statements open."""

    def __post_init__(self) -> None:
        self.terms()

    def terms(self) -> Terms:
        """The numbers.

        Raises:
            ValueError: one of them is none; says which.
        """
        tolerance_micros = parse_credits(self.tolerance_credits)
        if tolerance_micros is None:
            raise ValueError(f"tolerance_credits {self.tolerance_credits!r} is no amount such as '0.01'")
        rate = _rational(self.credits_per_unit, "credits_per_unit")
        if not rate:
            raise ValueError("credits_per_unit must be more than 0")
        share = _rational(self.tolerance_percent, "tolerance_percent") / 100
        return Terms(rate, tolerance_micros, share, self.match_window_seconds * US_PER_SECOND)

    def outcome(self, word: str) -> Status | None:
        """What the provider's *word* means; None when nobody has said."""
        word = word.lower()
        return self.statuses.get(word) or OUTCOMES.get(word)


def whole_period(at_us: int, length: PeriodLength) -> tuple[int, int]:
    """The day or month, UTC, in which *at_us* lies: its beginning and its end."""
    day = at_us // US_PER_DAY
    if length is PeriodLength.DAY:
        return day * US_PER_DAY, (day + 1) * US_PER_DAY
    date = datetime.fromtimestamp(at_us // US_PER_SECOND, UTC)
    first = day - date.day + 1
    return first * US_PER_DAY, (first + monthrange(date.year, date.month)[1]) * US_PER_DAY


def _rational(text: str, name: str) -> Fraction:
    if not _RATIONAL.fullmatch(text):
        raise ValueError(f"{name} {text!r} is neither a decimal such as '0.5' nor a fraction such as '1/3'")
    above, _, below = text.partition("/")
    try:
        return Fraction(above) / Fraction(below or "1")
    except ZeroDivisionError:
        raise ValueError(f"{name} {text!r} divides by 0") from None
