"""The statements of providers, as the books keep them: when each of them came, and which of them others stand for."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

import aiosqlite

from ledger.events import ProviderBilled, ProviderCredited, StatementRead, StatementReplaced
from ledger.records import Recorded
from ledger.statement_rules import Turn
from projections.books.booked import Asked
from projections.books.books_sql import PUT_REPLACED, PUT_TURN, REPLACED_BY, TURN
from projections.books.movements import COSTS
from projections.facts import event_of, not_as_its_row_says

_SAYING = frozenset({"statement-read", "statement-replaced", *COSTS})
Said: TypeAlias = StatementRead | StatementReplaced | ProviderBilled | ProviderCredited


class Saying(NamedTuple):
    """An event that a statement has caused, and where it stands."""

    row: Recorded
    event: Said


def sayings(rows: Iterable[Recorded]) -> list[Saying]:
    """Those of *rows* that a statement has caused, in order.

    Raises:
        DamagedError: one of them is not what its row says.
    """
    return [Saying(row, _event(row)) for row in rows if row.entry.type in _SAYING]


async def post_statements(file: aiosqlite.Connection, said: Sequence[Saying]) -> list[int]:
    """Take note of what statements *said*, inside the transaction that is open; when the one of each event had come."""
    turns: dict[tuple[str, str], Turn] = {}
    came: list[int] = []
    for row, event in said:
        key = event.provider, event.by if isinstance(event, StatementReplaced) else event.statement
        turn = turns.get(key) or await _turn(file, *key)
        turns[key] = turn = _after(turn, event, position=row.position)
        came.append(turn.came)
    await file.executemany(PUT_TURN, [(*key, *turn) for key, turn in turns.items()])
    replaced = [one.event for one in said if isinstance(one.event, StatementReplaced)]
    await file.executemany(PUT_REPLACED, [(event.provider, event.statement, event.by) for event in replaced])
    return came


def _after(turn: Turn, event: Said, *, position: int) -> Turn:
    match event:
        case StatementReplaced():
            return turn._replace(came=position)
        case StatementRead():
            return Turn(turn.came or position, is_read=True)
        case _:
            return turn if turn.came else Turn(position)


async def _turn(file: aiosqlite.Connection, provider: str, statement: str) -> Turn:
    return _turn_of(list(await file.execute_fetchall(TURN, (provider, statement))))


def _turn_of(rows: Sequence[Sequence[int]]) -> Turn:
    return Turn(rows[0][0], is_read=bool(rows[0][1])) if rows else Turn()


async def turn_of(books: Asked, provider: str, statement: str) -> Turn:
    """Where the statement stands among those of its provider."""
    return _turn_of(await books.ask(TURN, (provider, statement)))


async def replaced_by(books: Asked, provider: str, statement: str) -> list[str]:
    """The statements that this one stands for, directly or by another that it replaces."""
    return [row[0] for row in await books.ask(REPLACED_BY, (provider, statement))]


def _event(row: Recorded) -> Said:
    event = event_of(row)
    if not isinstance(event, StatementRead | StatementReplaced | ProviderBilled | ProviderCredited):
        raise not_as_its_row_says(row)
    return event
