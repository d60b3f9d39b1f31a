"""Heeding switches: what a replay has replaced in the store is read anew by the service, within a second.

Nothing is decided on what was replaced even before that: the switch is in the log, and the first commit after it finds
the log moved on and all that was decided stale. This is for those who only read. One look-up a second, by key.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from ledger.errors import StorageError
from ledger.ledger import Ledger

LOOK_SECONDS = 1.0


@asynccontextmanager
async def heeding(ledger: Ledger) -> AsyncIterator[None]:
    """While it is entered, *ledger* heeds switches."""
    looking = asyncio.create_task(_look(ledger))
    try:
        yield
    finally:
        looking.cancel()
        with suppress(asyncio.CancelledError):
            await looking


async def _look(ledger: Ledger) -> None:
    while True:
        with suppress(StorageError):  # the store's trouble is told by those who need it
            await ledger.heed_switches()
        await asyncio.sleep(LOOK_SECONDS)
