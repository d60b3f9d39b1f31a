"""The file of a replay, beside the ledger: how far it has come, what differs, and what the last switch replaced.

A part's result and that it is done are saved in one transaction, so a replay that was killed goes on with the next
part. Rows that agree are not kept: they stand in the ledger already. What content there is in a row that differs is
sealed under its task's own key, which lies in the ledger only: whoever deletes the task erases it here as well. Of a
task that has been deleted the live row's view is not kept at all. Alternative beaten: all rows once more in a file of
their own, several times the writing, for nothing that is not there.
"""

import fcntl
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec

from ledger.entropy import Entropy
from ledger.errors import CannotOpenError, Refusal
from ledger.seals import NONCE_BYTES, seal, unseal
from ledger.sqlite_sql import TASK_COLUMNS
from projections.replay.account_sums import Sums
from projections.replay.ranges import AccountDifference, Difference, Found
from projections.replay.task_pages import Part, Row

APPLICATION_ID = 0x544C5250  # "TLRP"
VIEW = TASK_COLUMNS.index("view")
PAGE = 500

_KEPT_OF = "CREATE TABLE IF NOT EXISTS kept_of (log_id TEXT NOT NULL) STRICT"
"""Of which log the rows are that were replaced: another one may have taken its path since."""
_FOUNDING = f"""
BEGIN IMMEDIATE;
CREATE TABLE replay (log_id TEXT NOT NULL, until INTEGER NOT NULL, hash BLOB NOT NULL) STRICT;
CREATE TABLE parts (
    part INTEGER PRIMARY KEY, after BLOB NOT NULL, upto BLOB NOT NULL, tasks INTEGER, events INTEGER
) STRICT;
CREATE TABLE differences (
    task BLOB PRIMARY KEY, is_unreadable INTEGER NOT NULL, row BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE sums (account TEXT PRIMARY KEY, row BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE kept (task BLOB PRIMARY KEY, row BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE kept_accounts (account TEXT PRIMARY KEY, row BLOB NOT NULL) STRICT, WITHOUT ROWID;
PRAGMA application_id = {APPLICATION_ID};
COMMIT;
"""
_TABLES = ("replay", "parts", "differences", "sums")
PUT_DIFFERENCE = "INSERT OR REPLACE INTO differences VALUES (?, ?, ?)"
SUMS = "SELECT row FROM sums WHERE account = ?"
DIFFERENCE = "SELECT row FROM differences WHERE task = ?"
PUT_SUMS = "INSERT OR REPLACE INTO sums VALUES (?, ?)"
KEEP_ACCOUNT = "INSERT INTO kept_accounts VALUES (?, ?)"
SET_PLACE = "UPDATE replay SET until = ?, hash = ?"


class Place(msgspec.Struct, frozen=True):
    """Of which log the replay is, and as of where in it accounts are added up."""

    log_id: str
    until: int
    hash: bytes


class _Kept(msgspec.Struct, frozen=True, array_like=True):
    """A difference as it is stored: its views sealed, if there is a key."""

    live: Row | None
    fresh: Row | None
    problem: str | None
    is_sealed: bool
    is_erased: bool


_encode = msgspec.msgpack.Encoder().encode
_kept = msgspec.msgpack.Decoder(_Kept).decode
_sums = msgspec.msgpack.Decoder(Sums).decode
_account = msgspec.msgpack.Decoder(AccountDifference).decode


def replay_of(ledger: Path) -> Path:
    """Where the replay of the ledger in that file is."""
    return ledger.with_name(f"{ledger.name}.replay")


class NotOfThisLog(Refusal):
    """What was replaced in one log is not put back into another."""


