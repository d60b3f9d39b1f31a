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
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiosqlite
from msgspec.structs import replace

from ledger.engine import ERASES, Plan, Trouble, plan
from ledger.errors import CannotOpenError, StorageError
from ledger.ids import TaskId
from ledger.log_end import LogEnd
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
from ledger.sqlite_commits import all_or_nothing, found_for, read_end, switches_of, write
from ledger.sqlite_damage import damage
from ledger.sqlite_file import TROUBLE, connect, lineage_of, prepare
from ledger.sqlite_health import Health, look_through
from ledger.sqlite_rows import (
    read_account,
    read_claim,
    read_event,
    read_head,
    read_key,
    read_task,
)
from ledger.sqlite_sql import (
    ACCOUNTS_ALL,
    ACCOUNTS_BY_NAME,
    CLAIMS_AFTER,
    CLAIMS_BY_ID,
    EVENTS_AFTER,
    EVENTS_BY_STREAM,
    HEAD,
    KEY,
    KEYS_OF,
    READ_MAX,
    TASKS_BY_ID,
    WIDTHS,
    tasks_page,
)
from ledger.sqlite_wipe import Reading, Wiper


class SqliteEngine:
    """A log in one file. The functions of `ledger.sqlite` are the ways to get one."""

    def __init__(
        self,
        *,
        reader: aiosqlite.Connection,
        writer: aiosqlite.Connection | None,
        lock_fd: int | None,
        meta: dict[str, bytes],
        path: Path,
    ) -> None:
        self.log_id = meta["log_id"].decode()
        self.pepper = meta["pepper"]
        self.lineage = lineage_of(meta)
        self._reading, self._writer, self._lock_fd = Reading(reader), writer, lock_fd
        self.end = LogEnd()
        self._path, self._health = path, Health()
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
        return await asyncio.shield(asyncio.create_task(self._commit_in_turn(batch)))

    async def _commit_in_turn(self, batch: Sequence[Append]) -> list[Outcome]:
        async with self._committing:
            self._health.refuse_writes()
            try:
                planned = await self._commit(await self._trusted_writer(), batch)
            except TROUBLE as error:
                raise self._health.not_committed(error) from error
            self._health.committed()
            if any(recorded.entry.type == ERASES for recorded in planned.rows):
                await self.wipe()
            return planned.outcomes

    async def _commit(self, writer: aiosqlite.Connection, batch: Sequence[Append]) -> Plan:
        planned = await self._after_known_head(writer, batch) or await self._under_lock(writer, batch)
        self.end.moved(planned.head.position, recorded_at_us=planned.head.recorded_at_us)
        return planned

    async def _after_known_head(self, writer: aiosqlite.Connection, batch: Sequence[Append]) -> Plan | None:
        """What has been written, or None, and nothing has: the log has moved on, or is not what the batch rests on."""
        head, self._head = self._head, None  # unknown until the commit has returned
        if head is None or not all(append.entries for append in batch):  # claims alone would break no constraint
            return None
        planned = plan(batch, head=head, found=None)
        try:
            await write(writer, planned, after=head)
        except sqlite3.IntegrityError:
            return None
        self._head = planned.head
        return planned

    async def _under_lock(self, writer: aiosqlite.Connection, batch: Sequence[Append]) -> Plan:
        """What has been written, planned where no other process can move the log meanwhile."""
        async with all_or_nothing(writer):
            await writer.execute("BEGIN IMMEDIATE")
            head = await read_end(writer)
            found, switches = await found_for(writer, batch), await switches_of(writer)
            planned = plan(batch, head=head, found=replace(found, switched=switches > self._switches))
            await write(writer, planned, after=head)
            await writer.commit()
            if switches == self._switches or any(append.task is not None for append in batch):
                self._switches, self._head = switches, planned.head
            # else who decides on tasks has not been told: so this is where their next commit comes too
            return planned

    async def heed_switches(self) -> None:
        """From here on what is in memory of this process is taken to be read after all switches so far."""
        assert self._writer is not None, "opened to read only"
        try:
            self._switches = await switches_of(self._writer)
        except TROUBLE as error:
            raise self._health.met(error, "the store could not be read") from error

    async def _trusted_writer(self) -> aiosqlite.Connection:
        """The connection that writes, opened anew if the disk has failed since, with all that was committed on it.

        Raises:
            StorageError: it cannot be had yet.
        """
        assert self._writer is not None
        assert self._wiper is not None
        if self._health.must_reopen:
            try:
                fresh = await connect(self._path, mode="rw")
                old, self._writer, self._wiper.writer = self._writer, fresh, fresh
                await old.close()
                await prepare(fresh, self._path)
            except (CannotOpenError, *TROUBLE) as error:
                raise StorageError(f"the store could not be reopened: {error}") from error
            if not await self._wiper.cut():
                raise StorageError("the disk has failed, and what was committed cannot be brought to safety yet")
            self._health.must_reopen = False
        return self._writer

    async def look_through(self) -> str | None:
        """Look at every page, once; what is wrong, if anything is or was met: then nothing is written any more."""
        if not self._health.is_looked_through:
            self._health.damage = await look_through(self._path) or self._health.damage
            self._health.is_looked_through = True
        return self._health.damage

    @property
    def trouble(self) -> Trouble | None:
        """What keeps it from taking writes."""
        return self._health.trouble

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

    async def claims_after(self, claim: ClaimId | None, limit: int) -> list[ClaimRow]:
        return [read_claim(row) for row in await self._read(CLAIMS_AFTER, (*(claim or ("", "", "")), limit))]

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
        if not rows or None in tuple(rows[0]):
            raise StorageError("the store has lost its lane")
        head = read_head(rows[0])
        self.end.moved(head.position, recorded_at_us=head.recorded_at_us)
        return head

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
        async with AsyncExitStack() as closing:  # all of it, whatever fails of it: a thread would outlive the program
            closing.callback(self._let_go)
            await closing.enter_async_context(self._committing)  # whoever asked for the last commit may have left
            if self._writer is not None:
                closing.push_async_callback(self._writer.close)
            closing.push_async_callback(self._reading.close)
            if self._wiper is not None:
                self.is_wiped = await self._wiper.close() and self.is_wiped

    def _let_go(self) -> None:
        lock_fd, self._lock_fd = self._lock_fd, None
        if lock_fd is not None:
            os.close(lock_fd)

    async def _read(self, sql: str, values: Sequence[Any]) -> list[sqlite3.Row]:
        try:
            return await self._reading.rows(sql, values)
        except TROUBLE as error:
            raise self._health.met(error, "the store could not be read") from error

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
