"""What is known of the SQLite file's health, and what follows from it: to go on, to reopen, or to write no more.

**After an I/O error** (a failed sync first of all) nobody knows which of the pages written last are on the disk: the
kernel tells of it once and then takes them for clean, so that a second sync that succeeds proves nothing. So it is
never tried again and gone on: the commit has failed, and before the next one the connection that writes is opened anew
and all that the write-ahead log has is written into the database once more, synced, and the log cut to nothing. Until
that has succeeded nothing is written. Reads go on meanwhile, and what the failed commit had left in the log is never
read by anybody.

**After damage** (a page that is not what SQLite wrote) nothing is written any more by this process, for what is
appended to a log that cannot be read in full cannot be proven; reads go on as far as the damage lets them. Of a file
that is small enough all pages are looked at before it is served, of others afterwards, by a connection of their own,
table by table, so that no table keeps an erasure waiting for long. Alternative beaten: a look at all pages first, which
would be more than a second for each half gigabyte in which nobody is served. Another one: SQLite's quick check, which
takes two thirds of the time and does not hold indexes against rows, so that a key whose entry is wrong would be taken
for one that nobody has used. Flipped bits inside a value are no damage to SQLite; `verify` finds those.
"""

import sqlite3
from pathlib import Path

from ledger.engine import Trouble
from ledger.errors import ReadOnlyError, StorageError
from ledger.sqlite_codes import primary_code
from ledger.sqlite_file import TROUBLE, connect
from ledger.sqlite_sql import CHECKED, integrity_check

LOOKED_AT_FIRST_MAX_BYTES = 64 * 2**20
"""Files up to this size are looked through before they are served: a fifth of a second."""
DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class Health:
    """What has been met of a file that is open."""

    def __init__(self) -> None:
        self.damage: str | None = None
        self.must_reopen = self.is_looked_through = False
        self._has_failed = False

    @property
    def trouble(self) -> Trouble | None:
        if self.damage is not None:
            return Trouble.READ_ONLY
        return Trouble.DEGRADED if self._has_failed else None

    def refuse_writes(self) -> None:
        """Let nobody write to a damaged file.

        Raises:
            ReadOnlyError: it is.
        """
        if self.damage is not None:
            raise ReadOnlyError(self.damage)

    def committed(self) -> None:
        """A commit has succeeded."""
        self._has_failed = False

    def not_committed(self, error: Exception) -> StorageError:
        """A commit has failed with *error*: what to raise."""
        self._has_failed = True
        return self.met(error, "the store did not take the commit")

    def met(self, error: Exception, what: str) -> StorageError:
        """*what* has failed with *error*: what to raise."""
        code = primary_code(error)
        if code in DAMAGED:
            self.damage = str(error)
            return ReadOnlyError(self.damage)
        if code == sqlite3.SQLITE_IOERR:
            self.must_reopen = True
        return StorageError(f"{what}: {error}")


async def look_through(path: Path) -> str | None:
    """What is wrong with any page of the file, in SQLite's words; None: nothing that SQLite can tell.

    Raises:
        CannotOpenError: the file cannot be opened.
    """
    reader = await connect(path, mode="ro")
    try:
        for table in CHECKED:
            (told,), *_ = await reader.execute_fetchall(integrity_check(table))
            if told != "ok":
                return str(told)
    except TROUBLE as error:
        return str(error)
    finally:
        await reader.close()
    return None
