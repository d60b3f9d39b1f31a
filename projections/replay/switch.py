"""The switch: live rows replaced by those that a replay has made, all at once; and back.

How it is done beside those who read and write is `ledger.sqlite_switch`'s. Here is what is staged: before anything
else, that which differs is kept in the replay's file; then it is carried into the ledger's, row by row, while others
write. Of a task or an account that moves on meanwhile the writer throws away what is staged, and it is compared again:
after each round fewer, and the last few, of some milliseconds, in the switching transaction, which holds the lock. So
what is live from its commit on is what the log gives at that very position.

A process that dies before that commit has changed nothing that is read; one that dies after it has switched. The next
`replay` throws away what was staged in vain, or moves what is left of the switch, before it does anything of its own.

Going back stages what was replaced where the row is still the one that the switch put. A task that has moved on since
was moved on from that one, and keeps it; and if it moves on after it was staged, that is thrown away.
"""

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
from msgspec.structs import replace

from ledger.events import ProjectionSwitched
from ledger.sqlite_file import TROUBLE
from ledger.sqlite_rows import read_account
from ledger.sqlite_staging import (
    counted,
    forget_account,
    forget_accounts,
    forget_task,
    in_slices,
    let_be_read,
    put_account,
    put_task,
    settle,
    stage,
    transaction,
)
from ledger.sqlite_switch import cut, record, writing
from projections.replay.file import ReplayFile
from projections.replay.lines import Projection
from projections.replay.ranges import AccountDifference, Difference, key_of
from projections.replay.replay import FEW_EVENTS, ROUNDS_MAX, CaughtUp, catch_up, compared, compared_account, log_id_of
from projections.replay.replay_sql import ACCOUNT, HEAD, ROW
from projections.replay.stored_differences import opened, opened_fresh
from projections.replay.task_pages import snapshot


class Switched(msgspec.Struct, frozen=True, kw_only=True):
    """What a switch did, and where in the log it stands; None: it had nothing to do."""

    tasks: int
    accounts: int
    left: int
    """Rows that stay as they are: their events give no task, or, going back, they have moved on since."""
    position: int | None
    took_ms: int
    """How long writers were kept waiting, once."""


def switch(ledger: Path, file: ReplayFile, projections: Sequence[Projection], *, by: str, at_us: int) -> Switched:
    """Catch up to the log's end, and put what differs in its place."""
    with writing(ledger) as db:
        settle(db)
        fresh = _Fresh(db, file, projections)
        if fresh.differs:
            with _staging(db):
                fresh.stage()
        event = ProjectionSwitched(at_us=at_us, projection="", position=0, replaced=0)
        done = fresh.switched(event, by=by) if fresh.differs else _NOTHING
        settle(db)
    cut(ledger)
    left = file.count_differing() - done.tasks if Projection.TASKS in projections else 0
    file.end()
    return replace(done, left=left)


def switch_back(ledger: Path, file: ReplayFile, *, by: str, at_us: int) -> Switched:
    """Put back what the last switch replaced.

    Raises:
        NotOfThisLog: that was in another log, which had this path before.
    """
    with writing(ledger) as db:
        file.refuse_kept_of_another(log_id_of(db))
        settle(db)
        with _staging(db):
            stage(db)
            kept = _stage_kept(db, file)
        with transaction(db):
            began_ns = time.perf_counter_ns()
            end, _ = db.execute(HEAD).fetchone()
            event = ProjectionSwitched(at_us=at_us, projection="", position=end, replaced=0, back=True)
            done = _let_be_read(db, event, by=by)
        took_ms = _ms_since(began_ns)
        settle(db)
    cut(ledger)
    file.forget_kept()
    return replace(done, left=kept - done.tasks - done.accounts, took_ms=took_ms)


@contextmanager
def _staging(db: sqlite3.Connection) -> Iterator[None]:
    """Throw away what was staged if it does not come to an end: by Ctrl-C, or on a full disk, which has room again."""
    try:
        yield
    except BaseException:
        with suppress(*TROUBLE):
            settle(db)
        raise


