"""Replacing rows of the SQLite engine by others, also beside a serving process: all of it in one transaction.

What is folded from the log may be replaced by what a replay has made of it, and nothing else. That it was done is an
event of the log in the same transaction. So it is on record, and whoever serves finds the log moved on at the next
commit, and what was decided on the rows before stale: no commit can rest on what was replaced. Alternative beaten: to
rename tables, which changes the schema that the file is guarded by, and has a server's statements compiled anew.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from ledger.breaks import switch_stream
from ledger.engine import plan
from ledger.errors import CannotOpenError, StorageError
from ledger.events import ProjectionSwitched
from ledger.records import AccountRow, Append, entry
from ledger.sqlite_commits import append_values
from ledger.sqlite_file import BUSY_TIMEOUT_SECONDS, SETTINGS, TROUBLE
from ledger.sqlite_rows import read_head
from ledger.sqlite_sql import ACCOUNT_COLUMNS, APPEND, HEAD, TASK_COLUMNS

CUT_SECONDS = 1
"""How long readers are waited for."""

_PUT_TASK = f"""
INSERT INTO tasks ({", ".join(TASK_COLUMNS)}) VALUES ({", ".join("?" * len(TASK_COLUMNS))})
ON CONFLICT (task) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in TASK_COLUMNS[1:])}"""
_PUT_ACCOUNT = f"""
INSERT INTO accounts ({", ".join(ACCOUNT_COLUMNS)}) VALUES ({", ".join("?" * len(ACCOUNT_COLUMNS))})
ON CONFLICT (account) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in ACCOUNT_COLUMNS[1:])}"""
_DROP_TASK = "DELETE FROM tasks WHERE task = ?"
_DROP_ACCOUNT = "DELETE FROM accounts WHERE account = ?"
_VERSION = "SELECT coalesce(max(version), 0) FROM events WHERE task = ?"
_CUT = "PRAGMA wal_checkpoint(TRUNCATE)"


@contextmanager
def switching(path: Path) -> Iterator[sqlite3.Connection]:
    """A transaction in which nobody else writes; committed at the end, or nothing is written.

    Raises:
        CannotOpenError: the file cannot be opened to be written.
        StorageError: it did not take what was written, or another process kept it for too long.
    """
    uri = f"{path.absolute().as_uri()}?mode=rw"
    try:
        connection = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None)
    except sqlite3.Error as error:
        raise CannotOpenError(f"cannot open {path}: {error}") from error
    with closing(connection) as db:
        try:
            for setting in SETTINGS:
                db.execute(setting)
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")
        except TROUBLE as error:
            raise StorageError(f"the store did not take the switch: {error}") from error


def cut(path: Path) -> None:
    """Let what was replaced leave the write-ahead log too; held up by a reader, it goes with the next cut."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(path, timeout=CUT_SECONDS)) as db:
        db.execute(_CUT)


def put_tasks(db: sqlite3.Connection, rows: Sequence[Sequence[Any]]) -> None:
    """Let these be the rows of their tasks, in the order of the table's columns."""
    db.executemany(_PUT_TASK, rows)


def drop_tasks(db: sqlite3.Connection, tasks: Sequence[bytes]) -> None:
    """Let these tasks have no row."""
    db.executemany(_DROP_TASK, [(task,) for task in tasks])


def put_account(db: sqlite3.Connection, account: str, row: AccountRow | None) -> None:
    """Let this be the account's row; None: it has none."""
    if row is None:
        db.execute(_DROP_ACCOUNT, (account,))
    else:
        db.execute(_PUT_ACCOUNT, account_columns(row))


def account_columns(row: AccountRow) -> tuple[Any, ...]:
    """The row in the order of the table's columns."""
    return tuple(getattr(row, name) for name in ACCOUNT_COLUMNS)


def record(db: sqlite3.Connection, event: ProjectionSwitched, *, by: str) -> int:
    """Append the event to the log; its position."""
    stream = switch_stream()
    head = read_head(db.execute(HEAD).fetchone())
    (version,) = db.execute(_VERSION, (stream,)).fetchone()
    told = entry(event, actor=by, recorded_at_us=event.at_us)
    planned = plan([Append(stream=stream, account="", expected=version, entries=(told,))], head=head, found=None)
    db.execute(APPEND, append_values(planned, after=head))
    return planned.head.position
