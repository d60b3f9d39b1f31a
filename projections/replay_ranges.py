"""A part of a replay: the tasks between two ids, folded from their events and held against their live rows.

Read with Python's own driver, in a process of its own where there are several, page by page, each page in a snapshot of
its own: so a row and the events that it follows from are of one moment, no reader holds an old state for long, and
memory is a page. Tasks are read in the order of their ids, which is that of their creation, and nearly that in which
their events lie: so a task's history is all at hand, where in the order of positions each task that is under way would
have to be kept.

What an account comes to is added up at one position for all parts, so that the parts can be read while others write.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import msgspec

from ledger.credit import Credit, evolve_credit, expected_of, moves
from ledger.engine import ERASES
from ledger.events import CreditGranted, CreditLimited, CreditRevoked, TaskEvent, decode
from ledger.ids import TaskId
from ledger.records import SUM_MAX_MICROS, AccountRow
from ledger.seals import Opener
from ledger.sqlite_rows import task_values
from ledger.task import LIVE, Task, fold
from ledger.views import row_of
from projections.audit_findings import brief, is_task_stream
from projections.refold import AT, FACTS, PAYLOAD, POSITION, TASK, TYPE, VERSION, HotRow, refold, row_values
from projections.replay_sql import CREDIT, HISTORIES, HISTORY, KEY, KEYS, PAGE_TASKS, ROW, ROWS

Row: TypeAlias = tuple[Any, ...]
"""A task's row, in the order of the table's columns."""
FIRST, LAST = b"", b"\xff" * 16
"""Before every task's id, and after."""


class Part(NamedTuple):
    """The tasks after one id and up to another."""

    after: bytes
    upto: bytes


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A task whose live row is not what its events give. None: there is no row, or there should be none."""

    task: bytes
    live: Row | None
    fresh: Row | None
    problem: str | None = None
    """Why the events give nothing that could be compared."""
    key: bytes | None = None
    """What its content opens with."""
    is_erased: bool = False
    """Its task has been deleted: whatever content its row has is not to be kept anywhere."""


class AccountDifference(msgspec.Struct, frozen=True, kw_only=True):
    """An account whose live row is not what the log gives. None: there is no row, or there should be none."""

    account: str
    live: AccountRow | None
    fresh: AccountRow | None


class Sums(msgspec.Struct):
    """What one account's tasks come to, and its own terms, at a position; *position*: of what moved it last."""

    position: int = 0
    version: int = 0
    limit_micros: int | None = None
    granted_micros: int | None = None
    held_micros: int = 0
    charged_micros: int = 0
    refunded_micros: int = 0
    expected_micros: int = 0
    live_tasks: int = 0

    def add(self, task: Task, *, sign: int = 1) -> None:
        self.held_micros += sign * task.held_micros
        self.charged_micros += sign * task.charged_micros
        self.refunded_micros += sign * task.refunded_micros
        self.expected_micros += sign * expected_of(task)
        self.live_tasks += sign * (task.status in LIVE)

    def merge(self, other: "Sums") -> None:
        """Add what another part of the log has of the same account."""
        self.position = max(self.position, other.position)
        self.held_micros += other.held_micros
        self.charged_micros += other.charged_micros
        self.refunded_micros += other.refunded_micros
        self.expected_micros += other.expected_micros
        self.live_tasks += other.live_tasks
        if other.version > self.version:
            self.set_terms(other.version, other.limit_micros, other.granted_micros)

    def set_terms(self, version: int, limit_micros: int | None, granted_micros: int | None) -> None:
        self.version, self.limit_micros, self.granted_micros = version, limit_micros, granted_micros

    def row(self, account: str) -> AccountRow:
        """The account's row; a sum is kept at what every engine holds."""
        return AccountRow(
            account=account,
            position=self.position,
            version=self.version,
            limit_micros=self.limit_micros,
            granted_micros=self.granted_micros,
            held_micros=min(self.held_micros, SUM_MAX_MICROS),
            charged_micros=min(self.charged_micros, SUM_MAX_MICROS),
            refunded_micros=min(self.refunded_micros, SUM_MAX_MICROS),
            expected_micros=min(self.expected_micros, SUM_MAX_MICROS),
            live_tasks=self.live_tasks,
        )


class Found(msgspec.Struct):
    """What a part came to."""

    tasks: int = 0
    events: int = 0
    """Of tasks."""
    differences: list[Difference] = []
    sums: dict[str, Sums] = {}

    def sums_of(self, account: str) -> Sums:
        found = self.sums.get(account)
        if found is None:
            found = self.sums[account] = Sums()
        return found


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that only reads."""
    uri = f"{path.absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, timeout=5, isolation_level=None)) as db:
        yield db


@contextmanager
def snapshot(db: sqlite3.Connection) -> Iterator[None]:
    """All that is read inside is of one moment."""
    db.execute("BEGIN")
    try:
        yield
    finally:
        db.execute("ROLLBACK")


class Until(NamedTuple):
    """As of when accounts are added up: events up to *position* that had happened by *at_us*."""

    position: int
    at_us: int = SUM_MAX_MICROS

    def counts(self, row: HotRow) -> bool:
        return row[POSITION] <= self.position and row[AT] <= self.at_us


def replay_part(path: Path, part: Part, until: Until) -> Found:
    """Fold the part, compare its rows, and add up its accounts as of *until*."""
    found = Found()
    with reading(path) as db:
        after: bytes | None = part.after
        while after is not None:
            after = _page(db, Part(after, part.upto), until, found)
    return found


def compare_task(db: sqlite3.Connection, task: bytes) -> Difference | None:
    """Compare one task's row as it is now with its events; None: they agree."""
    live = db.execute(ROW, (task,)).fetchone()
    return compare(task, db.execute(HISTORY, (task,)).fetchall(), live, key_of(db, task))