class _Fresh:
    """What a replay has made, on its way into the ledger's file."""

    def __init__(self, db: sqlite3.Connection, file: ReplayFile, projections: Sequence[Projection]) -> None:
        self._db, self._file = db, file
        with snapshot(db):
            catch_up(db, file)
            found = compared(db, file)
        self._has_tasks = Projection.TASKS in projections
        self._has_accounts = Projection.ACCOUNTS in projections and not found.unreadable_tasks
        self._accounts = found.accounts if self._has_accounts else ()
        self.differs = bool(self._accounts) or (self._has_tasks and found.differing_tasks > 0)

    def stage(self) -> None:
        """Keep what is to be replaced, stage what replaces it, and follow the writers until little is left."""
        self._file.keep(self._accounts, tasks=self._has_tasks)
        stage(self._db)
        if self._has_tasks:
            for page in self._file.differing():
                in_slices(self._db, page, lambda one: self._stage_task(*one))
        in_slices(self._db, self._accounts, lambda one: put_account(self._db, one.account, one.fresh))
        for _ in range(ROUNDS_MAX):
            with snapshot(self._db):
                moved = catch_up(self._db, self._file)
            differing = self._compared_again(moved)
            in_slices(self._db, moved.tasks if self._has_tasks else (), self._stage_task_again)
            in_slices(self._db, differing.items(), lambda one: self._stage_account_again(*one))
            if moved.events <= FEW_EVENTS:
                return

    def switched(self, event: ProjectionSwitched, *, by: str) -> Switched:
        """Let it be what is live, as of the log's end."""
        with transaction(self._db):
            began_ns = time.perf_counter_ns()
            moved = catch_up(self._db, self._file)
            differing = self._compared_again(moved)
            for task in moved.tasks if self._has_tasks else ():
                self._stage_task_again(task)
            for account, one in differing.items():
                self._stage_account_again(account, one)
            if not self._has_accounts:
                forget_accounts(self._db)
            end, _ = self._db.execute(HEAD).fetchone()
            done = _let_be_read(self._db, replace(event, position=end), by=by)
        return replace(done, took_ms=_ms_since(began_ns))

    def _compared_again(self, moved: CaughtUp) -> dict[str, AccountDifference | None]:
        """The accounts that have moved, compared again; and they are kept as they differ now, with the tasks."""
        if moved.unreadable:
            self._has_accounts = False  # as if one had been found before
        names = moved.accounts if self._has_accounts else ()
        differing = {name: compared_account(self._db, self._file, name) for name in names}
        self._file.keep_again(differing, tasks=moved.tasks if self._has_tasks else ())
        return differing

    def _stage_task(self, task: bytes, row: bytes) -> None:
        """Opened in the transaction that stages it: of a task that is deleted by then nothing opens."""
        fresh, is_good = opened_fresh(task, row, key_of(self._db, task))
        if is_good:
            put_task(self._db, task, fresh)

    def _stage_task_again(self, task: bytes) -> None:
        forget_task(self._db, task)
        row = self._file.difference(task)
        if row is not None:
            self._stage_task(task, row)

    def _stage_account_again(self, account: str, one: AccountDifference | None) -> None:
        forget_account(self._db, account)
        if one is not None:
            put_account(self._db, account, one.fresh)


_NOTHING = Switched(tasks=0, accounts=0, left=0, position=None, took_ms=0)


def _stage_kept(db: sqlite3.Connection, file: ReplayFile) -> int:
    """Stage what was replaced by rows that still stand; how many rows were replaced altogether."""
    kept = 0
    for page in file.kept():
        found = [opened(task, row, key_of(db, task)) for task, row in page]
        in_slices(db, [one for one in found if not one.is_erased], lambda one: _stage_task_back(db, one))
        kept += len(found)
    accounts = file.kept_accounts()
    in_slices(db, accounts, lambda one: _stage_account_back(db, one))
    return kept + len(accounts)


def _stage_task_back(db: sqlite3.Connection, one: Difference) -> None:
    if db.execute(ROW, (one.task,)).fetchone() == one.fresh:
        put_task(db, one.task, one.live)


def _stage_account_back(db: sqlite3.Connection, one: AccountDifference) -> None:
    row = db.execute(ACCOUNT, (one.account,)).fetchone()
    if (None if row is None else read_account(row)) == one.fresh:
        put_account(db, one.account, one.live)


def _let_be_read(db: sqlite3.Connection, event: ProjectionSwitched, *, by: str) -> Switched:
    """Put on record of which projections rows are replaced, and let those that are staged be read."""
    tasks, accounts = counted(db)
    position = None
    for projection, replaced in ((Projection.TASKS, tasks), (Projection.ACCOUNTS, accounts)):
        if replaced:
            position = record(db, replace(event, projection=projection, replaced=replaced), by=by)
    if position is not None:
        let_be_read(db)
    return replace(_NOTHING, tasks=tasks, accounts=accounts, position=position)


def _ms_since(began_ns: int) -> int:
    return (time.perf_counter_ns() - began_ns) // 1_000_000
