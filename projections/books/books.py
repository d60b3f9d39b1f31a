"""The books: every movement of money in the log, in a side file, folded by following the log.

Alternative beaten: sums over the log itself, which has no column for what a task is for, and rows four times as wide.
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import aiosqlite

from ledger.engine import Engine
from ledger.errors import DamagedError
from ledger.events import Created, School
from ledger.records import Recorded
from projections.books import booked_steps
from projections.books.booked_sql import ADD_PROVIDER_TASK, MOVE_MONEY, STEP
from projections.books.books_sql import (
    ADD_MOVEMENT,
    ADD_PURPOSE,
    ADD_TASK,
    BY_DAY,
    BY_PURPOSE,
    LOW_BITS,
    PURPOSE_OF,
    PURPOSES,
    SHAPE,
)
from projections.books.break_rows import post_breaks
from projections.books.cost_rows import costs_of, post_lines
from projections.books.movements import COSTS, NO_SUMS, Kind, Purpose, Sums
from projections.books.statement_rows import post_statements, sayings
from projections.facts import event_of, not_as_its_row_says
from projections.side_file import SideFile, SideFileError, beside, open_side_file

TASKS_MAX = 50_000
"""Tasks whose purpose is kept in memory; that of others is read from the file."""
OF_TASKS = frozenset(Kind) - COSTS
FOREVER_US = 2**63 - 1


class BooksError(SideFileError):
    """The books did not answer, or did not take a page; the log itself may be well."""


class Clock(StrEnum):
    """By which time a movement belongs to a period."""

    EFFECTIVE = "effective"
    """When it happened at its source."""
    RECORDED = "recorded"
    """When the ledger wrote it."""


class Period(NamedTuple):
    """Which movements: those up to *position* of the log whose *clock* is from *since_us* on and before *until_us*."""

    position: int
    clock: Clock = Clock.EFFECTIVE
    since_us: int = 0
    until_us: int = FOREVER_US


Totals: TypeAlias = "dict[tuple[Purpose, int], Sums]"
"""Sums by purpose and day (whole days since the epoch, UTC; 0 where days are not told apart)."""


class Books(SideFile):
    """The books of one log. `open_books` is the way to get them."""

    shape = SHAPE
    error = BooksError

    def __init__(self, file: aiosqlite.Connection) -> None:
        super().__init__(file)
        self._numbers: dict[Purpose, int] = {}
        self._purposes: dict[int, Purpose] = {}
        self._tasks: dict[bytes, int] = {}

    def _forget(self) -> None:
        self._tasks.clear()
        self._numbers.clear()
        self._purposes.clear()

    async def _post(self, rows: Sequence[Recorded]) -> None:
        begun = [row for row in rows if row.entry.type == "created"]
        created = [(row.stream, await self._number(_purpose(row))) for row in begun]
        added = [(*known, *booked_steps.begun(row)) for known, row in zip(created, begun, strict=True)]
        await self._file.executemany(ADD_TASK, added)
        self._remember(created)
        money = [row for row in rows if row.entry.amount_micros is not None and row.entry.type in OF_TASKS]
        await self._file.executemany(ADD_MOVEMENT, [await self._values(row) for row in money])
        captures = {row.position for row in money if row.entry.type == "charged" and await self._captures(row)}
        await self._file.executemany(STEP, booked_steps.steps(rows))
        await self._file.executemany(MOVE_MONEY, booked_steps.moved(money, captures=captures))
        await self._file.executemany(ADD_PROVIDER_TASK, booked_steps.provider_ids(rows))
        await self._post_costs(rows)
        await post_breaks(self._file, rows)

    async def _post_costs(self, rows: Sequence[Recorded]) -> None:
        """Post what statements have said, after what made the tasks that they bill."""
        said = sayings(rows)
        if not said:
            return
        costs = costs_of(said, await post_statements(self._file, said))
        if costs:
            numbers = [await self._number(cost.purpose) for cost in costs]
            moved = [cost.movement(number) for cost, number in zip(costs, numbers, strict=True)]
            await self._file.executemany(ADD_MOVEMENT, moved)
            await post_lines(self._file, costs)

    async def totals(self, period: Period, *, by_day: bool = False) -> Totals:
        """What was moved in *period*."""
        statement = (BY_DAY if by_day else BY_PURPOSE)[period.clock]
        bounds = {"position": period.position, "since": period.since_us, "until": period.until_us}
        async with self._turn:
            found = await self._read(statement, bounds)
            if any(row[0] not in self._purposes for row in found):  # another process has followed in between
                await self._learn_purposes()
        return _totals(found, self._purposes)

    async def _number(self, purpose: Purpose) -> int:
        number = self._numbers.get(purpose)
        if number is None:
            await self._learn_purposes()
            number = self._numbers.get(purpose)
        if number is None:
            added = await self._file.execute(ADD_PURPOSE, purpose)
            number = added.lastrowid
            assert number is not None
            self._numbers[purpose] = number
            self._purposes[number] = purpose
        return number

    async def _learn_purposes(self) -> None:
        self._numbers = {Purpose(*row[1:]): row[0] for row in await self._read(PURPOSES)}
        self._purposes = {number: purpose for purpose, number in self._numbers.items()}

    async def _values(self, row: Recorded) -> tuple[Any, ...]:
        entry = row.entry
        number = self._tasks.get(row.stream)
        if number is None:
            number = await self._number_of(row)
        return (
            row.position,
            row.stream,
            number,
            entry.type,
            entry.amount_micros,
            entry.recorded_at_us,
            entry.effective_at_us,
        )

    async def _captures(self, row: Recorded) -> bool:
        """Whether a charge is taken out of what is held: by the billing school of its task."""
        number = self._tasks.get(row.stream)
        if number is None:
            number = await self._number_of(row)
        if number not in self._purposes:
            await self._learn_purposes()
        return self._purposes[number].school == School.HOLD

    async def _number_of(self, row: Recorded) -> int:
        found = await self._read(PURPOSE_OF, (row.stream,))
        if not found:
            raise DamagedError(f"the event at position {row.position} moves money of a task that was never created")
        self._remember([(row.stream, found[0][0])])
        return int(found[0][0])

    def _remember(self, tasks: Sequence[tuple[bytes, int]]) -> None:
        if len(self._tasks) + len(tasks) > TASKS_MAX:
            self._tasks.clear()
        self._tasks.update(tasks)


def _purpose(row: Recorded) -> Purpose:
    """What the task is for.

    Raises:
        DamagedError: its event cannot be read, or is not the one that its row says.
    """
    event = event_of(row)
    if not isinstance(event, Created):
        raise not_as_its_row_says(row)
    return Purpose(event.account, event.contract, event.model, event.provider, event.terms.school)


def _totals(rows: Iterable[Sequence[Any]], purposes: Mapping[int, Purpose]) -> Totals:
    """Rows of a purpose's number, a day, a kind, a count, and a sum in two parts, gathered."""
    totals: Totals = {}
    for number, day, kind, movements, high, low in rows:
        purpose, amount_micros = purposes[number], (high << LOW_BITS) + low
        sums = _sums(Kind(kind), purpose, movements=movements, amount_micros=amount_micros)
        totals[purpose, day] = totals.get((purpose, day), NO_SUMS).plus(sums)
    return totals


def _sums(kind: Kind, purpose: Purpose, *, movements: int, amount_micros: int) -> Sums:
    match kind:
        case Kind.HELD:
            return Sums(movements=movements, held_micros=amount_micros)
        case Kind.RELEASED:
            return Sums(movements=movements, released_micros=amount_micros)
        case Kind.CHARGED:
            captured_micros = amount_micros if purpose.school == School.HOLD else 0
            return Sums(movements=movements, charged_micros=amount_micros, captured_micros=captured_micros)
        case Kind.REFUNDED:
            return Sums(movements=movements, refunded_micros=amount_micros)
        case Kind.BILLED:
            return Sums(movements=movements, billed_micros=amount_micros)
        case Kind.CREDITED:
            return Sums(movements=movements, credited_micros=amount_micros)


def books_of(ledger: Path) -> Path:
    """Where the books of the ledger in that file are."""
    return beside(ledger, "books")


async def open_books(path: Path, engine: Engine) -> Books:
    """The books of *engine*'s log in the file *path*, begun if there are none.

    Raises:
        CannotOpenError, StorageError: as `open_side_file`.
    """
    return await open_side_file(Books, path, engine)
