"""A file beside the ledger's own, for what one follower folds from the log: its tables, and its checkpoint with them.

A file apart, so that folding never waits for the ledger's own commits nor they for it, and so that it can be thrown
away: it is built anew from the log. Several processes may follow into one file: whoever finds the checkpoint moved on
leaves it at that. In WAL, so that a long read keeps no follower waiting; without a sync at each page, for what a power
cut takes of it is in the log. A file that belongs to another log, or to another history of this one (a backup was
restored), is begun anew. One that fails is closed, and opened anew at the next look: what has been put right by then,
or moved away, is found without a restart.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import aiosqlite

from ledger.chain import GENESIS
from ledger.engine import Engine
from ledger.errors import CannotOpenError, StorageError
from ledger.records import Recorded
from ledger.sqlite_file import TROUBLE, connect
from projections.follow import Checkpoint

_CHECKPOINTS = """
CREATE TABLE checkpoint (log_id TEXT NOT NULL, position INTEGER NOT NULL, hash BLOB NOT NULL) STRICT"""
_BEGIN_AT = "INSERT INTO checkpoint VALUES (?, ?, ?)"
_LOG_ID = "SELECT log_id FROM checkpoint"
CHECKPOINT = "SELECT position, hash FROM checkpoint"
MOVE_ON = "UPDATE checkpoint SET position = ?, hash = ? WHERE position = ?"


class SideFileError(StorageError):
    """A side file did not answer, or did not take a page; the log itself may be well."""


class Shape(NamedTuple):
    """What a kind of side file is called, by which numbers it is told, and its tables beside the checkpoint."""

    what: str
    application_id: int
    schema_version: int
    schema: str
    """Statements, each of which ends a line."""
    tables: tuple[str, ...]

    @property
    def founding(self) -> tuple[str, ...]:
        return (
            _CHECKPOINTS,
            *self.schema.split(";\n")[:-1],
            f"PRAGMA application_id = {self.application_id}",
            f"PRAGMA user_version = {self.schema_version}",
        )

    @property
    def emptying(self) -> tuple[str, ...]:
        return tuple(f"DELETE FROM {table}" for table in ("checkpoint", *self.tables))  # noqa: S608 - our own names

    @property
    def dropping(self) -> tuple[str, ...]:
        return tuple(f"DROP TABLE IF EXISTS {table}" for table in ("checkpoint", *self.tables))


class SideFile:
    """What a follower keeps. A kind of its own says its `shape`, and how it posts a page."""

    shape: Shape
    error = SideFileError

    def __init__(self, file: aiosqlite.Connection) -> None:
        self._file = file
        self._turn = asyncio.Lock()
        """One connection: what is read beside a transaction of its own would be what may still be undone."""
        self._is_closed = False

    async def _post(self, rows: Sequence[Recorded]) -> None:
        """Write what *rows* come to."""
        raise NotImplementedError

    def _forget(self) -> None:
        """A page was not saved: neither what was undone nor what another process has changed must be remembered."""

    async def checkpoint(self) -> Checkpoint:
        async with self._turn:
            rows = await self._read(CHECKPOINT)
        return Checkpoint(*rows[0])

    async def apply(self, rows: Sequence[Recorded], *, after: Checkpoint) -> bool:
        """Post *rows*; see `projections.follow.Follower`."""
        end = rows[-1]
        saved = False
        try:
            async with self._turn, self._transaction():
                moved_on = await self._file.execute(MOVE_ON, (end.position, end.hash, after.position))
                if moved_on.rowcount:
                    await self._post(rows)
                    saved = True
        except BaseException:
            saved = False
            raise
        finally:
            if not saved:
                self._forget()
        return saved

    async def ask(self, statement: str, values: Any = ()) -> list[Any]:  # noqa: ANN401 - what SQLite takes
        """The rows that a statement gives, as of the last page that was posted."""
        async with self._turn:
            return await self._read(statement, values)

    async def follow_only(self, engine: Engine) -> None:
        """Begin anew unless this is of *engine*'s log, and of this history of it."""
        async with self._turn, self._transaction():  # of two processes that find it foreign, one begins
            if not await self._follows(engine):
                for statement in self.shape.emptying:
                    await self._file.execute(statement)
                await self._file.execute(_BEGIN_AT, (engine.log_id, 0, GENESIS))

    async def close(self) -> None:
        """Let go of it, between two turns: whoever comes later is told that it is closed."""
        async with self._turn:
            self._is_closed = True
            await self._file.close()

    async def _follows(self, engine: Engine) -> bool:
        named = await self._read(_LOG_ID)
        if not named or named[0][0] != engine.log_id:
            return False
        at = Checkpoint(*(await self._read(CHECKPOINT))[0])
        rows = await engine.after(at.position - 1, 1) if at.position else []
        return at.position == 0 or (bool(rows) and (rows[0].position, rows[0].hash) == at)

    async def _read(self, statement: str, values: Any = ()) -> list[Any]:  # noqa: ANN401 - what SQLite takes
        self._must_be_open()
        try:
            return list(await self._file.execute_fetchall(statement, values))
        except TROUBLE as error:
            raise self.error(f"the {self.shape.what} could not be read: {error}") from error

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[None]:
        """All that is written inside, or nothing."""
        self._must_be_open()
        try:
            await self._file.execute("BEGIN IMMEDIATE")
            yield
            await self._file.commit()
        except TROUBLE as error:
            raise self.error(f"the {self.shape.what} did not take the page: {error}") from error
        finally:
            if self._file.in_transaction:  # SQLite may have rolled back by itself (disk full)
                await self._file.rollback()

    def _must_be_open(self) -> None:
        if self._is_closed:
            raise self.error(f"the {self.shape.what} have been closed, to be opened anew")


