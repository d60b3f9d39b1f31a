"""A log whose end was cut off, or that was written anew, with everything made to fit: only a checkpoint tells.

That is the limit of a ledger that is audited by itself, shown here; and what checkpoints are for.
"""

import asyncio
import sqlite3
from contextlib import closing
from itertools import groupby, pairwise
from pathlib import Path
from random import Random

import pytest

from ledger.chain import GENESIS, Place, link
from ledger.events import CreditEvent, TaskEvent
from ledger.ids import TaskId
from ledger.memory import MemoryEngine
from ledger.notes import Checkpoint
from ledger.records import AccountRow, Recorded
from ledger.sqlite_rows import read_event, task_values
from ledger.sqlite_sql import ACCOUNT_COLUMNS, EVENTS, TASK_COLUMNS
from ledger.streams import is_task_stream
from ledger.task import fold
from ledger.views import row_of
from projections.audit.accounts import AccountBooks
from projections.audit.audit import audit
from projections.audit.findings import Check, Findings, Report
from projections.audit.prove import NotThisLogError, tree_of
from tests import simulated, stored
from tests.builders import create, ident

TASKS, ACCOUNTS = 30, 5


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger with a past, without deletions: who cuts those off cannot make the keys anew that they destroyed."""
    path = tmp_path_factory.mktemp("original") / "ledger.db"

    async def make() -> None:
        async with stored.serving(path) as ledger:
            await simulated.world(ledger.engine, simulated.setting(tasks=TASKS, accounts=ACCOUNTS))

    asyncio.run(make())
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM events WHERE type = 'deleted'").fetchone() == (0,)
    return path


@pytest.fixture(scope="module")
def checkpoint(original: Path) -> Checkpoint:
    return asyncio.run(taken(original))


async def taken(path: Path) -> Checkpoint:
    async with stored.reading(path) as engine:
        return Checkpoint("example.com/ledger", await tree_of(engine))


async def audited(path: Path, *checkpoints: Checkpoint) -> Report:
    async with stored.reading(path) as engine:
        return await audit(engine, checkpoints=checkpoints)


# What a forger does who knows the program


def log_of(db: sqlite3.Connection) -> list[Recorded]:
    return [read_event(row) for row in db.execute(f"{EVENTS} ORDER BY position").fetchall()]


def cut(db: sqlite3.Connection, dropped: int) -> None:
    """Drop what was last appended to so many streams, and make all that is kept beside the log fit to what is left.

    What one commit wrote to a task goes whole: a half of it, as an outcome without its money, would be found.
    """
    log = log_of(db)
    ends = [row.position for row, after in pairwise(log) if row.stream != after.stream]
    log = log[: ends[-dropped]]
    db.execute("DELETE FROM events WHERE position > ?", (len(log),))
    _fit_tasks(db, log)
    db.execute(
        "UPDATE lanes SET position = ?, hash = ?, recorded_at = ?",
        (log[-1].position, log[-1].hash, log[-1].entry.recorded_at_us),
    )


def _fit_tasks(db: sqlite3.Connection, log: list[Recorded]) -> None:
    """Make tasks, their claims and keys, and accounts anew from the log."""
    for table in ("tasks", "accounts"):
        db.execute(f"DELETE FROM {table}")  # noqa: S608
    books = AccountBooks(Findings())
    rows = sorted((row for row in log if is_task_stream(row.stream)), key=lambda row: (row.stream, row.version))
    for stream, of_task in groupby(rows, key=lambda row: row.stream):
        history = list(of_task)
        events: list[TaskEvent] = [row.event for row in history]  # type: ignore[misc]
        task = fold(events, TaskId(stream))
        books.task(task, [row.position for row in history], events)
        _insert(db, "tasks", TASK_COLUMNS, task_values(row_of(task), history[-1].position))
    for row in log:
        event = row.event
        if isinstance(event, CreditEvent):
            books.credit(row, event)
    for account, sums in books._sums.items():
        _insert(db, "accounts", ACCOUNT_COLUMNS, account_values(sums.row(account)))
    db.execute("DELETE FROM seals WHERE task NOT IN (SELECT task FROM events WHERE payload IS NOT NULL)")
    db.execute(
        "DELETE FROM claims WHERE task NOT IN (SELECT task FROM tasks)"
        " OR version > (SELECT version FROM tasks WHERE tasks.task = claims.task)"
    )


def account_values(row: AccountRow) -> list[object]:
    return [getattr(row, name) for name in ACCOUNT_COLUMNS]


def _insert(db: sqlite3.Connection, table: str, columns: tuple[str, ...], values: object) -> None:
    sql = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"  # noqa: S608
    db.execute(sql, values)  # type: ignore[arg-type]


def write_anew(db: sqlite3.Connection, position: int) -> None:
    """Change who did something, and make the chain and the head fit from there on."""
    db.execute("UPDATE events SET actor = 'nobody' WHERE position = ?", (position,))
    previous = GENESIS
    for row in log_of(db):
        previous = link(previous, Place(row.lane, row.position, row.stream, row.version, row.account), row.entry)
        db.execute("UPDATE events SET hash = ? WHERE position = ?", (previous, row.position))
    db.execute("UPDATE lanes SET hash = ?", (previous,))


#


@pytest.mark.parametrize("dropped", [1, 2, 3, 7, 12, 16])
async def test_a_log_cut_to_fit_is_clean_by_itself_and_found_with_a_checkpoint(
    original: Path, checkpoint: Checkpoint, tmp_path: Path, dropped: int
) -> None:
    with stored.broken(original, tmp_path / "ledger.db") as db:
        cut(db, dropped)
    alone = await audited(tmp_path / "ledger.db")
    end = alone.position
    assert (alone.findings, end <= checkpoint.tree.size - dropped) == ((), True)
    with_it = await audited(tmp_path / "ledger.db", checkpoint)
    assert [(one.check, one.position) for one in with_it.findings] == [(Check.CHECKPOINT, end + 1)]
    assert (with_it.found, with_it.first_bad_position) == (1, end + 1)


async def test_a_log_that_was_cut_and_went_on_is_found_though_it_is_longer(
    original: Path, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    path = tmp_path / "ledger.db"
    with stored.broken(original, path) as db:
        cut(db, 3)
    async with stored.serving(path) as ledger:
        for number in range(900, 910):
            await ledger.handle(create(ident(number)))
    size = checkpoint.tree.size
    assert (await taken(path)).tree.size > size
    assert (await audited(path)).found == 0
    (finding,) = (await audited(path, checkpoint)).findings
    assert (finding.check, finding.position) == (Check.CHECKPOINT, size)
    assert finding.detail.startswith(f"not the log of the checkpoint of size {size}")


@pytest.mark.parametrize("seed", range(5))
async def test_a_log_written_anew_from_some_event_on_is_found_between_two_checkpoints(
    original: Path, checkpoint: Checkpoint, tmp_path: Path, seed: int
) -> None:
    size = checkpoint.tree.size
    engine = MemoryEngine()
    async with stored.reading(original) as reading:
        log = await reading.after(0, size)
    sizes = [0, size // 4, size // 2, size]
    known = []
    for end in sizes:
        engine._log, engine._head = log[:end], engine._head.__class__(lane=0, position=end, hash=bytes(32))
        known.append(Checkpoint(checkpoint.origin, await tree_of(engine)))
    position = Random(seed).randrange(1, size + 1)
    with stored.broken(original, tmp_path / "ledger.db") as db:
        write_anew(db, position)
    assert (await audited(tmp_path / "ledger.db")).found == 0
    report = await audited(tmp_path / "ledger.db", *known)
    before, after = max(end for end in sizes if end < position), [end for end in sizes if end >= position]
    assert [finding.position for finding in report.findings] == after
    assert report.first_bad_position == after[0]
    assert all(finding.detail.endswith(f"after {before}, and up to {end}") for finding, end in
               zip(report.findings, after, strict=True))  # fmt: skip


# What is no cut


async def test_a_log_extends_its_checkpoints_however_many(original: Path, checkpoint: Checkpoint) -> None:
    empty = Checkpoint(checkpoint.origin, await tree_of(MemoryEngine()))
    assert (await audited(original, checkpoint, empty, checkpoint)).findings == ()


async def test_where_an_event_is_missing_the_checkpoint_says_no_more_than_that(
    original: Path, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    with stored.broken(original, tmp_path / "ledger.db") as db:
        db.execute("DELETE FROM events WHERE position = 9")
    report = await audited(tmp_path / "ledger.db", checkpoint)
    told = [(one.position, one.detail) for one in report.findings if one.check is Check.CHECKPOINT]
    assert told == [(9, f"the checkpoint of size {checkpoint.tree.size} cannot be compared: position 9 is missing")]
    assert report.first_bad_position == 9


async def test_a_cut_log_is_not_signed_after_its_checkpoint(
    original: Path, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    with stored.broken(original, tmp_path / "ledger.db") as db:
        cut(db, 1)
    async with stored.reading(tmp_path / "ledger.db") as engine:
        with pytest.raises(NotThisLogError):
            await tree_of(engine, extends=checkpoint)
        assert (await tree_of(engine)).size < checkpoint.tree.size