def _page(db: sqlite3.Connection, part: Part, until: Until, found: Found) -> bytes | None:
    """Replay the part's next tasks; where to go on, None at its end."""
    with snapshot(db):
        rows = db.execute(ROWS, part).fetchall()
        is_last = len(rows) < PAGE_TASKS
        last = part.upto if is_last else rows[-1][0]
        bounds = (part.after, last)
        live = {row[0]: row for row in rows}
        keys = dict(db.execute(KEYS, bounds))
        for stream, events in groupby(db.execute(HISTORIES, bounds), key=_stream):
            history = list(events)
            if is_task_stream(stream):
                found.tasks += 1
                found.events += len(history)
                _task(found, history, live.pop(stream, None), keys.get(stream), until)
            else:
                _terms(db, found, stream, history, until)
    found.differences += [Difference(task=task, live=row, fresh=None, key=keys.get(task)) for task, row in live.items()]
    return None if is_last else last


def _stream(row: HotRow) -> bytes:
    return row[TASK]


def key_of(db: sqlite3.Connection, task: bytes) -> bytes | None:
    found = db.execute(KEY, (task,)).fetchone()
    return None if found is None else found[0]


def _task(found: Found, history: Sequence[HotRow], live: Row | None, key: bytes | None, until: Until) -> None:
    stream = history[0][TASK]
    position = history[-1][POSITION]
    try:
        task = refold(stream, history, key)
        fresh: Row | None = row_values(task, position)
    except Exception:  # noqa: BLE001 - whatever it is, the fold that decides will name it
        fresh = None
    if fresh is None or fresh != live:
        difference = compare(stream, history, live, key)
        if difference is not None:
            found.differences.append(difference)
            if difference.problem is not None:
                return
        task = folded(stream, history, key)
    if position > until.position or until.at_us != SUM_MAX_MICROS:
        history = [row for row in history if until.counts(row)]
        if not history:
            return
        task = folded(stream, history, key)
    moved_at = moved_last(history)
    if moved_at:
        sums = found.sums_of(task.account)
        sums.add(task)
        sums.position = max(sums.position, moved_at)


def moved_last(history: Sequence[HotRow]) -> int:
    """Where in the log the task last moved its account; 0: never."""
    return next((row[POSITION] for row in reversed(history) if moves(row[TYPE])), 0)


def compare(stream: bytes, history: Sequence[HotRow], live: Row | None, key: bytes | None) -> Difference | None:
    """How the row differs from what `ledger.task.fold` makes of the events."""
    problem, fresh = None, None
    try:
        if history:
            fresh = task_values(row_of(folded(stream, history, key)), history[-1][POSITION])
    except Exception as error:  # noqa: BLE001 - whatever damage makes a decoder or a fold raise
        problem = brief(error)
    if problem is None and fresh == live:
        return None
    is_erased = any(row[TYPE] == ERASES for row in history)
    return Difference(task=stream, live=live, fresh=fresh, problem=problem, key=key, is_erased=is_erased)


def folded(stream: bytes, history: Sequence[HotRow], key: bytes | None) -> Task:
    """The task of these events by the fold that decides."""
    opener = None if key is None else Opener(key, stream)
    events: list[TaskEvent] = []
    for row in history:
        sealed = row[PAYLOAD]
        payload = None if sealed is None or opener is None else opener.opened(sealed, row[VERSION])
        events.append(decode(row[FACTS].encode(), payload))  # type: ignore[arg-type]  # its stream holds no others
    return fold(events, TaskId(stream))


def _terms(db: sqlite3.Connection, found: Found, stream: bytes, history: Sequence[HotRow], until: Until) -> None:
    """Take in the limit and the grants of an account, if this is its stream."""
    if any(row[TYPE].startswith("credit-") for row in history):
        put_terms(db, found, stream, until)


def put_terms(db: sqlite3.Connection, found: Found, stream: bytes, until: Until) -> None:
    """Set what an account was given by its own stream."""
    credit, position, name = Credit(), 0, None
    for account, version, at, facts in db.execute(CREDIT, (stream, *until)):
        event = decode(facts.encode(), None)
        assert isinstance(event, CreditLimited | CreditGranted | CreditRevoked), "asked for by their types"
        evolve_credit(credit, event)
        credit.version, position, name = version, at, account
    if name is not None:
        sums = found.sums_of(name)
        sums.set_terms(credit.version, credit.limit_micros, credit.granted_micros)
        sums.position = max(sums.position, position)