S = TypeVar("S", bound=SideFile)


def beside(ledger: Path, suffix: str) -> Path:
    """Where the file of that name beside the ledger in that file is."""
    return ledger.with_name(f"{ledger.name}.{suffix}")


async def open_side_file(
    kind: type[S], path: Path, engine: Engine, *, make: Callable[[aiosqlite.Connection], S] | None = None
) -> S:
    """The *kind* of side file of *engine*'s log at *path*, begun if there is none; *make* it, where that takes more.

    Raises:
        CannotOpenError: the file cannot be made or written, is none of ours, or newer than this program.
        StorageError: the log could not be read.
    """
    what = kind.shape.what
    try:
        file = await connect(path, mode="rwc")
    except CannotOpenError as error:
        raise CannotOpenError(f"the {what} have no place beside the ledger: {error}") from error
    try:
        await _prepare(kind.shape, file, path)
        await _set_modes(file)
        opened = (make or kind)(file)
        await opened.follow_only(engine)
    except TROUBLE as error:
        await file.close()
        raise CannotOpenError(f"{path} does not hold {what} that can be written: {error}") from error
    except BaseException:
        await file.close()
        raise
    return opened


async def _prepare(shape: Shape, file: aiosqlite.Connection, path: Path) -> None:
    """Make an empty file one of this *shape*.

    Raises:
        CannotOpenError: it holds something else.
    """
    await file.execute("BEGIN IMMEDIATE")
    application, version = [
        next(iter(await file.execute_fetchall(f"PRAGMA {name}")))[0] for name in ("application_id", "user_version")
    ]
    what = shape.what
    is_older = application == shape.application_id and version < shape.schema_version  # made anew: the log has it all
    if is_older or (application == 0 and not await file.execute_fetchall("SELECT 1 FROM sqlite_schema")):
        for statement in (*(shape.dropping if is_older else ()), *shape.founding):
            await file.execute(statement)
    elif application != shape.application_id:
        raise CannotOpenError(f"{path} does not hold {what}: move it away, and they are made anew")
    elif version > shape.schema_version:
        newer = f"{path} holds {what} of schema {version}, newer than {shape.schema_version}"
        raise CannotOpenError(f"{newer}: move it away")
    await file.commit()


async def _set_modes(file: aiosqlite.Connection) -> None:
    with suppress(sqlite3.OperationalError):  # in use by another process: whoever opens it alone does it
        await file.execute_fetchall("PRAGMA journal_mode = WAL")
    await file.execute_fetchall("PRAGMA synchronous = NORMAL")
