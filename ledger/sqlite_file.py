"""The file of the SQLite engine: locking it, opening it, founding a ledger in it, and telling a foreign one."""

import asyncio
import fcntl
import os
import secrets
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path

import aiosqlite

from ledger.chain import GENESIS
from ledger.errors import CannotOpenError
from ledger.lineage import Lineage, decode
from ledger.sqlite_codes import is_of_disk, primary_code
from ledger.sqlite_sql import APPLICATION_ID, LANE, READ_MAX, SCHEMA, SCHEMA_VERSION
from ledger.sqlite_upgrades import UPGRADES, upgrade_from

BUSY_TIMEOUT_SECONDS = 5.0
FOUNDING_PAUSE_SECONDS = 0.05

SETTINGS: tuple[str, ...] = (
    "PRAGMA journal_mode = WAL",  # it is, unless the file is a backup that was put here by hand
    "PRAGMA synchronous = FULL",
    "PRAGMA secure_delete = ON",  # what is deleted or overwritten turns to zeros
    "PRAGMA temp_store = MEMORY",  # a statement's journal is made of the pages before it, and never lies on the disk
)

TROUBLE = (sqlite3.Error, UnicodeDecodeError)
"""What reading a damaged file can end in: SQLite's own message may quote what is no text any more."""


def take_lock(path: Path) -> int:
    """Take the lock of the serving process, which the system gives back when the process ends, however it ends.

    A file of its own: closing any descriptor of the database file would drop SQLite's own locks on it.
    """
    real = path.resolve()  # by whatever name it is reached
    lock = real.with_name(real.name + ".lock")
    try:
        lock_fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CannotOpenError(f"cannot make {lock}: {error.strerror}") from error
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(lock_fd, 20, 0).decode(errors="replace").strip() or "unknown"
        os.close(lock_fd)
        raise CannotOpenError(f"{path} is served by another process (pid {holder}): one writer per file") from error
    try:
        os.ftruncate(lock_fd, 0)
        os.pwrite(lock_fd, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        os.close(lock_fd)
        raise CannotOpenError(f"cannot write to {lock}: {error.strerror}") from error
    return lock_fd


async def refuse_foreign(path: Path) -> None:
    """Refuse what is no ledger, before anything is made beside it. What can only be told under the lock passes.

    Raises:
        CannotOpenError: a folder, a file in no folder, or a file that another program made.
    """
    if path.is_dir():
        raise CannotOpenError(f"{path} is a folder: a ledger is one file")
    if not path.absolute().parent.is_dir():
        raise CannotOpenError(f"cannot open {path}: there is no folder {path.absolute().parent}")
    if not path.exists() or path.stat().st_size == 0:
        return
    reader = await connect(path, mode="ro")
    try:
        tables = await reader.execute_fetchall("SELECT count(*) FROM sqlite_schema")
        application = await _pragma(reader, "application_id")
        if application not in {0, APPLICATION_ID} or (application == 0 and next(iter(tables))[0]):
            raise CannotOpenError(f"{path} is not a ledger: its application id is {application:#x}")
    except TROUBLE as error:
        if primary_code(error) == sqlite3.SQLITE_NOTADB:
            raise CannotOpenError(f"{path} is not a ledger: {error}") from error
    finally:
        await reader.close()


async def connect(path: Path, *, mode: str) -> aiosqlite.Connection:
    try:
        if mode == "rwc" and not path.exists():  # closing one that is open here would drop SQLite's locks on it
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # it holds the pepper
        # Opened here and not by aiosqlite: when that fails to open a file, its thread outlives the event loop.
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}",
            uri=True,
            timeout=BUSY_TIMEOUT_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
    except (*TROUBLE, OSError) as error:
        raise CannotOpenError(f"cannot open {path}: {error}") from error
    opening = asyncio.ensure_future(_opened(connection))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        await (await opening).close()  # whoever waited for it has left: its thread would outlive the event loop
        raise


async def _opened(connection: sqlite3.Connection) -> aiosqlite.Connection:
    return await aiosqlite.Connection(lambda: connection, iter_chunk_size=READ_MAX)


async def prepare(writer: aiosqlite.Connection, path: Path) -> None:
    """Make an empty file a ledger, and set what is set for each connection that writes."""
    try:
        application = await _pragma(writer, "application_id")
        tables = await writer.execute_fetchall("SELECT count(*) FROM sqlite_schema")
        if application == 0 and next(iter(tables))[0] == 0:
            await _found(writer)
        for setting in SETTINGS:
            await writer.execute_fetchall(setting)
    except TROUBLE as error:
        raise _not_opened(path, error) from error


