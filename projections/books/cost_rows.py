"""What providers bill, as the books keep it: what each line comes to and for whom, and which events moved it."""

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, NamedTuple

import aiosqlite
import msgspec

from ledger.costs import Known, Owed, Whose, signed_micros
from ledger.errors import DamagedError
from ledger.events import CostEvent, ProviderBilled, ProviderCredited
from ledger.ids import Spelling, TaskId
from ledger.records import Recorded
from projections.books.booked import Asked
from projections.books.booked_sql import READ_MAX
from projections.books.books_sql import (
    BILL_TASK,
    COSTS_OF_TASK,
    LINES_KNOWN,
    LINES_OF,
    LOW_BITS,
    PUT_LINE,
    PUT_STREAM,
    STREAM_VERSION,
)
from projections.books.movements import Purpose
from projections.books.statement_rows import Saying

NO_TASK = b""
_LOW = (1 << LOW_BITS) - 1


class Cost(NamedTuple):
    """An event of a provider's stream, and where it stands."""

    row: Recorded
    event: CostEvent
    task: bytes
    came: int
    """The position at which its statement came."""

    @property
    def purpose(self) -> Purpose:
        """What it is for. Of a task it is not the task's own, for the billing school of that is not told."""
        event = self.event
        return Purpose(event.account, event.contract, event.model, event.provider, school="")

    def movement(self, purpose: int) -> tuple[Any, ...]:
        """The row of its movement."""
        row, entry = self.row, self.row.entry
        amount_micros = self.event.amount_micros
        return row.position, self.task, purpose, entry.type, amount_micros, entry.recorded_at_us, entry.effective_at_us


def costs_of(said: Sequence[Saying], came: Sequence[int]) -> list[Cost]:
    """Those events that say what a provider bills, each with when its statement *came*.

    Raises:
        DamagedError: one of them names no task.
    """
    return [
        Cost(row, event, _task(row, event), position)
        for (row, event), position in zip(said, came, strict=True)
        if isinstance(event, ProviderBilled | ProviderCredited)
    ]


async def post_lines(file: aiosqlite.Connection, costs: Sequence[Cost]) -> None:
    """Move the lines, and what their tasks were billed in all, inside the transaction that is open."""
    await file.executemany(PUT_LINE, [_line(one.event) for one in costs])
    await file.executemany(BILL_TASK, [_bill(one) for one in costs if one.task != NO_TASK])
    versions = {one.event.provider: one.row.version for one in costs}
    await file.executemany(PUT_STREAM, list(versions.items()))


def _bill(cost: Cost) -> tuple[int, int, int, bytes]:
    micros = signed_micros(cost.event)
    return micros >> LOW_BITS, micros & _LOW, cost.came, cost.task


async def lines_known(books: Asked, provider: str, lines: Sequence[str]) -> dict[str, Known]:
    """What those of *provider*'s lines come to that have been read before."""
    known: dict[str, Known] = {}
    for start in range(0, len(lines), READ_MAX):
        wanted = msgspec.json.encode(lines[start : start + READ_MAX]).decode()
        known |= {row[0]: _known(row) for row in await books.ask(LINES_KNOWN, (wanted, provider))}
    return known


async def lines_of(books: Asked, provider: str, statements: Iterable[str]) -> AsyncIterator[list[Known]]:
    """The lines that one of these *statements* was the last to move, and that do not come to nothing, in order."""
    wanted, line = msgspec.json.encode(sorted(statements)).decode(), ""
    while True:
        values = {"provider": provider, "statements": wanted, "line": line, "limit": READ_MAX}
        page = [_known(row) for row in await books.ask(LINES_OF, values)]
        if not page:
            return
        yield page
        line = page[-1].owed.line


async def stream_version(books: Asked, provider: str) -> int:
    """How many events the provider's stream has in the books."""
    rows = await books.ask(STREAM_VERSION, (provider,))
    return int(rows[0][0]) if rows else 0


async def positions_of_costs(books: Asked, task: TaskId, *, until: int) -> list[int]:
    """Where in the log, up to *until*, it stands what the task's provider has billed for it."""
    return [int(row[0]) for row in await books.ask(COSTS_OF_TASK, (task, until))]


def _known(row: Sequence[Any]) -> Known:
    line, task, account, contract, model, micros, at_us, came = row
    return Known(Owed(line, Whose(task, account, contract, model), micros, at_us), came)


def _line(event: CostEvent) -> tuple[Any, ...]:
    whose = (event.task, event.account, event.contract, event.model)
    return event.provider, event.line, *whose, event.line_micros, event.at_us, event.statement


def _task(row: Recorded, event: CostEvent) -> bytes:
    task = None if event.task is None else Spelling.UUID.parse(event.task)
    if event.task is not None and task is None:
        raise DamagedError(f"the event at position {row.position} names no task: {event.task!r}")
    return NO_TASK if task is None else task
