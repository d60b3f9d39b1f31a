"""The books as they are at one moment, for whoever reads them in many steps while they are followed on.

A comparison asks what a task was billed before, and much later what its lines were: were another process to post the
same statement in between, all of it would look as if it had been billed twice. So it reads by a connection of its own,
in one transaction, which keeps no follower waiting (WAL). Alternative beaten: to hold the books' turn meanwhile, which
would stop the service's own follower, and no other process's.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiosqlite

from ledger.sqlite_file import TROUBLE, connect
from projections.books.booked import Asked
from projections.books.books import BooksError
from projections.side_file import CHECKPOINT

WHERE = "PRAGMA database_list"


class Snapshot:
    """What the books said at *position* of the log, however far they have been followed since."""

    def __init__(self, file: aiosqlite.Connection, position: int) -> None:
        self._file, self.position = file, position

    async def ask(self, statement: str, values: Any = ()) -> list[Any]:  # noqa: ANN401 - what SQLite takes
        """The rows that a statement gives."""
        try:
            return list(await self._file.execute_fetchall(statement, values))
        except TROUBLE as error:
            raise BooksError(f"the books could not be read: {error}") from error


@asynccontextmanager
async def snapshot(books: Asked) -> AsyncIterator[Snapshot]:
    """The *books* as they are now.

    Raises:
        CannotOpenError, BooksError: they cannot be opened or read once more.
    """
    ((_, _, path), *_) = await books.ask(WHERE)
    file = await connect(Path(path), mode="ro")
    try:
        still = Snapshot(file, 0)
        await still.ask("BEGIN")
        ((still.position, _),) = await still.ask(CHECKPOINT)  # the first read is the moment
        yield still
    finally:
        await file.close()
