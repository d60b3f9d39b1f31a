"""The engine in one SQLite file: WAL, ``synchronous=FULL``, one commit for many appends.

Two connections: one writes, one reads beside it. A commit is one statement, `APPEND`, with all rows of the batch in
it: one trip to aiosqlite's thread; a statement per row would be a sixth of the rate. It moves the lane's head by
compare-and-set: if another process has appended in between (the CLI issuing a key), nothing is written, and the batch
is planned again under SQLite's write lock, after the new head.
"""

import asyncio
import os
import sqlite3
import sys
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiosqlite
from msgspec.structs import replace

from ledger.breaks import switch_stream
from ledger.engine import ERASES, Found, Plan, account_changes, plan
from ledger.errors import CannotOpenError, StorageError
from ledger.ids import TaskId
from ledger.records import (
    AccountRow,
    Append,
    ClaimId,
    ClaimRow,
    Head,
    KeyRow,
    Outcome,
    Placed,
    Recorded,
    TaskFilter,
)
from ledger.sqlite_damage import damage
from ledger.sqlite_file import TROUBLE, connect, is_older, prepare, read_meta, refuse_foreign, take_lock, upgrade
from ledger.sqlite_rows import (
    account_values,
    claim_values,
    event_values,
    key_values,
    read_account,
    read_claim,
    read_event,
    read_head,
    read_key,
    read_task,
    task_values,
)
from ledger.sqlite_sql import (
    ACCOUNT_ROWS,
    ACCOUNTS_ALL,
    ACCOUNTS_BY_NAME,
    APPEND,
    CLAIM_ROWS,
    CLAIMS_BY_ID,
    EVENT_ROWS,
    EVENTS_AFTER,
    EVENTS_BY_STREAM,
    HEAD,
    KEY,
    KEY_ROWS,
    KEYS_OF,
    READ_MAX,
    SEAL_ROWS,
    TASK_ROWS,
    TASKS_BY_ID,
    VERSIONS,
    WIDTHS,
    tasks_page,
)
from ledger.sqlite_wipe import Reading, Wiper


