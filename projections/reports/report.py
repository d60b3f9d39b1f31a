"""Reports: what was moved in a period, line by line, as known at a position of the log. Pure, but for `draw`.

Two clocks make a month that can be closed. What belongs to the month is decided by one of them, and what was known of
it by the position: the month as known then gives the same bytes for ever, and as known now it differs by exactly what
has been recorded since. A report names its position and the hash there, so that equal names mean equal figures,
whatever screen, route or format they are read on.
"""

from collections.abc import Iterable
from datetime import date, timedelta
from enum import StrEnum
from functools import reduce
from typing import NamedTuple

import msgspec

from ledger.engine import Engine
from ledger.money import credits_text
from ledger.times import rfc3339
from projections.books.books import FOREVER_US, Books, Clock, Period, Totals
from projections.books.books_sql import SCHEMA_VERSION
from projections.books.movements import Purpose, Sums
from projections.follow import Progress, catch_up, nobody
from projections.places import Place, place_of

EPOCH = date(1970, 1, 1)


class By(StrEnum):
    """What a line of a report is about."""

    ACCOUNT = "account"
    MODEL = "model"
    CONTRACT = "contract"
    PROVIDER = "provider"
    DAY = "day"


class Wanted(NamedTuple):
    """What to report: by what, of which time by which clock, and as known where in the log (as `place_of` reads it)."""

    by: By = By.ACCOUNT
    clock: Clock = Clock.EFFECTIVE
    since_us: int = 0
    until_us: int = FOREVER_US
    at: str | None = None


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """The sums of one account, model or day. Amounts are decimal text of credits, exact.

    An empty key, or an empty contract in it, is of what providers bill for no task of ours.
    """

    key: str
    movements: int
    held_credits: str
    released_credits: str
    charged_credits: str
    refunded_credits: str
    net_credits: str
    open_credits: str
    """Of what was held in these movements, what they have neither released nor charged."""
    cost_credits: str
    """What providers have billed, in the statements that were read."""
    margin_credits: str
    """What is left of *net* after it."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Lines in the order of their keys, and all of them together."""

    books: int = SCHEMA_VERSION
    """The version of the books: with another, the same log may be booked in another way."""
    position: int
    head: str
    """The hash of the event at *position*, in hex."""
    by: By
    clock: Clock
    since: str | None
    until: str | None
    lines: tuple[Line, ...]
    total: Line


def report(totals: Totals, wanted: Wanted, place: Place) -> Report:
    """The report that *totals*, as *wanted* and as known at *place*, come to."""
    grouped: dict[str, Sums] = {}
    for (purpose, day), sums in totals.items():
        key = _key(purpose, day, wanted.by)
        grouped[key] = grouped.get(key, Sums()).plus(sums)
    return Report(
        position=place.position,
        head=place.hash.hex(),
        by=wanted.by,
        clock=wanted.clock,
        since=since_text(wanted),
        until=until_text(wanted),
        lines=tuple(line(key, grouped[key]) for key in sorted(grouped)),
        total=line("total", together(grouped.values())),
    )


def since_text(wanted: Wanted) -> str | None:
    """When the period begins; None: at the beginning."""
    return rfc3339(wanted.since_us) if wanted.since_us else None


def until_text(wanted: Wanted) -> str | None:
    """Before when the period ends; None: it does not."""
    return None if wanted.until_us == FOREVER_US else rfc3339(wanted.until_us)


def line(key: str, sums: Sums) -> Line:
    """*sums* as they are printed."""
    return Line(
        key=key,
        movements=sums.movements,
        held_credits=credits_text(sums.held_micros),
        released_credits=credits_text(sums.released_micros),
        charged_credits=credits_text(sums.charged_micros),
        refunded_credits=credits_text(sums.refunded_micros),
        net_credits=credits_text(sums.net_micros),
        open_credits=credits_text(sums.open_micros),
        cost_credits=credits_text(sums.cost_micros),
        margin_credits=credits_text(sums.margin_micros),
    )


def together(sums: Iterable[Sums]) -> Sums:
    """All of them added up."""
    return reduce(Sums.plus, sums, Sums())


def day_text(day: int) -> str:
    """``2026-01-02``, of whole days since the epoch."""
    return (EPOCH + timedelta(days=day)).isoformat()


def _key(purpose: Purpose, day: int, by: By) -> str:
    match by:
        case By.ACCOUNT:
            return purpose.account
        case By.MODEL:
            return f"{purpose.contract}/{purpose.model}"
        case By.CONTRACT:
            return purpose.contract
        case By.PROVIDER:
            return purpose.provider
        case By.DAY:
            return day_text(day)


async def draw(engine: Engine, books: Books, wanted: Wanted, *, progress: Progress = nobody) -> Report:
    """The report that is *wanted*, from books brought up to its position.

    Raises:
        NoSuchPlaceError: its place is none of this log.
        StorageError: the log or the books could not be read.
    """
    place = await place_of(engine, wanted.at)
    await catch_up(engine, books, progress=progress)
    period = Period(place.position, wanted.clock, wanted.since_us, wanted.until_us)
    totals = await books.totals(period, by_day=wanted.by is By.DAY)
    return report(totals, wanted, place)
