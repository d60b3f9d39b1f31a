"""Rows on their way into a SQLite file that is served: staged, switched to, and moved, in slices beside the writers.

See `ledger.sqlite_switch` for why. What is done row by row is done in transactions of a few milliseconds, with rests
between them that are longer: so whoever writes finds the file free most of the time. A process may die anywhere: what
it had staged nobody reads, and what it had switched to is read through the views until the next one has moved it
(`settle`).
"""

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from itertools import chain
from typing import Any, TypeVar

from ledger.records import AccountRow
from ledger.sqlite_sql import ACCOUNT_COLUMNS
from ledger.sqlite_staged_sql import (
    COUNT_ACCOUNTS,
    COUNT_TASKS,
    FORGET_ACCOUNT,
    FORGET_ACCOUNTS,
    FORGET_TASK,
    LET_ACCOUNT_GO,
    LET_TASK_GO,
    MOVE_ACCOUNT,
    MOVE_TASK,
    PUT_ACCOUNT,
    PUT_TASK,
    SETTLE,
    SOME_ACCOUNTS,
    SOME_TASKS,
    STAGE,
    STATE,
    SWITCH,
    UNSTAGE,
)

SLICE_NS = 4_000_000
"""A transaction takes as many rows as it can in that time, and one at least."""
RESTS = 3
"""So many times as long as it took is the rest after it."""
NS = 1e-9
"""In seconds."""

T = TypeVar("T")


class State(IntEnum):
    """How far a switch has come; see `ledger.sqlite_staged_sql`."""

    AT_REST = 0
    STAGED = 1
    SWITCHED = 2


def state_of(db: sqlite3.Connection) -> State:
    return State(db.execute(STATE).fetchone()[0])


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """One in which nobody else writes; committed at the end, or nothing is written."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


def in_slices(db: sqlite3.Connection, items: Iterable[T], do: Callable[[T], None]) -> None:
    """Do it for each, in short transactions with rests between them."""
    left = iter(items)
    for first in left:
        with transaction(db):
            began_ns = time.perf_counter_ns()
            for one in chain([first], left):
                do(one)
                if time.perf_counter_ns() - began_ns > SLICE_NS:
                    break
        time.sleep((time.perf_counter_ns() - began_ns) * RESTS * NS)


# To stage


def stage(db: sqlite3.Connection) -> None:
    """From here on rows can be staged; the file was at rest."""
    with transaction(db):
        _all(db, STAGE)


def put_task(db: sqlite3.Connection, task: bytes, row: Sequence[Any] | None) -> None:
    """Stage this row of a task, in the order of the table's columns, in the place of any before; None: it has none."""
    forget_task(db, task)
    if row is None:
        db.execute(LET_TASK_GO, (task,))
    else:
        db.execute(PUT_TASK, row)


def put_account(db: sqlite3.Connection, account: str, row: AccountRow | None) -> None:
    """Stage this row of an account in the same way."""
    forget_account(db, account)
    if row is None:
        db.execute(LET_ACCOUNT_GO, (account,))
    else:
        db.execute(PUT_ACCOUNT, tuple(getattr(row, name) for name in ACCOUNT_COLUMNS))


def forget_task(db: sqlite3.Connection, task: bytes) -> None:
    _all(db, FORGET_TASK, task)


def forget_account(db: sqlite3.Connection, account: str) -> None:
    _all(db, FORGET_ACCOUNT, account)


def forget_accounts(db: sqlite3.Connection) -> None:
    _all(db, FORGET_ACCOUNTS)


def counted(db: sqlite3.Connection) -> tuple[int, int]:
    """How many tasks and accounts are staged."""
    return db.execute(COUNT_TASKS).fetchone()[0], db.execute(COUNT_ACCOUNTS).fetchone()[0]


# To switch


def let_be_read(db: sqlite3.Connection) -> None:
    """Let what is staged be what is live, once the transaction commits that this is part of."""
    _all(db, SWITCH)


def settle(db: sqlite3.Connection) -> None:
    """Bring the file to rest: what was switched to lies in the tables, what was only staged is thrown away."""
    match state_of(db):
        case State.STAGED:
            _empty(db, SOME_TASKS, FORGET_TASK)
            _empty(db, SOME_ACCOUNTS, FORGET_ACCOUNT)
            with transaction(db):
                _all(db, UNSTAGE)
        case State.SWITCHED:
            _empty(db, SOME_TASKS, MOVE_TASK)
            _empty(db, SOME_ACCOUNTS, MOVE_ACCOUNT)
            with transaction(db):
                _all(db, SETTLE)
        case State.AT_REST:
            return


def _empty(db: sqlite3.Connection, some: str, statements: Sequence[str]) -> None:
    """Deal with all that *some* selects, which what is done takes away."""
    while names := [name for (name,) in db.execute(some).fetchall()]:
        in_slices(db, names, lambda name: _all(db, statements, name))


def _all(db: sqlite3.Connection, statements: Sequence[str], *values: object) -> None:
    for one in statements:
        db.execute(one, values)