class SqliteEngine:
    """A log in one file. `open_to_serve`, `open_beside` and `open_to_read` are the ways to get one."""

    def __init__(
        self,
        *,
        reader: aiosqlite.Connection,
        writer: aiosqlite.Connection | None,
        lock_fd: int | None,
        meta: dict[str, bytes],
    ) -> None:
        self.log_id = meta["log_id"].decode()
        self.pepper = meta["pepper"]
        self._reading, self._writer, self._lock_fd = Reading(reader), writer, lock_fd
        self._committing = asyncio.Lock()
        self._wiper = None if writer is None else Wiper(writer, self._committing, self._reading)
        self._head: Head | None = None
        self._switches = 0
        """How many switches of projections this process has heeded."""
        self.is_wiped = True
        """False once it has been closed with what was erased left in the file: another process reads on."""

    # Writing

    async def commit(self, batch: Sequence[Append]) -> list[Outcome]:
        assert self._writer is not None, "opened to read only"
        # Shielded: a caller who leaves between two statements would leave half a transaction to the next commit.
        return await asyncio.shield(asyncio.create_task(self._commit_in_turn(self._writer, batch)))

    async def _commit_in_turn(self, writer: aiosqlite.Connection, batch: Sequence[Append]) -> list[Outcome]:
        async with self._committing:
            try:
                planned = await self._commit(writer, batch)
            except TROUBLE as error:
                raise StorageError(f"the store did not take the commit: {error}") from error
            if any(recorded.entry.type == ERASES for recorded in planned.rows):
                await self.wipe()
            return planned.outcomes

    async def _commit(self, writer: aiosqlite.Connection, batch: Sequence[Append]) -> Plan:
        planned = await self._after_known_head(writer, batch) or await self._under_lock(writer, batch)
        self._head = planned.head
        return planned

    async def _after_known_head(self, writer: aiosqlite.Connection, batch: Sequence[Append]) -> Plan | None:
        """What has been written, or None, and nothing has: the log has moved on, or is not what the batch rests on."""
        head, self._head = self._head, None  # unknown until the commit has returned
        if head is None or not all(append.entries for append in batch):  # claims alone would break no constraint
            return None
        planned = plan(batch, head=head, found=None)
        try:
            await _write(writer, planned, after=head)
        except sqlite3.IntegrityError:
            return None
        return planned

    async def _under_lock(self, writer: aiosqlite.Connection, batch: Sequence[Append]) -> Plan:
        """What has been written, planned where no other process can move the log meanwhile."""
        async with _all_or_nothing(writer):
            await writer.execute("BEGIN IMMEDIATE")
            head = await _head(writer)
            found, switches = await _found(writer, batch), await _switches(writer)
            planned = plan(batch, head=head, found=replace(found, switched=switches > self._switches))
            await _write(writer, planned, after=head)
            await writer.commit()
            self._switches = switches
            return planned

    async def heed_switches(self) -> None:
        """From here on what is in memory of this process is taken to be read after all switches so far."""
        assert self._writer is not None, "opened to read only"
        self._switches = await _switches(self._writer)

    async def wipe(self) -> None:
        """Let nothing be left in the file of what was erased, even by a process that died before it could."""
        assert self._wiper is not None, "opened to read only"
        await self._wiper.wipe()

    # Reading

    async def tasks(self, ids: Sequence[TaskId]) -> dict[TaskId, Placed]:
        rows = await self._by_key(TASKS_BY_ID, [(task,) for task in ids])
        return {TaskId(row[0]): read_task(row) for row in rows}

    async def page(self, wanted: TaskFilter) -> list[Placed]:
        terms = [
            (column, value)
            for column, value in (
                ("account = ?", wanted.account),
                ("status = ?", wanted.status),
                ("model = ?", wanted.model),
                ("task < ?", wanted.before),
                ("task > ?", wanted.after),
            )
            if value is not None
        ]
        sql = tasks_page([column for column, _ in terms], oldest_first=wanted.oldest_first)
        bytes_max = sys.maxsize if wanted.bytes_max is None else wanted.bytes_max
        rows = await self._read(sql, (*(value for _, value in terms), wanted.limit, bytes_max))
        return [read_task(row) for row in rows]

    async def claims(self, ids: Sequence[ClaimId]) -> dict[ClaimId, ClaimRow]:
        found = [read_claim(row) for row in await self._by_key(CLAIMS_BY_ID, ids)]
        return {claim.id: claim for claim in found}

    async def key(self, key_id: str) -> KeyRow | None:
        rows = await self._read(KEY, (key_id,))
        return read_key(rows[0]) if rows else None

    async def keys(self, account: str | None) -> list[KeyRow]:
        return [read_key(row) for row in await self._read(KEYS_OF, (account,))]

    async def accounts(self, names: Sequence[str] | None) -> dict[str, AccountRow]:
        if names is None:
            rows = await self._read(ACCOUNTS_ALL, ())
        else:
            rows = await self._by_key(ACCOUNTS_BY_NAME, [(name,) for name in names])
        return {row.account: row for row in map(read_account, rows)}

    async def streams(self, names: Sequence[bytes]) -> list[Recorded]:
        return [read_event(row) for row in await self._by_key(EVENTS_BY_STREAM, [(name,) for name in names])]

    async def after(self, position: int, limit: int) -> list[Recorded]:
        return [read_event(row) for row in await self._read(EVENTS_AFTER, (position, limit))]

    async def head(self) -> Head:
        rows = await self._read(HEAD, ())
        if not rows:
            raise StorageError("the store has lost its lane")
        return read_head(rows[0])

    async def damage(self) -> list[str]:
        try:
            return await damage(self._reading)
        except TROUBLE as error:
            raise StorageError(f"the store could not be checked: {error}") from error

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[None]:
        """Everything read inside is of one moment, whatever is written meanwhile; so not on an engine that serves."""
        await self._read("BEGIN", ())
        try:
            yield
        finally:
            await self._reading.rollback()

    async def close(self) -> None:
        async with self._committing:  # whoever asked for the last commit may have left
            if self._wiper is not None:
                self.is_wiped = await self._wiper.close() and self.is_wiped
            await self._reading.close()
            if self._writer is not None:
                await self._writer.close()
        lock_fd, self._lock_fd = self._lock_fd, None
        if lock_fd is not None:
            os.close(lock_fd)

    async def _read(self, sql: str, values: Sequence[Any]) -> list[sqlite3.Row]:
        try:
            return await self._reading.rows(sql, values)
        except TROUBLE as error:
            raise StorageError(f"the store could not be read: {error}") from error

    async def _by_key(self, statements: dict[int, str], keys: Sequence[Sequence[Any]]) -> list[sqlite3.Row]:
        """Rows for any number of keys, `READ_MAX` a statement; unused places are filled with NULL."""
        rows: list[sqlite3.Row] = []
        for start in range(0, len(keys), READ_MAX):
            some = keys[start : start + READ_MAX]
            width = next(n for n in WIDTHS if n >= len(some))
            values = [value for key in some for value in key]
            values += [None] * ((width - len(some)) * len(some[0]))
            rows += await self._read(statements[width], values)
        return rows