async def _found(writer: aiosqlite.Connection) -> None:
    """Make an empty file a ledger. Of several processes that do so at once, one succeeds and the others use its."""
    deadline = time.monotonic() + BUSY_TIMEOUT_SECONDS
    while True:
        try:
            await writer.execute_fetchall("PRAGMA journal_mode = WAL")
            await writer.executescript(_founding())
        except sqlite3.OperationalError as error:
            await writer.rollback()
            if await _pragma(writer, "application_id") == APPLICATION_ID:
                return
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            await asyncio.sleep(FOUNDING_PAUSE_SECONDS)  # the switch to WAL does not wait by itself
        else:
            return


def _founding() -> str:
    """The script that makes a ledger of an empty file, whole or not at all."""
    return f"""
BEGIN IMMEDIATE;
{SCHEMA}
INSERT INTO lanes (lane, position, hash, recorded_at) VALUES ({LANE}, 0, x'{GENESIS.hex()}', 0);
INSERT INTO meta (name, value) VALUES ('log_id', x'{secrets.token_hex(8).encode().hex()}');
INSERT INTO meta (name, value) VALUES ('pepper', x'{secrets.token_hex(32)}');
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""


async def is_older(connection: aiosqlite.Connection) -> bool:
    """Whether the file is a ledger that an older version made, which `upgrade` makes one of this version."""
    return (
        await _pragma(connection, "application_id") == APPLICATION_ID
        and await _pragma(connection, "user_version") in UPGRADES
    )


async def upgrade(writer: aiosqlite.Connection, path: Path) -> None:
    """Make a ledger of an older schema one of this version's, whole or not at all.

    The caller has the lock of the serving process: one of an older version could write no more.

    Raises:
        CannotOpenError: a step failed; the file is as it was.
    """
    if not await is_older(writer):  # another process was faster
        return
    try:
        await writer.executescript(upgrade_from(await _pragma(writer, "user_version")))
    except TROUBLE as error:
        await writer.rollback()
        raise CannotOpenError(f"{path} cannot be brought to schema {SCHEMA_VERSION}: {error}") from error


async def read_meta(connection: aiosqlite.Connection, path: Path) -> dict[str, bytes]:
    """What the file says of itself.

    Raises:
        CannotOpenError: it is no ledger, or of another schema than this program's.
    """
    try:
        application = await _pragma(connection, "application_id")
        version = await _pragma(connection, "user_version")
        if application != APPLICATION_ID:
            raise CannotOpenError(f"{path} is not a ledger: its application id is {application:#x}")
        if version > SCHEMA_VERSION:
            raise CannotOpenError(
                f"{path} has schema {version}, this program knows up to {SCHEMA_VERSION}: use a newer task-ledger"
            )
        if version in UPGRADES:
            raise CannotOpenError(
                f"{path} has schema {version}, this program needs {SCHEMA_VERSION}: `task-ledger serve` brings it there"
            )
        if version < SCHEMA_VERSION:
            raise CannotOpenError(
                f"{path} has schema {version}, whose contents are not sealed, this program reads {SCHEMA_VERSION}: "
                "begin a new ledger in another file, and keep this one with the program that wrote it"
            )
        meta = {row[0]: row[1] for row in await connection.execute_fetchall("SELECT name, value FROM meta")}
    except TROUBLE as error:
        raise _not_opened(path, error) from error
    if not {"log_id", "pepper"} <= meta.keys():
        raise CannotOpenError(f"{path} is damaged: it has lost its name or its pepper")
    try:
        lineage_of(meta)
    except ValueError as error:
        raise CannotOpenError(f"{path} is damaged: what it was restored from cannot be read: {error}") from error
    return meta


def lineage_of(meta: Mapping[str, bytes]) -> Lineage:
    """What the file was called before it was restored; a file that never was does not say."""
    return decode(meta["lineage"]) if "lineage" in meta else ()


def _not_opened(path: Path, error: Exception) -> CannotOpenError:
    """What to raise when a file that was opened cannot be used: the disk may be to blame, and not what is on it."""
    if is_of_disk(error):
        return CannotOpenError(f"cannot open {path}: {error}")
    if primary_code(error) == sqlite3.SQLITE_CORRUPT:
        return CannotOpenError(f"{path} is damaged and cannot be opened ({error}): `task-ledger restore` a backup")
    return CannotOpenError(f"{path} is not a ledger: {error}")


async def _pragma(connection: aiosqlite.Connection, name: str) -> int:
    rows = await connection.execute_fetchall(f"PRAGMA {name}")
    return int(next(iter(rows))[0])
