"""What has been erased is gone from the SQLite file, and not only out of sight.

In the database itself `secure_delete` turns what is deleted or overwritten to zeros. The write-ahead log still has the
pages as they were, so it is cut to nothing after each commit that erases, in turn with the commits and before the
caller is told. The price: a further sync, for all erasures of a batch together; a deletion by itself took 1.4 ms, any
other commit 0.7. Alternative beaten: to leave it to SQLite's own checkpoints, which begin the log anew and leave its
old bytes lying until others overwrite them.

Whoever reads an older state of the file (an audit beside the server, a backup) holds the cut up. It is waited for
`PATIENCE_MS`, while no commit begins; then the caller is told, and the cut is tried again each second until it is
made. A process that dies in between leaves it to the next one that serves the file.
"""

import asyncio

import aiosqlite

from ledger.sqlite_file import BUSY_TIMEOUT_SECONDS, TROUBLE

PATIENCE_MS = 100
AGAIN_SECONDS = 1.0

_WAIT_BRIEFLY = f"PRAGMA busy_timeout = {PATIENCE_MS}"
_WAIT_AS_EVER = f"PRAGMA busy_timeout = {int(BUSY_TIMEOUT_SECONDS * 1000)}"
_CUT = "PRAGMA wal_checkpoint(TRUNCATE)"


class Wiper:
    """Cuts the write-ahead log of the connection *writer*, which it uses in turn with those who hold *turn*."""

    def __init__(self, writer: aiosqlite.Connection, turn: asyncio.Lock) -> None:
        self._writer, self._turn = writer, turn
        self._again: asyncio.Task[None] | None = None

    async def wipe(self) -> None:
        """Cut the log, now or as soon as nobody holds it up. To be called by the one whose turn it is."""
        if not await self._cut() and self._again is None:
            self._again = asyncio.create_task(self._until_cut())

    async def close(self) -> None:
        """Try no more: the last connection that closes cuts the log by itself, and so does the next that serves."""
        if self._again is not None:
            self._again.cancel()
            await asyncio.wait([self._again])

    async def _until_cut(self) -> None:
        is_cut = False
        while not is_cut:
            await asyncio.sleep(AGAIN_SECONDS)
            async with self._turn:
                is_cut = await self._cut()
        self._again = None

    async def _cut(self) -> bool:
        """Whether the log is cut: what was committed is durable in any case, so that trouble only means: not yet."""
        try:
            await self._writer.execute_fetchall(_WAIT_BRIEFLY)
            try:
                ((is_held_up, *_),) = await self._writer.execute_fetchall(_CUT)
            finally:
                await self._writer.execute_fetchall(_WAIT_AS_EVER)
        except TROUBLE:
            return False
        return not is_held_up
