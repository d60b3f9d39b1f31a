"""The switch: live rows replaced by those that a replay has made, in one transaction; and back.

What is replaced is kept in the replay's file, and was kept before it was replaced. Going back puts it there again where
the row is still the one that the switch put: a task that has moved on since was moved on from that one, and keeps it.
"""

import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec.structs import replace

from ledger.events import ProjectionSwitched
from ledger.sqlite_rows import read_account
from ledger.sqlite_switch import cut, drop_tasks, put_account, put_tasks, record, switching
from projections.replay import catch_up, compared
from projections.replay_file import ReplayFile, opened, opened_fresh
from projections.replay_ranges import key_of
from projections.replay_sql import ACCOUNT, HEAD, ROW
from projections.task_pages import Row

TASKS, ACCOUNTS = "tasks", "accounts"


class Switched(msgspec.Struct, frozen=True, kw_only=True):
    """What a switch did, and where in the log it stands; None: it had nothing to do."""

    tasks: int
    accounts: int
    left: int
    """Rows that stay as they are: their events give no task, or, going back, they have moved on since."""
    position: int | None
    took_ms: int
    """How long writers were kept waiting."""


def switch(ledger: Path, file: ReplayFile, projections: Sequence[str], *, by: str, at_us: int) -> Switched:
    """Catch up to the log's end, and put what differs in its place."""
    is_kept = TASKS in projections and file.count("differences") > 0
    if is_kept:
        file.keep_tasks()  # before anybody is kept waiting
    with switching(ledger) as db:
        began = time.perf_counter_ns()
        moved = catch_up(db, file).tasks
        found = compared(db, file)
        accounts = found.accounts if ACCOUNTS in projections else ()
        has_tasks = TASKS in projections and found.differing_tasks > 0
        if (accounts or has_tasks) and not is_kept:
            file.forget_kept()
        if accounts or has_tasks:
            file.keep(accounts, moved=moved if has_tasks else ())
        replaced, left = _replace(db, file) if has_tasks else (0, 0)
        for one in accounts:
            put_account(db, one.account, one.fresh)
        event = ProjectionSwitched(at_us=at_us, projection="", position=found.position, replaced=0)
        position = _record(db, event, tasks=replaced, accounts=len(accounts), by=by)
    took_ms = _ms_since(began)
    cut(ledger)
    file.end()
    return Switched(tasks=replaced, accounts=len(accounts), left=left, position=position, took_ms=took_ms)


def switch_back(ledger: Path, file: ReplayFile, *, by: str, at_us: int) -> Switched:
    """Put back what the last switch replaced."""
    tasks = accounts = left = 0
    with switching(ledger) as db:
        began = time.perf_counter_ns()
        for page in file.kept():
            kept = [opened(task, row, key_of(db, task)) for task, row in page]
            back = [one for one in kept if not one.is_erased and db.execute(ROW, (one.task,)).fetchone() == one.fresh]
            _put(db, [(one.task, one.live) for one in back])
            tasks, left = tasks + len(back), left + len(kept) - len(back)
        for account in file.kept_accounts():
            row = db.execute(ACCOUNT, (account.account,)).fetchone()
            if (None if row is None else read_account(row)) == account.fresh:
                put_account(db, account.account, account.live)
                accounts += 1
            else:
                left += 1
        end, _ = db.execute(HEAD).fetchone()
        event = ProjectionSwitched(at_us=at_us, projection="", position=end, replaced=0, back=True)
        position = _record(db, event, tasks=tasks, accounts=accounts, by=by)
    took_ms = _ms_since(began)
    cut(ledger)
    file.forget_kept()
    return Switched(tasks=tasks, accounts=accounts, left=left, position=position, took_ms=took_ms)


def _replace(db: sqlite3.Connection, file: ReplayFile) -> tuple[int, int]:
    """Put the fresh rows in the place of those that differ; how many, and how many there are no fresh ones of."""
    replaced = left = 0
    for page in file.differing():
        found = [(task, *opened_fresh(task, row, key_of(db, task))) for task, row in page]
        good = [(task, fresh) for task, fresh, is_good in found if is_good]
        _put(db, good)
        replaced, left = replaced + len(good), left + len(found) - len(good)
    return replaced, left


def _put(db: sqlite3.Connection, rows: Sequence[tuple[bytes, Row | None]]) -> None:
    put_tasks(db, [row for _, row in rows if row is not None])
    drop_tasks(db, [task for task, row in rows if row is None])


def _record(db: sqlite3.Connection, event: ProjectionSwitched, *, tasks: int, accounts: int, by: str) -> int | None:
    """Put on record of which projections rows were replaced; where that stands, None: of none."""
    position = None
    for projection, replaced in ((TASKS, tasks), (ACCOUNTS, accounts)):
        if replaced:
            position = record(db, replace(event, projection=projection, replaced=replaced), by=by)
    return position


def _ms_since(began_ns: int) -> int:
    return (time.perf_counter_ns() - began_ns) // 1_000_000
