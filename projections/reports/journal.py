"""The books as a journal: what every double-entry program's file holds, before it is spelled for one of them. Pure.

An entry gathers a day's movements of one kind of one customer, contract and model, and so what providers bill for
them. Amounts are signed as those programs do: a debit is more, a credit is less, and an entry comes to nothing.

A journal stands for itself: one of a part of the log opens with what customers had, what was held and what providers
were owed before it, against *opening*, which so holds what was earned until then; revenue and cost begin at nothing,
and end at what the period has earned and cost. Its balances say what each account must come to, so that a line which
is lost or changed on the way is noticed by the program that reads it. Alternative beaten: an entry for each movement,
a hundred times as long, which those programs take minutes to read.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import timedelta
from enum import StrEnum
from itertools import groupby
from typing import NamedTuple, TypeAlias

import msgspec

from ledger.engine import Engine
from ledger.money import fixed_text
from ledger.times import US_PER_DAY
from projections.books.books import Books, Period, Totals
from projections.books.books_sql import SCHEMA_VERSION
from projections.books.movements import Book, Kind, Purpose, Sums, posting
from projections.follow import Progress, catch_up, nobody
from projections.places import Place, place_of
from projections.reports.report import EPOCH, Wanted, since_text, until_text

COMMODITY = "CREDIT"
_OPENING = "opening"
_NO_TASK = "no-task"
"""Whom it is about what providers bill for no task of ours."""


class Heading(StrEnum):
    """Under what an account stands."""

    CUSTOMERS = "customers"
    HELD = "held"
    REVENUE = "revenue"
    COST = "cost"
    PAYABLE = "payable"
    OPENING = "opening"


class Account(NamedTuple):
    """An account of the journal: a customer's, a provider's, or a contract's and model's; *names* are as they are."""

    heading: Heading
    names: tuple[str, ...] = ()


class Leg(NamedTuple):
    """An account and an amount: what an entry adds to it, or what it holds."""

    account: Account
    micros: int


class Subject(NamedTuple):
    """What an entry is about, in the order of the journal."""

    day: int
    account: str
    contract: str
    model: str
    kind: Kind

    @property
    def order(self) -> tuple[int, str, str, str, int]:
        return self.day, self.account, self.contract, self.model, _KINDS.index(self.kind)


_KINDS = tuple(Kind)
_CARRIED_ON = {Heading.CUSTOMERS, Heading.HELD, Heading.PAYABLE}
"""What a period begins with; revenue and cost begin at nothing."""
_EARNED = {Heading.REVENUE, Heading.COST}


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A transaction. *day* counts whole days since the epoch, UTC; the legs come to nothing together."""

    day: int
    payee: str
    narration: str
    legs: tuple[Leg, ...]


class Balance(msgspec.Struct, frozen=True, kw_only=True):
    """What accounts hold when *day* is over."""

    day: int
    legs: tuple[Leg, ...]


Item: TypeAlias = Entry | Balance


class Journal(msgspec.Struct, frozen=True, kw_only=True):
    """Entries and balances in the order of their days, and what they rest on."""

    notes: tuple[str, ...]
    items: tuple[Item, ...]

    @property
    def accounts(self) -> list[Account]:
        """All that occur, in order."""
        return sorted({leg.account for item in self.items for leg in item.legs})

    @property
    def first_day(self) -> int:
        return min((item.day for item in self.items), default=0)


