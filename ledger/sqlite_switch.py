"""Replacing rows of the SQLite engine by others beside a serving process: all at once, and nobody waits for it.

What is folded from the log may be replaced by what a replay has made of it, and nothing else. The rows to come are
carried into the file beforehand, a few at a time, where nobody reads them; the switch itself is a change of two views,
whatever the number of rows; and afterwards the rows are moved to their places, a few at a time again, which no reader
can tell (`ledger.sqlite_staging`). That it was done is an event of the log in the transaction of the switch. So it is
on record, and whoever serves finds the log moved on at the next commit, and what was decided on the rows before stale:
no commit can rest on what was replaced.

The pointer is the schema. A statement that a server has compiled is compiled anew by SQLite itself when the views have
changed, and reads one state or the other, whole. Writers write to the tables in every state; a trigger on the log has
them throw away, or move, what is staged of the very task first. At rest there is nothing of all this but the views'
names, which cost a reader nothing. Of a content that was deleted nothing stays staged, for its deletion is an event.
A copy of the file, at whichever step, is a ledger that reads the same. The price: what differs is written twice and
lies in the file twice until it has been moved, whose room the file then keeps; and all of it takes longer, for it
rests.

Measured beside a service with two writers and two readers, on two cores that others used as well: 20,000 rows kept a
writer waiting for 1,870 ms in one transaction, and for 11 in this way; 100,000 rows for more than the 5 s after which
it is told 503, and for 47.

Alternatives beaten. One transaction of copied rows: 20,000 rows kept writers waiting for two seconds. Slices of live
rows, each right by itself: between the first and the last a reader would meet rows of both folds, and a page of a list
tasks of both; what is shown beforehand, and put on record, is one change. To rename whole tables: all rows written
once more for a few that differ, and SQLite's ``ALTER TABLE RENAME`` writes other text into the schema than ours and, in
a trigger, takes the ``excluded`` of an upsert for the table. A generation in each row, or an overlay that is always
there: a cost of every read, for what happens once in months.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from ledger.breaks import switch_stream
from ledger.engine import plan
from ledger.errors import CannotOpenError, StorageError
from ledger.events import ProjectionSwitched
from ledger.records import Append, entry
from ledger.sqlite_commits import append_values
from ledger.sqlite_file import BUSY_TIMEOUT_SECONDS, SETTINGS, TROUBLE
from ledger.sqlite_rows import read_head
from ledger.sqlite_sql import APPEND, HEAD
from ledger.sqlite_staging import transaction

CUTS_MAX = 20
CUT_SECONDS = 0.05
"""How long readers are waited for at each cut, while writers wait as well; and the rest after it."""

_VERSION = "SELECT coalesce(max(version), 0) FROM events WHERE task = ?"
_MOVE_PAGES = "PRAGMA wal_checkpoint(PASSIVE)"
_CUT = "PRAGMA wal_checkpoint(TRUNCATE)"


@contextmanager
def writing(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that writes beside whoever serves.

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
            yield db
        except TROUBLE as error:
            raise StorageError(f"the store did not take the switch: {error}") from error


@contextmanager
def switching(path: Path) -> Iterator[sqlite3.Connection]:
    """A transaction in which nobody else writes; committed at the end, or nothing is written.

    Raises:
        CannotOpenError, StorageError: as `writing`.
    """
    with writing(path) as db, transaction(db):
        yield db


def cut(path: Path) -> None:
    """Let what was replaced leave the write-ahead log too; held up by readers to the end, it goes with the next cut."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(path, timeout=CUT_SECONDS)) as db:
        db.execute(_MOVE_PAGES).fetchall()  # most of the work, for which no writer waits
        for _ in range(CUTS_MAX):
            ((is_held_up, *_),) = db.execute(_CUT).fetchall()
            if not is_held_up:
                return
            time.sleep(CUT_SECONDS)


def record(db: sqlite3.Connection, event: ProjectionSwitched, *, by: str) -> int:
    """Append the event to the log; its position."""
    stream = switch_stream()
    head = read_head(db.execute(HEAD).fetchone())
    (version,) = db.execute(_VERSION, (stream,)).fetchone()
    told = entry(event, actor=by, recorded_at_us=event.at_us)
    planned = plan([Append(stream=stream, account="", expected=version, entries=(told,))], head=head, found=None)
    db.execute(APPEND, append_values(planned, after=head))
    return planned.head.position