class ReplayFile:
    """An open one. `open_replay` is the way to get it."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._entropy = Entropy()

    # Progress

    def place(self) -> Place | None:
        """None: no replay is under way."""
        found = self._db.execute("SELECT log_id, until, hash FROM replay").fetchone()
        return None if found is None else Place(*found)

    def begin(self, place: Place, parts: Sequence[Part]) -> None:
        """Forget the replay before, but for what it replaced, and begin one of these parts."""
        with self._transaction():
            self._clear()
            self._db.execute("INSERT INTO replay VALUES (?, ?, ?)", (place.log_id, place.until, place.hash))
            self._db.executemany(
                "INSERT INTO parts (part, after, upto) VALUES (?, ?, ?)",
                [(number, *part) for number, part in enumerate(parts)],
            )

    def end(self) -> None:
        """The replay is over; what it replaced stays."""
        with self._transaction():
            self._clear()

    def _clear(self) -> None:
        for table in _TABLES:
            self._db.execute(f"DELETE FROM {table}")  # noqa: S608 - names of our own

    def to_do(self) -> list[tuple[int, Part]]:
        rows = self._db.execute("SELECT part, after, upto FROM parts WHERE tasks IS NULL ORDER BY part")
        return [(number, Part(after, upto)) for number, after, upto in rows]

    def counted(self) -> tuple[int, int]:
        """Tasks and events of the parts that are done."""
        tasks, events = self._db.execute("SELECT sum(tasks), sum(events) FROM parts").fetchone()
        return tasks or 0, events or 0

    def save_part(self, number: int, found: Found) -> None:
        with self._transaction():
            self._db.execute(
                "UPDATE parts SET tasks = ?, events = ? WHERE part = ?", (found.tasks, found.events, number)
            )
            self._put(found.differences)
            known = self.sums(found.sums)
            for account, sums in found.sums.items():
                before = known.get(account)
                if before is not None:
                    sums.merge(before)
            self._put_sums(found.sums)

    def move_on(self, place: Place, sums: Mapping[str, Sums], compared: Mapping[bytes, Difference | None]) -> None:
        """Accounts have been added up to *place*, and these tasks compared again."""
        with self._transaction():
            self._db.execute(SET_PLACE, (place.until, place.hash))
            self._put_sums(sums)
            self._db.executemany("DELETE FROM differences WHERE task = ?", [(task,) for task in compared])
            self._put([one for one in compared.values() if one is not None])

    # What was found

    def all_sums(self) -> dict[str, Sums]:
        return {account: _sums(row) for account, row in self._db.execute("SELECT account, row FROM sums")}

    def sums(self, accounts: Iterable[str]) -> dict[str, Sums]:
        """Those that there are of these accounts."""
        rows = ((account, self._db.execute(SUMS, (account,)).fetchone()) for account in accounts)
        return {account: _sums(row[0]) for account, row in rows if row is not None}

    def difference(self, task: bytes) -> bytes | None:
        """What differs of the task, for `opened` to read; None: nothing."""
        found = self._db.execute(DIFFERENCE, (task,)).fetchone()
        return None if found is None else found[0]

    def differing(self) -> Iterator[list[tuple[bytes, bytes]]]:
        """What differs, page by page: tasks, and what `opened` reads."""
        yield from self._pages("differences")

    def kept(self) -> Iterator[list[tuple[bytes, bytes]]]:
        """What the last switch replaced, in the same way; here *fresh* is what it put there."""
        yield from self._pages("kept")

    def _pages(self, table: str) -> Iterator[list[tuple[bytes, bytes]]]:
        statement = f"SELECT task, row FROM {table} WHERE task > ? ORDER BY task LIMIT {PAGE}"  # noqa: S608 - the same
        after = b""
        while page := self._db.execute(statement, (after,)).fetchall():
            yield page
            after = page[-1][0]

    def count(self, table: str) -> int:
        return int(self._db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608 - the same

    def count_unreadable(self) -> int:
        """Tasks whose events give none."""
        return int(self._db.execute("SELECT count(*) FROM differences WHERE is_unreadable").fetchone()[0])

    def _put(self, differences: Sequence[Difference]) -> None:
        self._db.executemany(
            PUT_DIFFERENCE, [(one.task, one.problem is not None, self.closed(one)) for one in differences]
        )

    def _put_sums(self, sums: Mapping[str, Sums]) -> None:
        self._db.executemany(PUT_SUMS, [(account, _encode(one)) for account, one in sums.items()])

    # What was replaced

    def keep(self, accounts: Iterable[AccountDifference], *, tasks: bool) -> None:
        """Keep these accounts, and all *tasks* that differ or none, as they are about to be replaced, and no more."""
        with self._transaction():
            self._forget_kept()
            self._db.execute("INSERT INTO kept_of SELECT log_id FROM replay")
            self._db.executemany(KEEP_ACCOUNT, [(one.account, _encode(one)) for one in accounts])
            if tasks:
                self._db.execute("INSERT INTO kept SELECT task, row FROM differences")

    def keep_again(self, accounts: Mapping[str, AccountDifference | None], *, tasks: Sequence[bytes]) -> None:
        """Keep tasks and accounts that have been compared again as they differ now; None: not at all."""
        with self._transaction():
            for task in tasks:
                self._db.execute("DELETE FROM kept WHERE task = ?", (task,))
                self._db.execute("INSERT INTO kept SELECT task, row FROM differences WHERE task = ?", (task,))
            for account, one in accounts.items():
                self._db.execute("DELETE FROM kept_accounts WHERE account = ?", (account,))
                if one is not None:
                    self._db.execute(KEEP_ACCOUNT, (account, _encode(one)))

    def kept_accounts(self) -> list[AccountDifference]:
        return [_account(row) for (row,) in self._db.execute("SELECT row FROM kept_accounts ORDER BY account")]

    def refuse_kept_of_another(self, log_id: str) -> None:
        """Check that what is kept, if anything is, was replaced in the log of this name.

        Raises:
            NotOfThisLog: it was not, or nobody can tell.
        """
        of = [name for (name,) in self._db.execute("SELECT log_id FROM kept_of")]
        if of != [log_id] and (self.count("kept") or self.count("kept_accounts")):
            raise NotOfThisLog(f"what is kept to be put back was replaced in another log than {log_id}")

    def forget_kept(self) -> None:
        with self._transaction():
            self._forget_kept()

    def _forget_kept(self) -> None:
        self._db.execute("DELETE FROM kept")
        self._db.execute("DELETE FROM kept_accounts")
        self._db.execute("DELETE FROM kept_of")

    # Seals

    def closed(self, one: Difference) -> bytes:
        """The difference as it is stored."""
        live, fresh = (self._sealed(row, one) for row in (one.live, one.fresh))
        if live is not None and one.is_erased:
            live = (*live[:VIEW], b"", *live[VIEW + 1 :])
        return _encode(_Kept(live, fresh, one.problem, one.key is not None, one.is_erased))

    def _sealed(self, row: Row | None, one: Difference) -> Row | None:
        if row is None or one.key is None:
            return row
        nonce = self._entropy(NONCE_BYTES)
        sealed = seal(row[VIEW], key=one.key, nonce=nonce, stream=one.task, version=0)
        return (*row[:VIEW], sealed, *row[VIEW + 1 :])

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")


def opened(task: bytes, stored: bytes, key: bytes | None) -> Difference:
    """A difference as it was found; without its rows, if its task has been deleted since.

    Raises:
        DamagedError: it was sealed under another key.
    """
    one = _kept(stored)
    if one.is_sealed and key is None:
        return Difference(task=task, live=None, fresh=None, problem="deleted since", is_erased=True)
    live, fresh = (_unsealed(row, task, key) if one.is_sealed and key else row for row in (one.live, one.fresh))
    return Difference(task=task, live=live, fresh=fresh, problem=one.problem, key=key, is_erased=one.is_erased)


def opened_fresh(task: bytes, stored: bytes, key: bytes | None) -> tuple[Row | None, bool]:
    """The fresh row of a difference, and whether the events give one at all; the live row stays sealed."""
    one = _kept(stored)
    if one.problem is not None or (one.is_sealed and key is None):
        return None, False
    return (_unsealed(one.fresh, task, key) if one.is_sealed and key else one.fresh), True


def _unsealed(row: Row | None, task: bytes, key: bytes) -> Row | None:
    if row is None:
        return None
    return (*row[:VIEW], unseal(row[VIEW], key=key, stream=task, version=0), *row[VIEW + 1 :])


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """While it is entered no other process replays into that file: two would add each part to its accounts twice.

    To be left after the file is closed: with any descriptor of it that a process closes go SQLite's own locks.

    Raises:
        CannotOpenError: another process replays, or the file cannot be made.
    """
    try:
        lock_fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)  # as private as the ledger
    except OSError as error:
        raise CannotOpenError(f"{path} does not take the replay: {error}") from error
    try:
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CannotOpenError(f"another replay is under way in {path}: wait until it is done") from error
        yield
    finally:
        os.close(lock_fd)


@contextmanager
def open_replay(path: Path) -> Iterator[ReplayFile]:
    """The file of a replay, made if there is none. Who is to write it holds it `alone`.

    Raises:
        CannotOpenError: it cannot be made or written, or holds something else.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # as private as the ledger
        with closing(sqlite3.connect(path, timeout=5, isolation_level=None)) as db:
            _prepare(db, path)
            yield ReplayFile(db)
    except (sqlite3.OperationalError, OSError) as error:
        raise CannotOpenError(f"{path} does not take the replay: {error}") from error


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    (application,) = db.execute("PRAGMA application_id").fetchone()
    if application == 0 and not db.execute("SELECT 1 FROM sqlite_schema").fetchone():
        db.executescript(_FOUNDING)
    elif application != APPLICATION_ID:
        raise CannotOpenError(f"{path} does not hold a replay: move it away")
    db.execute(_KEPT_OF)  # not with the others: a file that was made before has none
    db.execute("PRAGMA secure_delete = ON")
    db.execute("PRAGMA synchronous = NORMAL")
