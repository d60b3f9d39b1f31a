"""What has been erased is gone from the SQLite file, and not only out of sight.

In the database itself `secure_delete` turns what is deleted or overwritten to zeros. The write-ahead log still has the
pages as they were, so it is cut to nothing after each commit that erases, in turn with the commits and before the
caller is told. The price: a further sync, for all erasures of a batch together; a deletion by itself took 1.4 ms, any
other commit 0.7. Alternative beaten: to leave it to SQLite's own checkpoints, which begin the log anew and leave its
old bytes lying until others overwrite them.

Whoever reads an older state of the file holds the cut up. Of this process nobody does: while it cuts, its own reads
wait (`Reading`), as its commits do. Another process (an audit beside the server, a backup) is waited for
`PATIENCE_MS`; then the caller is told, and the cut is tried again each second until it is made. Who stops in between
tries once more and waits `CLOSING_PATIENCE_MS`; if that is in vain, or the process dies, what was erased lies in the
write-ahead log until somebody serves the file again. An audit that ends then cuts nothing: it only reads.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiosqlite

from ledger.sqlite_file import BUSY_TIMEOUT_SECONDS, TROUBLE

PATIENCE_MS = 100
CLOSING_PATIENCE_MS = 2000
AGAIN_SECONDS = 1.0

_CUT = "PRAGMA wal_checkpoint(TRUNCATE)"


class Reading:
    """The connection *reader*, whose statements can be kept waiting."""

    def __init__(self, reader: aiosqlite.Connection) -> None:
        self._reader = reader
        self._may_read = asyncio.Event()
        self._may_read.set()

    async def rows(self, sql: str, values: Sequence[Any]) -> list[sqlite3.Row]:
        while not self._may_read.is_set():  # again: it may have been closed anew before it was our turn
            await self._may_read.wait()
        return list(await self._reader.execute_fetchall(sql, values))

    @asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """While it is entered, no statement is under way and none begins."""
        self._may_read.clear()
        try:
            await self._reader.execute_fetchall("SELECT 1")  # its thread takes one after the other
            yield
        finally:
            self._may_read.set()

    async def rollback(self) -> None:
        await self._reader.rollback()

    async def close(self) -> None:
        await self._reader.close()


class Wiper:
    """Cuts the write-ahead log of the connection *writer*, which it uses in turn with those who hold *turn*."""

    def __init__(self, writer: aiosqlite.Connection, turn: asyncio.Lock, reading: Reading) -> None:
        self.writer, self._turn, self._reading = writer, turn, reading
        self._again: asyncio.Task[None] | None = None

    async def wipe(self) -> None:
        """Cut the log, now or as soon as nobody holds it up. To be called by the one whose turn it is."""
        if not await self._cut(PATIENCE_MS) and self._again is None:
            self._again = asyncio.create_task(self._until_cut())

    async def cut(self) -> bool:
        """Whether all that was committed is in the database and synced, and the log is empty. As `wipe`."""
        return await self._cut(PATIENCE_MS)

    async def close(self) -> bool:
        """Whether nothing is left to be cut. What is left is tried once more; to be called by the one in turn."""
        if self._again is None:
            return True
        again, self._again = self._again, None
        again.cancel()
        await asyncio.wait([again])
        return await self._cut(CLOSING_PATIENCE_MS)

    async def _until_cut(self) -> None:
        is_cut = False
        while not is_cut:
            await asyncio.sleep(AGAIN_SECONDS)
            async with self._turn:
                is_cut = await self._cut(PATIENCE_MS)
        self._again = None

    async def _cut(self, patience_ms: int) -> bool:
        """Whether the log is cut: what was committed is durable in any case, so that trouble only means: not yet."""
        try:
            async with self._reading.paused():
                await self._wait_for_locks(patience_ms)
                try:
                    ((is_held_up, *_),) = await self.writer.execute_fetchall(_CUT)
                finally:
                    await self._wait_for_locks(int(BUSY_TIMEOUT_SECONDS * 1000))
        except TROUBLE:
            return False
        return not is_held_up

    async def _wait_for_locks(self, patience_ms: int) -> None:
        await self.writer.execute_fetchall(f"PRAGMA busy_timeout = {patience_ms}")
