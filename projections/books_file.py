"""The file that the books are in: opened, made, or made anew."""

import sqlite3
from contextlib import suppress
from pathlib import Path

import aiosqlite

from ledger.engine import Engine
from ledger.errors import CannotOpenError
from ledger.sqlite_file import TROUBLE, connect
from projections.books import Books
from projections.books_sql import APPLICATION_ID, DROP, FOUNDING, SCHEMA_VERSION


def books_of(ledger: Path) -> Path:
    """Where the books of the ledger in that file are."""
    return ledger.with_name(f"{ledger.name}.books")


async def open_books(path: Path, engine: Engine) -> Books:
    """The books of *engine*'s log in the file *path*, begun if there are none.

    Raises:
        CannotOpenError: the file cannot be made or written, is none of ours, or newer than this program.
        StorageError: the log could not be read.
    """
    try:
        file = await connect(path, mode="rwc")
    except CannotOpenError as error:
        raise CannotOpenError(f"the books have no place beside the ledger: {error}") from error
    try:
        await _prepare(file, path)
        await _set_modes(file)
        books = Books(file)
        await books.follow_only(engine)
    except TROUBLE as error:
        await file.close()
        raise CannotOpenError(f"{path} does not hold books that can be written: {error}") from error
    except BaseException:
        await file.close()
        raise
    return books


async def _prepare(file: aiosqlite.Connection, path: Path) -> None:
    """Make an empty file one for books.

    Raises:
        CannotOpenError: it holds something else.
    """
    await file.execute("BEGIN IMMEDIATE")
    application, version = [
        next(iter(await file.execute_fetchall(f"PRAGMA {name}")))[0] for name in ("application_id", "user_version")
    ]
    is_older = application == APPLICATION_ID and version < SCHEMA_VERSION  # made anew: the log has it all
    if is_older or (application == 0 and not await file.execute_fetchall("SELECT 1 FROM sqlite_schema")):
        for statement in (*(DROP if is_older else ()), *FOUNDING):
            await file.execute(statement)
    elif application != APPLICATION_ID:
        raise CannotOpenError(f"{path} does not hold books: move it away, and they are made anew")
    elif version > SCHEMA_VERSION:
        raise CannotOpenError(f"{path} holds books of schema {version}, newer than {SCHEMA_VERSION}: move it away")
    await file.commit()


async def _set_modes(file: aiosqlite.Connection) -> None:
    with suppress(sqlite3.OperationalError):  # in use by another process: whoever opens them alone does it
        await file.execute_fetchall("PRAGMA journal_mode = WAL")
    await file.execute_fetchall("PRAGMA synchronous = NORMAL")
