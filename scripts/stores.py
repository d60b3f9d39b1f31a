"""Which store a verb works on, and all else that the command line reads from its environment."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import typer

from ledger import sqlite
from ledger.engine import Engine
from ledger.errors import CannotOpenError
from projections.books.books import Books, books_of, open_books
from projections.deadlines.deadlines import Deadlines, deadlines_of, open_deadlines

DEFAULT = "sqlite:ledger.db"

StoreOption = Annotated[
    str,
    typer.Option("--store", envvar="TASK_LEDGER_STORE", metavar="STORE", help="Where the ledger lies: sqlite:PATH."),
]


def path_of(store: str) -> Path:
    """The file that *store* names.

    Raises:
        typer.BadParameter: it names none. The message does not repeat it, for it may hold a password.
    """
    scheme, _, path = store.partition(":")
    if scheme in {"postgresql", "postgres"}:
        raise _wrong("this build has no PostgreSQL engine yet; use sqlite:PATH")
    if scheme != "sqlite" or not path:
        raise _wrong("a store is written sqlite:PATH")
    if path.startswith("//"):
        raise _wrong("write sqlite:PATH, without slashes before the path that are not part of it")
    if path.startswith(":"):
        raise _wrong("a ledger lies in a file: sqlite:PATH, and no name that SQLite takes for memory")
    return Path(path)


def real_path(ledger: Path) -> Path:
    """The ledger's own path, by whatever name it is reached: what follows it keeps its files beside that."""
    return ledger.resolve()


def existing(store: str) -> Path:
    """The file of a ledger that there is, by whatever name it is reached.

    Raises:
        typer.BadParameter: as `path_of`.
        CannotOpenError: there is none, or it is none of ours.
    """
    path = real_path(path_of(store))
    asyncio.run(_looked_at(path))
    return path


async def _looked_at(path: Path) -> None:
    engine = await sqlite.open_to_read(path)
    await engine.close()


def books_path(ledger: Path) -> Path:
    """Where the books of that ledger are."""
    return books_of(real_path(ledger))


def pepper() -> bytes | None:
    """The key of the key digests when it is kept out of the store; None: the store's own."""
    text = os.environ.get("TASK_LEDGER_PEPPER")
    return text.encode("utf-8", "surrogateescape") if text else None


@asynccontextmanager
async def to_read(store: str) -> AsyncIterator[Engine]:
    """The store, only to be read; also beside a serving process.

    Raises:
        typer.BadParameter: as `path_of`.
        CannotOpenError: there is none, or it is none of ours.
    """
    engine = await sqlite.open_to_read(path_of(store))
    try:
        yield engine
    finally:
        await engine.close()


@asynccontextmanager
async def with_books(store: str) -> AsyncIterator[tuple[Engine, Books]]:
    """The store as `to_read`, and its books, which are made if there are none.

    Raises:
        typer.BadParameter, CannotOpenError: as `to_read`.
        CannotOpenError: the books have no place beside it.
    """
    async with to_read(store) as engine:
        books = await open_books(books_path(path_of(store)), engine)
        try:
            yield engine, books
        finally:
            await books.close()


@asynccontextmanager
async def deadlines(store: str, engine: Engine) -> AsyncIterator[Deadlines]:
    """What is due in the store of *engine*, which is made if it is not there.

    Raises:
        CannotOpenError: it has no place beside the store.
    """
    opened = await open_deadlines(deadlines_of(real_path(path_of(store))), engine)
    try:
        yield opened
    finally:
        await opened.close()


@asynccontextmanager
async def beside(store: str, *, make: bool) -> AsyncIterator[Engine]:
    """The store for short administrative appends, also beside a serving process; if it is missing, *make* makes it.

    Raises:
        typer.BadParameter: as `path_of`.
        CannotOpenError: there is none, or it is none of ours.
    """
    path = path_of(store)
    if not make and not _exists(path):
        raise CannotOpenError(f"no ledger at {path}")
    engine = await sqlite.open_beside(path)
    try:
        yield engine
    finally:
        await engine.close()


@asynccontextmanager
async def to_fill(store: str) -> AsyncIterator[Engine]:
    """A new store, or one that is empty still, for this process alone.

    Raises:
        typer.BadParameter: as `path_of`, or there is something in its log.
        CannotOpenError: it is none of ours, or served by another process.
    """
    path = path_of(store)
    engine = await sqlite.open_to_serve(path)
    try:
        if (await engine.head()).position:
            raise _wrong(f"{path} has a history already; name a new file")
        yield engine
    finally:
        await engine.close()


def _exists(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _wrong(message: str) -> typer.BadParameter:
    return typer.BadParameter(message, param_hint="'--store'")
