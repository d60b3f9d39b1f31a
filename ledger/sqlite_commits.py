"""What a commit asks of the SQLite file: how all stands that it is planned for, and one statement that writes it."""

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiosqlite

from ledger.breaks import switch_stream
from ledger.engine import Found, Plan, account_changes
from ledger.records import Append, Head
from ledger.sqlite_rows import (
    account_values,
    claim_values,
    event_values,
    key_values,
    read_account,
    read_head,
    task_values,
)
from ledger.sqlite_sql import (
    ACCOUNT_ROWS,
    ACCOUNTS_BY_NAME,
    APPEND,
    CLAIM_ROWS,
    EVENT_ROWS,
    HEAD,
    KEY_ROWS,
    READ_MAX,
    SEAL_ROWS,
    TASK_ROWS,
    VERSIONS,
)


@asynccontextmanager
async def all_or_nothing(writer: aiosqlite.Connection) -> AsyncIterator[None]:
    """What is not committed when this is left is undone."""
    try:
        yield
    finally:
        # SQLite may have rolled back by itself (disk full), so ask before asking it to.
        if writer.in_transaction:
            await writer.rollback()


async def write(writer: aiosqlite.Connection, planned: Plan, *, after: Head) -> None:
    """Write *planned*, in the transaction that is open, or in one of its own.

    Raises:
        sqlite3.IntegrityError: the log's head is not *after*, a version is not the next, or an account has other terms
            than new work was admitted by; nothing is written.
    """
    await writer.execute_fetchall(APPEND, append_values(planned, after=after))


def append_values(planned: Plan, *, after: Head) -> tuple[Any, ...]:
    """The values with which `APPEND` writes *planned* after that head."""
    end = planned.head
    tasks = [task_values(append.task, at) for append, at in planned.written if append.task is not None]
    seals = [(append.stream, append.seal_key) for append, _ in planned.written if append.seal_key is not None]
    return (
        end.lane,
        after.position,
        after.hash,
        end.position,
        end.hash,
        end.recorded_at_us,
        *SEAL_ROWS.packed(seals),
        *EVENT_ROWS.packed([event_values(recorded) for recorded in planned.rows]),
        *TASK_ROWS.packed(tasks),
        *CLAIM_ROWS.packed([claim_values(claim) for append, _ in planned.written for claim in append.claims]),
        *KEY_ROWS.packed([key_values(key) for append, _ in planned.written for key in append.keys]),
        *ACCOUNT_ROWS.packed([account_values(*one) for one in account_changes(planned.written).items()]),
    )


async def read_end(connection: aiosqlite.Connection) -> Head:
    """The end of the log."""
    return read_head(next(iter(await connection.execute_fetchall(HEAD))))


async def found_for(writer: aiosqlite.Connection, batch: Sequence[Append]) -> Found:
    """How the log stands that *batch* is planned for: its streams, and the terms by which it admits new work."""
    versions = await _versions(writer, [append.stream for append in batch])
    terms = await _terms(writer, {append.account for append in batch if append.rests_on is not None})
    return Found(versions=versions, terms=terms)


async def switches_of(writer: aiosqlite.Connection) -> int:
    """How often a projection has been switched."""
    return (await _versions(writer, [switch_stream()])).get(switch_stream(), 0)


async def _terms(writer: aiosqlite.Connection, accounts: Collection[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    names = [*accounts]
    for start in range(0, len(names), READ_MAX):
        some: list[str | None] = [*names[start : start + READ_MAX]]
        some += [None] * (READ_MAX - len(some))
        rows = await writer.execute_fetchall(ACCOUNTS_BY_NAME[READ_MAX], some)
        found |= {row.account: row.version for row in map(read_account, rows)}
    return found


async def _versions(writer: aiosqlite.Connection, streams: list[bytes]) -> dict[bytes, int]:
    found: dict[bytes, int] = {}
    for start in range(0, len(streams), READ_MAX):
        some: list[bytes | None] = [*streams[start : start + READ_MAX]]
        some += [None] * (READ_MAX - len(some))
        found |= {row[0]: row[1] for row in await writer.execute_fetchall(VERSIONS, some)}
    return found
