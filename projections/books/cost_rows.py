"""What providers bill, as the books keep it: what each line comes to and for whom, and which events moved it."""

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, NamedTuple

import aiosqlite
import msgspec

from ledger.costs import Owed, Whose, signed_micros
from ledger.errors import DamagedError
from ledger.events import CostEvent, ProviderBilled, ProviderCredited, StatementReplaced
from ledger.ids import Spelling, TaskId
from ledger.records import Recorded
from projections.books.booked import READ_MAX, Asked
from projections.books.books_sql import (
    BILL_TASK,
    COSTS_OF_TASK,
    LINES_KNOWN,
    LINES_OF,
    PUT_LINE,
    PUT_REPLACED,
    PUT_STREAM,
    REPLACED_BY,
    STREAM_VERSION,
)
from projections.books.movements import COSTS, Purpose
from projections.facts import event_of, not_as_its_row_says

NO_TASK = b""


class Cost(NamedTuple):
    """An event of a provider's stream, and where it stands."""

    row: Recorded
    event: CostEvent
    task: bytes

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


def cost_events(rows: Sequence[Recorded]) -> list[Cost]:
    """Those of *rows* that say what a provider bills.

    Raises:
        DamagedError: one of them is not what its row says.
    """
    return [_cost(row) for row in rows if row.entry.type in COSTS]


async def post_lines(file: aiosqlite.Connection, costs: Sequence[Cost]) -> None:
    """Move the lines, and what their tasks were billed in all, inside the transaction that is open."""
    await file.executemany(PUT_LINE, [_line(event) for _, event, _ in costs])
    await file.executemany(BILL_TASK, [(signed_micros(event), task) for _, event, task in costs if task != NO_TASK])
    versions = {event.provider: row.version for row, event, _ in costs}
    await file.executemany(PUT_STREAM, list(versions.items()))


async def lines_known(books: Asked, provider: str, lines: Sequence[str]) -> dict[str, Owed]:
    """What those of *provider*'s lines come to that have been read before."""
    known: dict[str, Owed] = {}
    for start in range(0, len(lines), READ_MAX):
        wanted = msgspec.json.encode(lines[start : start + READ_MAX]).decode()
        known |= {row[0]: _owed(row) for row in await books.ask(LINES_KNOWN, (wanted, provider))}
    return known


async def post_replaced(file: aiosqlite.Connection, rows: Sequence[Recorded]) -> None:
    """Take note of the statements that others stand for, inside the transaction that is open."""
    told = [_replaced(row) for row in rows if row.entry.type == "statement-replaced"]
    await file.executemany(PUT_REPLACED, [(event.provider, event.statement, event.by) for event in told])


async def replaced_by(books: Asked, provider: str, statement: str) -> list[str]:
    """The statements that this one stands for, directly or by another that it replaces."""
    return [row[0] for row in await books.ask(REPLACED_BY, (provider, statement))]


async def lines_of(books: Asked, provider: str, statements: Iterable[str]) -> AsyncIterator[list[Owed]]:
    """The lines that one of these *statements* was the last to move, and that do not come to nothing, in order."""
    wanted, line = msgspec.json.encode(sorted(statements)).decode(), ""
    while True:
        values = {"provider": provider, "statements": wanted, "line": line, "limit": READ_MAX}
        page = [_owed(row) for row in await books.ask(LINES_OF, values)]
        if not page:
            return
        yield page
        line = page[-1].line


async def stream_version(books: Asked, provider: str) -> int:
    """How many events the provider's stream has in the books."""
    rows = await books.ask(STREAM_VERSION, (provider,))
    return int(rows[0][0]) if rows else 0


async def positions_of_costs(books: Asked, task: TaskId, *, until: int) -> list[int]:
    """Where in the log, up to *until*, it stands what the task's provider has billed for it."""
    return [int(row[0]) for row in await books.ask(COSTS_OF_TASK, (task, until))]


def _owed(row: Sequence[Any]) -> Owed:
    line, task, account, contract, model, micros, at_us = row
    return Owed(line, Whose(task, account, contract, model), micros, at_us)


def _line(event: CostEvent) -> tuple[Any, ...]:
    whose = (event.task, event.account, event.contract, event.model)
    return event.provider, event.line, *whose, event.line_micros, event.at_us, event.statement


def _replaced(row: Recorded) -> StatementReplaced:
    event = event_of(row)
    if not isinstance(event, StatementReplaced):
        raise not_as_its_row_says(row)
    return event


def _cost(row: Recorded) -> Cost:
    event = event_of(row)
    if not isinstance(event, ProviderBilled | ProviderCredited):
        raise not_as_its_row_says(row)
    task = None if event.task is None else Spelling.UUID.parse(event.task)
    if event.task is not None and task is None:
        raise DamagedError(f"the event at position {row.position} names no task: {event.task!r}")
    return Cost(row, event, NO_TASK if task is None else task)
