"""A file beside the ledger's in which a follower keeps what it makes of the log, with its checkpoint.

In WAL, so that reading keeps nobody waiting; without a sync at each page, for what a power cut takes of it is in the
log. One that belongs to another log, or to another history of this one (a backup was restored), is begun anew.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import aiosqlite

from ledger.chain import GENESIS
from ledger.engine import Engine
from ledger.errors import CannotOpenError, StorageError
from ledger.sqlite_file import TROUBLE, connect
from projections.follow import Checkpoint

LOG_ID = "SELECT log_id FROM checkpoint"
CHECKPOINT = "SELECT position, hash FROM checkpoint"
MOVE_ON = "UPDATE checkpoint SET position = ?, hash = ? WHERE position = ?"
BEGIN_AT = "INSERT INTO checkpoint VALUES (?, ?, ?)"


class Form(NamedTuple):
    """What is in the file, beside a table ``checkpoint`` of a log's name, a position and the hash there."""

    what: str
    application_id: int
    schema_version: int
    founding: tuple[str, ...]
    empty: tuple[str, ...]
    drop: tuple[str, ...]


class SideFileError(StorageError):
    """The file did not answer, or did not take a page; the log itself may be well."""


class SideFile:
    """An open file; `open_side_file` is the way to get one."""

    def __init__(self, file: aiosqlite.Connection, form: Form) -> None:
        self._file, self._form = file, form
        self.turn = asyncio.Lock()
        """One connection: what is read beside a transaction of its own would be what may still be undone."""

    async def follow_only(self, engine: Engine) -> None:
        """Begin anew unless this is made of *engine*'s log, and of this history of it."""
        async with self.turn, self.transaction():
            if not await self._follows(engine):
                for statement in self._form.empty:
                    await self._file.execute(statement)
                await self._file.execute(BEGIN_AT, (engine.log_id, 0, GENESIS))

    async def _follows(self, engine: Engine) -> bool:
        named = await self.read(LOG_ID)
        if not named or named[0][0] != engine.log_id:
            return False
        at = Checkpoint(*(await self.read(CHECKPOINT))[0])
        rows = await engine.after(at.position - 1, 1) if at.position else []
        return at.position == 0 or (bool(rows) and (rows[0].position, rows[0].hash) == at)

    async def checkpoint(self) -> Checkpoint:
        async with self.turn:
            return Checkpoint(*(await self.read(CHECKPOINT))[0])

    async def moves_on(self, end: Checkpoint, *, after: Checkpoint) -> bool:
        """Set the checkpoint, in a transaction; False: it is not *after* any more, another process has been here."""
        moved = await self._file.execute(MOVE_ON, (*end, after.position))
        return bool(moved.rowcount)

    async def write(self, statement: str, values: Any = ()) -> int:  # noqa: ANN401 - what SQLite takes
        """Carry out a statement, in a transaction; how many rows it changed."""
        return (await self._file.execute(statement, values)).rowcount

    async def read(self, statement: str, values: Any = ()) -> list[Any]:  # noqa: ANN401 - what SQLite takes
        """The rows that a statement gives; whoever reads has the `turn`."""
        try:
            return list(await self._file.execute_fetchall(statement, values))
        except TROUBLE as error:
            raise SideFileError(f"the {self._form.what} could not be read: {error}") from error

    async def ask(self, statement: str, values: Any = ()) -> list[Any]:  # noqa: ANN401 - what SQLite takes
        """As `read`, with a turn of its own."""
        async with self.turn:
            return await self.read(statement, values)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """All that is written inside, or nothing."""
        try:
            await self._file.execute("BEGIN IMMEDIATE")
            yield
            await self._file.commit()
        except TROUBLE as error:
            raise SideFileError(f"the {self._form.what} did not take the page: {error}") from error
        finally:
            if self._file.in_transaction:  # SQLite may have rolled back by itself (disk full)
                await self._file.rollback()

    async def close(self) -> None:
        await self._file.close()


def beside(ledger: Path, suffix: str) -> Path:
    """Where the file of that name beside the ledger in that file is."""
    return ledger.with_name(f"{ledger.name}.{suffix}")


async def open_side_file(path: Path, form: Form, engine: Engine) -> SideFile:
    """The file at *path*, made of *engine*'s log, begun if there is none.

    Raises:
        CannotOpenError: the file cannot be made or written, is none of ours, or newer than this program.
        StorageError: the log could not be read.
    """
    try:
        file = await connect(path, mode="rwc")
    except CannotOpenError as error:
        raise CannotOpenError(f"the {form.what} have no place beside the ledger: {error}") from error
    try:
        await _prepare(file, path, form)
        with suppress(sqlite3.OperationalError):  # in use by another process: whoever opens it alone does it
            await file.execute_fetchall("PRAGMA journal_mode = WAL")
        await file.execute_fetchall("PRAGMA synchronous = NORMAL")
        opened = SideFile(file, form)
        await opened.follow_only(engine)
    except TROUBLE as error:
        await file.close()
        raise CannotOpenError(f"{path} does not hold {form.what} that can be written: {error}") from error
    except BaseException:
        await file.close()
        raise
    return opened


async def _prepare(file: aiosqlite.Connection, path: Path, form: Form) -> None:
    """Make an empty file one of this form.

    Raises:
        CannotOpenError: it holds something else.
    """
    await file.execute("BEGIN IMMEDIATE")
    application = await _number(file, "PRAGMA application_id")
    version = await _number(file, "PRAGMA user_version")
    is_older = application == form.application_id and version < form.schema_version  # made anew: the log has it all
    if is_older or (application == 0 and not await file.execute_fetchall("SELECT 1 FROM sqlite_schema")):
        for statement in (*(form.drop if is_older else ()), *form.founding):
            await file.execute(statement)
    elif application != form.application_id:
        raise CannotOpenError(f"{path} does not hold {form.what}: move it away, and they are made anew")
    elif version > form.schema_version:
        raise CannotOpenError(f"{path} holds {form.what} of schema {version}, newer than {form.schema_version}")
    await file.commit()


async def _number(file: aiosqlite.Connection, pragma: str) -> int:
    return int(next(iter(await file.execute_fetchall(pragma)))[0])


def values_of(texts: Sequence[str]) -> str:
    """*texts* as a parameter for ``json_each``."""
    return "[" + ",".join(f'"{text}"' for text in texts) + "]"