@asynccontextmanager
async def _all_or_nothing(writer: aiosqlite.Connection) -> AsyncIterator[None]:
    """What is not committed when this is left is undone."""
    try:
        yield
    finally:
        # SQLite may have rolled back by itself (disk full), so ask before asking it to.
        if writer.in_transaction:
            await writer.rollback()


async def _write(writer: aiosqlite.Connection, planned: Plan, *, after: Head) -> None:
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


async def _head(connection: aiosqlite.Connection) -> Head:
    return read_head(next(iter(await connection.execute_fetchall(HEAD))))


async def _found(writer: aiosqlite.Connection, batch: Sequence[Append]) -> Found:
    versions = await _versions(writer, [append.stream for append in batch])
    terms = await _terms(writer, {append.account for append in batch if append.rests_on is not None})
    return Found(versions=versions, terms=terms)


async def _switches(writer: aiosqlite.Connection) -> int:
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


# Opening


async def open_to_serve(path: Path) -> SqliteEngine:
    """The engine of the one process that serves *path*; the file is made if it is missing.

    Raises:
        CannotOpenError: the file is foreign, newer, or served by another process.
    """
    await refuse_foreign(path)
    lock_fd = take_lock(path)
    try:
        engine = await _open_to_write(path, lock_fd=lock_fd)
    except BaseException:
        os.close(lock_fd)
        raise
    await engine.heed_switches()
    await engine.wipe()
    return engine


async def open_beside(path: Path) -> SqliteEngine:
    """An engine for short administrative appends, also beside a serving process; makes the file if it is missing.

    It takes no lock, so it must leave the tasks alone: the serving process decides on what it has in memory of them.
    """
    return await _open_to_write(path, lock_fd=None)


async def open_to_read(path: Path) -> SqliteEngine:
    """An engine that only reads, also beside a serving process and after one was killed.

    Raises:
        CannotOpenError: as in `open_to_serve`, or there is no file.
    """
    await refuse_foreign(path)
    if not path.is_file():
        raise CannotOpenError(f"no ledger at {path}: `task-ledger serve --store sqlite:{path}` makes one")
    reader = await connect(path, mode="ro")
    try:
        return SqliteEngine(reader=reader, writer=None, lock_fd=None, meta=await read_meta(reader, path))
    except BaseException:
        await reader.close()
        raise


async def _open_to_write(path: Path, *, lock_fd: int | None) -> SqliteEngine:
    if lock_fd is None:
        await refuse_foreign(path)
    writer = await connect(path, mode="rwc")
    try:
        await prepare(writer, path)
        if await is_older(writer):
            await _upgrade(writer, path, lock_fd=lock_fd)
        meta = await read_meta(writer, path)
        reader = await connect(path, mode="ro")
    except BaseException:
        await writer.close()
        raise
    return SqliteEngine(reader=reader, writer=writer, lock_fd=lock_fd, meta=meta)


async def _upgrade(writer: aiosqlite.Connection, path: Path, *, lock_fd: int | None) -> None:
    """Bring the file up to date, while no other process serves it.

    Raises:
        CannotOpenError: one does, or the file cannot be upgraded.
    """
    own_fd = take_lock(path) if lock_fd is None else None
    try:
        await upgrade(writer, path)
    finally:
        if own_fd is not None:
            os.close(own_fd)
