"""The three ways to open a ledger in a SQLite file: to serve it, to append beside who serves it, and to read it.

A file that is missing is made, and one of an older schema is brought up to date, by whoever opens it to write.
"""

import os
from contextlib import suppress
from pathlib import Path

import aiosqlite

from ledger.errors import CannotOpenError, ReadOnlyError
from ledger.sqlite_engine import SqliteEngine
from ledger.sqlite_file import connect, is_older, prepare, read_meta, refuse_foreign, take_lock, upgrade
from ledger.sqlite_health import LOOKED_AT_FIRST_MAX_BYTES
from ledger.sqlite_scratch import sweep


async def open_to_serve(path: Path) -> SqliteEngine:
    """The engine of the one process that serves *path*; the file is made if it is missing.

    Raises:
        CannotOpenError: the file is foreign, newer, or served by another process.
    """
    await refuse_foreign(path)
    lock_fd = take_lock(path)
    try:
        sweep(path)  # whoever was to make it may have been killed, with all that is in it
        engine = await _open_to_write(path, lock_fd=lock_fd)
    except BaseException:
        os.close(lock_fd)
        raise
    try:
        if path.stat().st_size <= LOOKED_AT_FIRST_MAX_BYTES:
            await engine.look_through()
        await _heed_switches(engine)
        await engine.wipe()
    except BaseException:  # whoever waited for it may have left: its threads would outlive the program
        await engine.close()
        raise
    return engine


async def open_beside(path: Path) -> SqliteEngine:
    """An engine for short administrative appends, also beside a serving process; makes the file if it is missing.

    It takes no lock, so it must leave the tasks alone: the serving process decides on what it has in memory of them.
    """
    engine = await _open_to_write(path, lock_fd=None)
    try:
        await _heed_switches(engine)
    except BaseException:
        await engine.close()
        raise
    return engine


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
        return SqliteEngine(reader=reader, writer=None, lock_fd=None, meta=await read_meta(reader, path), path=path)
    except BaseException:
        await reader.close()
        raise


async def _open_to_write(path: Path, *, lock_fd: int | None) -> SqliteEngine:
    """The engine, to which the lock belongs from then on; if it cannot be had, the lock stays its taker's."""
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
    return SqliteEngine(reader=reader, writer=writer, lock_fd=lock_fd, meta=meta, path=path)


async def _heed_switches(engine: SqliteEngine) -> None:
    """Take all switches of projections so far for heeded: nothing is in memory yet."""
    with suppress(ReadOnlyError):  # what writes nothing has none to heed
        await engine.heed_switches()


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
