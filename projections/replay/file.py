"""The file of a replay, beside the ledger: how far it has come, what differs, and what the last switch replaced.

A part's result and that it is done are saved in one transaction, so a replay that was killed goes on with the next
part. Rows that agree are not kept: they stand in the ledger already. Alternative beaten: all rows once more in a file
of their own, several times the writing, for nothing that is not there.
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
from projections.replay import file_sql as sql
from projections.replay.account_sums import Sums
from projections.replay.ranges import AccountDifference, Difference, Found
from projections.replay.stored_differences import stored
from projections.replay.task_pages import Part


class Place(msgspec.Struct, frozen=True):
    """Of which log the replay is, and as of where in it accounts are added up."""

    log_id: str
    until: int
    hash: bytes


_encode = msgspec.msgpack.Encoder().encode
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
        found = self._db.execute(sql.PLACE).fetchone()
        return None if found is None else Place(*found)

    def begin(self, place: Place, parts: Sequence[Part]) -> None:
        """Forget the replay before, but for what it replaced, and begin one of these parts."""
        with self._transaction():
            self._clear()
            self._db.execute(sql.BEGIN, (place.log_id, place.until, place.hash))
            self._db.executemany(sql.ADD_PART, [(number, *part) for number, part in enumerate(parts)])

    def end(self) -> None:
        """The replay is over; what it replaced stays."""
        with self._transaction():
            self._clear()

    def _clear(self) -> None:
        for statement in sql.CLEAR:
            self._db.execute(statement)

    def to_do(self) -> list[tuple[int, Part]]:
        return [(number, Part(after, upto)) for number, after, upto in self._db.execute(sql.PARTS_TO_DO)]

    def counted(self) -> tuple[int, int]:
        """Tasks and events of the parts that are done."""
        tasks, events = self._db.execute(sql.COUNTED).fetchone()
        return tasks, events

    def save_part(self, number: int, found: Found) -> None:
        with self._transaction():
            self._db.execute(sql.PART_DONE, (found.tasks, found.events, number))
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
            self._db.execute(sql.SET_PLACE, (place.until, place.hash))
            self._put_sums(sums)
            self._db.executemany(sql.DROP_DIFFERENCE, [(task,) for task in compared])
            self._put([one for one in compared.values() if one is not None])

    # What was found

    def all_sums(self) -> dict[str, Sums]:
        return {account: _sums(row) for account, row in self._db.execute(sql.ALL_SUMS)}

    def sums(self, accounts: Iterable[str]) -> dict[str, Sums]:
        """Those that there are of these accounts."""
        rows = ((account, self._db.execute(sql.SUMS, (account,)).fetchone()) for account in accounts)
        return {account: _sums(row[0]) for account, row in rows if row is not None}

    def difference(self, task: bytes) -> bytes | None:
        """What differs of the task, for `opened` to read; None: nothing."""
        found = self._db.execute(sql.DIFFERENCE, (task,)).fetchone()
        return None if found is None else found[0]

    def differing(self) -> Iterator[list[tuple[bytes, bytes]]]:
        """What differs, page by page: tasks, and what `opened` reads."""
        yield from self._pages(sql.DIFFERENCES)

    def kept(self) -> Iterator[list[tuple[bytes, bytes]]]:
        """What the last switch replaced, in the same way; here *fresh* is what it put there."""
        yield from self._pages(sql.KEPT)

    def _pages(self, statement: str) -> Iterator[list[tuple[bytes, bytes]]]:
        after = b""
        while page := self._db.execute(statement, (after,)).fetchall():
            yield page
            after = page[-1][0]

    def count_differing(self) -> int:
        """Tasks whose rows differ, those that are unreadable among them."""
        return int(self._db.execute(sql.DIFFERENCES_COUNT).fetchone()[0])

    def count_unreadable(self) -> int:
        """Tasks whose events give none."""
        return int(self._db.execute(sql.UNREADABLE_COUNT).fetchone()[0])

    def _put(self, differences: Sequence[Difference]) -> None:
        rows = [(one.task, one.problem is not None, stored(one, entropy=self._entropy)) for one in differences]
        self._db.executemany(sql.PUT_DIFFERENCE, rows)

    def _put_sums(self, sums: Mapping[str, Sums]) -> None:
        self._db.executemany(sql.PUT_SUMS, [(account, _encode(one)) for account, one in sums.items()])

    # What was replaced

    def keep(self, accounts: Iterable[AccountDifference], *, tasks: bool) -> None:
        """Keep these accounts, and all *tasks* that differ or none, as they are about to be replaced, and no more."""
        with self._transaction():
            self._forget_kept()
            self._db.execute(sql.KEEP_OF)
            self._db.executemany(sql.KEEP_ACCOUNT, [(one.account, _encode(one)) for one in accounts])
            if tasks:
                self._db.execute(sql.KEEP_TASKS)

    def keep_again(self, accounts: Mapping[str, AccountDifference | None], *, tasks: Sequence[bytes]) -> None:
        """Keep tasks and accounts that have been compared again as they differ now; None: not at all."""
        with self._transaction():
            for task in tasks:
                self._db.execute(sql.FORGET_TASK, (task,))
                self._db.execute(sql.KEEP_TASK, (task,))
            for account, one in accounts.items():
                self._db.execute(sql.FORGET_ACCOUNT, (account,))
                if one is not None:
                    self._db.execute(sql.KEEP_ACCOUNT, (account, _encode(one)))

    def kept_accounts(self) -> list[AccountDifference]:
        return [_account(row) for (row,) in self._db.execute(sql.KEPT_ACCOUNTS)]

    def refuse_kept_of_another(self, log_id: str) -> None:
        """Check that what is kept, if anything is, was replaced in the log of this name.

        Raises:
            NotOfThisLog: it was not, or nobody can tell.
        """
        of = [name for (name,) in self._db.execute(sql.KEPT_IN)]
        if of != [log_id] and self._db.execute(sql.KEPT_COUNT).fetchone()[0]:
            raise NotOfThisLog(f"what is kept to be put back was replaced in another log than {log_id}")

    def forget_kept(self) -> None:
        with self._transaction():
            self._forget_kept()

    def _forget_kept(self) -> None:
        for statement in sql.FORGET:
            self._db.execute(statement)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")


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
        db.executescript(sql.FOUNDING)
    elif application != sql.APPLICATION_ID:
        raise CannotOpenError(f"{path} does not hold a replay: move it away")
    db.execute(sql.KEPT_OF)  # not with the others: a file that was made before has none
    db.execute("PRAGMA secure_delete = ON")
    db.execute("PRAGMA synchronous = NORMAL")