def journal(totals: Totals, before: Totals, wanted: Wanted, place: Place) -> Journal:
    """The journal of *totals*, by day, after what was moved *before* the period."""
    days = _entries(totals)
    opening = _opening(_entries(before), wanted.since_us // US_PER_DAY)
    return Journal(notes=_notes(wanted, place), items=tuple(_balanced([*opening, *days])))


def amount_text(micros: int) -> str:
    """``-1.500000 CREDIT``."""
    return f"{fixed_text(micros, decimals=6)} {COMMODITY}"


def _entries(totals: Totals) -> list[Entry]:
    gathered: dict[Subject, Counter[Account]] = {}
    for (purpose, day), sums in totals.items():
        for kind, micros in _amounts(sums):
            subject = Subject(day, purpose.account, purpose.contract, purpose.model, kind)
            legs = gathered.setdefault(subject, Counter())
            debit, credit = posting(kind, purpose.school)
            legs[_account(debit, purpose)] += micros
            legs[_account(credit, purpose)] -= micros
    return [_entry(subject, gathered[subject]) for subject in sorted(gathered, key=lambda one: one.order)]


def _amounts(sums: Sums) -> Iterator[tuple[Kind, int]]:
    amounts = {
        Kind.HELD: sums.held_micros,
        Kind.RELEASED: sums.released_micros,
        Kind.CHARGED: sums.charged_micros,
        Kind.REFUNDED: sums.refunded_micros,
        Kind.BILLED: sums.billed_micros,
        Kind.CREDITED: sums.credited_micros,
    }
    return ((kind, micros) for kind, micros in amounts.items() if micros)


def _account(book: Book, purpose: Purpose) -> Account:
    match book:
        case Book.CUSTOMER:
            return Account(Heading.CUSTOMERS, (purpose.account,))
        case Book.HELD:
            return Account(Heading.HELD, (purpose.account,))
        case Book.REVENUE:
            return Account(Heading.REVENUE, (purpose.contract, purpose.model))
        case Book.COST:
            # All three parts, empty ones too: Beancount's balance of an account holds those below it as well.
            return Account(Heading.COST, (purpose.provider, purpose.contract, purpose.model))
        case Book.PAYABLE:
            return Account(Heading.PAYABLE, (purpose.provider,))


def _entry(subject: Subject, amounts: Counter[Account]) -> Entry:
    return Entry(
        day=subject.day,
        payee=subject.account or _NO_TASK,
        narration=f"{subject.kind} {subject.contract}/{subject.model}",
        legs=_legs(amounts),
    )


def _legs(amounts: Counter[Account]) -> tuple[Leg, ...]:
    return tuple(Leg(account, amounts[account]) for account in sorted(amounts))


def _opening(before: Iterable[Entry], day: int) -> list[Entry]:
    """The entry that gives each customer and provider what it had, if there is anything."""
    held: Counter[Account] = Counter()
    for leg in (leg for entry in before for leg in entry.legs):
        own = leg.account.heading in _CARRIED_ON
        held[leg.account if own else Account(Heading.OPENING)] += leg.micros
    held = Counter({account: micros for account, micros in held.items() if micros})
    return [Entry(day=day, payee=_OPENING, narration=_OPENING, legs=_legs(held))] if held else []


def _balanced(entries: list[Entry]) -> Iterator[Item]:
    """*entries*, with what revenue and cost have come to after each month, and at the end what every account holds."""
    held: Counter[Account] = Counter()
    for month_end, some in groupby(entries, key=lambda entry: _month_end(entry.day)):
        for entry in some:
            yield entry
            for leg in entry.legs:
                held[leg.account] += leg.micros
        if month_end < _month_end(entries[-1].day):
            earned = Counter({one: micros for one, micros in held.items() if one.heading in _EARNED})
            yield Balance(day=month_end, legs=_legs(earned))
    if entries:
        yield Balance(day=entries[-1].day, legs=_legs(held))


def _month_end(day: int) -> int:
    """The last day of the month that *day* lies in."""
    first = (EPOCH + timedelta(days=day)).replace(day=1)
    following = (first + timedelta(days=31)).replace(day=1)
    return (following - EPOCH).days - 1


def _notes(wanted: Wanted, place: Place) -> tuple[str, ...]:
    since, until = since_text(wanted) or "the beginning", until_text(wanted) or "the end"
    return (
        f"Task Ledger, books {SCHEMA_VERSION}, as known at position {place.position}, head {place.hash.hex()}",
        f"from {since} until {until}, by {wanted.clock} time",
    )


async def draw_journal(engine: Engine, books: Books, wanted: Wanted, *, progress: Progress = nobody) -> Journal:
    """The journal of the period that is *wanted*; what it is to be drawn by is of no account.

    Raises:
        NoSuchPlaceError: its place is none of this log.
        StorageError: the log or the books could not be read.
    """
    place = await place_of(engine, wanted.at)
    await catch_up(engine, books, progress=progress)
    totals = await books.totals(Period(place.position, wanted.clock, wanted.since_us, wanted.until_us), by_day=True)
    before = await books.totals(Period(place.position, wanted.clock, until_us=wanted.since_us))
    return journal(totals, before, wanted, place)
