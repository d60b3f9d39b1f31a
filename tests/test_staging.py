"""A switch of rows in a SQLite file, state by state: what is read in each, what a writer does to it, what is left."""

import asyncio
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TypeAlias

import pytest
from msgspec.structs import replace

from ledger import sqlite_staging
from ledger.ids import TaskId
from ledger.records import AccountRow, TaskFilter
from ledger.sqlite import open_to_read, open_to_serve
from ledger.sqlite_copies import copy
from ledger.sqlite_damage import made
from ledger.sqlite_rows import read_account
from ledger.sqlite_sql import ACCOUNTS_BY_NAME, TASK_COLUMNS, TASKS_BY_ID, tasks_page
from ledger.sqlite_staging import (
    State,
    counted,
    in_slices,
    let_be_read,
    put_account,
    put_task,
    settle,
    stage,
    state_of,
    transaction,
)
from ledger.sqlite_switch import cut, writing
from ledger.task import Status
from projections.replay.replay_sql import ACCOUNT as ACCOUNT_ROW
from projections.replay.replay_sql import ROW
from tests import stored
from tests.builders import ACCOUNT, CREATED_US, cancel, create, delete, ident, start

LIVE, GONE, OTHER = ident(900), ident(901), ident(902)
"""A task whose row is replaced, a row without a task, which is to go, and a task whose row stays."""
MODEL = TASK_COLUMNS.index("model")
Reach: TypeAlias = Callable[[sqlite3.Connection], None]
LiveRows: TypeAlias = tuple[dict[TaskId, str], int]
"""The models of tasks, and what the account was charged."""
SECRET = "a lighthouse nobody has seen"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("original") / "ledger.db"
    asyncio.run(make(path))
    return path


async def make(path: Path) -> None:
    async with stored.serving(path) as ledger:
        for task in (LIVE, OTHER):
            await ledger.handle(create(task, input={"prompt": SECRET}))
    with closing(sqlite3.connect(path)) as db:
        row = db.execute(ROW, (LIVE,)).fetchone()
        db.execute(f"INSERT INTO tasks VALUES ({', '.join('?' * len(row))})", (GONE, *row[1:-1], b"{}"))  # noqa: S608 - marks
        db.commit()


@pytest.fixture
def path(original: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "ledger.db"
    copy.write_bytes(original.read_bytes())
    return copy


@pytest.fixture
def db(path: Path) -> Iterator[sqlite3.Connection]:
    with writing(path) as db:
        yield db


def staged(db: sqlite3.Connection) -> None:
    """One task with another model, one that goes, and an account with another sum."""
    stage(db)
    row = list(db.execute(ROW, (LIVE,)).fetchone())
    row[MODEL] = "another"
    account = read_account(db.execute(ACCOUNT_ROW, (ACCOUNT,)).fetchone())
    with transaction(db):
        put_task(db, LIVE, row)
        put_task(db, GONE, None)
        put_account(db, ACCOUNT, changed(account))


def changed(account: AccountRow) -> AccountRow:
    return replace(account, charged_micros=account.charged_micros + 7)


def switched(db: sqlite3.Connection) -> None:
    staged(db)
    with transaction(db):
        let_be_read(db)


def settled(db: sqlite3.Connection) -> None:
    switched(db)
    settle(db)


def thrown_away(db: sqlite3.Connection) -> None:
    staged(db)
    settle(db)


BEFORE: LiveRows = ({LIVE: "seedance-2.0", GONE: "seedance-2.0", OTHER: "seedance-2.0"}, 0)
AFTER: LiveRows = ({LIVE: "another", OTHER: "seedance-2.0"}, 7)
STATES: list[tuple[Reach, State, LiveRows]] = [
    (staged, State.STAGED, BEFORE),
    (switched, State.SWITCHED, AFTER),
    (settled, State.AT_REST, AFTER),
    (thrown_away, State.AT_REST, BEFORE),
]


def read(path: Path) -> LiveRows:
    with closing(sqlite3.connect(path)) as db:
        models = dict(db.execute("SELECT task, model FROM task_rows").fetchall())
        ((charged,),) = db.execute("SELECT charged_micros FROM account_rows WHERE account = ?", (ACCOUNT,))
    return models, charged


@pytest.mark.parametrize(("reach", "state", "live"), STATES)
def test_what_is_staged_is_read_from_the_switch_on_and_not_before(
    path: Path, db: sqlite3.Connection, reach: Reach, state: State, live: LiveRows
) -> None:
    reach(db)
    assert state_of(db) is state
    assert read(path) == live


@pytest.mark.parametrize(("reach", "state", "live"), STATES)
async def test_a_reader_that_was_there_before_reads_what_is_live(
    path: Path, db: sqlite3.Connection, reach: Reach, state: State, live: LiveRows
) -> None:
    """Its statements are compiled already."""
    del state
    engine = await open_to_read(path)
    try:
        for is_first, (models, charged) in ((True, BEFORE), (False, live)):
            by_key = {task: one.row.model for task, one in (await engine.tasks([LIVE, GONE, OTHER])).items()}
            newest_first = [one.row.task_id for one in await engine.page(TaskFilter(limit=10))]
            of_account = await engine.page(TaskFilter(account=ACCOUNT, oldest_first=True, limit=10))
            assert by_key == models
            assert newest_first == sorted(models, reverse=True)
            assert [one.row.model for one in of_account] == [models[task] for task in sorted(models)]
            assert [row.charged_micros for row in (await engine.accounts([ACCOUNT])).values()] == [charged]
            if is_first:
                reach(db)
    finally:
        await engine.close()


@pytest.mark.parametrize(("reach", "state", "live"), STATES)
async def test_the_file_is_sound_in_every_state_and_a_copy_of_it_reads_the_same(  # noqa: PLR0917 - fixtures
    path: Path,
    tmp_path: Path,
    db: sqlite3.Connection,
    reach: Reach,
    state: State,
    live: LiveRows,
) -> None:
    reach(db)
    target = tmp_path / "copy.db"
    target.touch()
    copy(path, target, at_rest=False, progress=lambda _done, _total: None)
    assert read(target) == live
    for one in (path, target):
        engine = await open_to_read(one)
        try:
            assert await engine.damage() == []
        finally:
            await engine.close()
    engine = await open_to_serve(target)
    await engine.close()
    with writing(target) as other:
        assert state_of(other) is state
        settle(other)
    assert read(target) == live


@pytest.mark.parametrize(("reach", "state", "live"), STATES)
def test_once_settled_the_schema_is_as_if_nothing_had_been(
    path: Path, db: sqlite3.Connection, reach: Reach, state: State, live: LiveRows
) -> None:
    del state
    before = {name for _, name in made()}
    reach(db)
    settle(db)
    settle(db)
    assert {name for (name,) in db.execute("SELECT name FROM sqlite_schema")} == before
    assert read(path) == live


async def test_a_strange_object_is_found_beside_what_a_switch_makes(path: Path, db: sqlite3.Connection) -> None:
    switched(db)
    db.execute("CREATE TABLE mine (a)")
    engine = await open_to_read(path)
    try:
        assert await engine.damage() == ["the schema has table mine, which this program does not make"]
    finally:
        await engine.close()


WRITTEN_ON = [(staged, "seedance-2.0", 0), (switched, "another", 7)]


@pytest.mark.parametrize(("reach", "model", "charged"), WRITTEN_ON)
async def test_whoever_writes_an_event_writes_on_top_of_what_is_live(
    path: Path, db: sqlite3.Connection, reach: Reach, model: str, charged: int
) -> None:
    reach(db)
    async with stored.serving(path) as ledger:
        outcome = await ledger.handle(start(LIVE))
        assert outcome.task.status is Status.RUNNING
    task, account = db.execute(ROW, (LIVE,)).fetchone(), read(path)[1]
    assert (task[TASK_COLUMNS.index("status")], account) == ("running", charged)
    tables = dict(db.execute("SELECT task, model FROM tasks").fetchall())
    assert tables[LIVE] == model if reach is switched else "seedance-2.0"
    assert counted(db) == (1, 0), "only what nobody touched is still staged"
    settle(db)
    assert read(path)[1] == charged


@pytest.mark.parametrize("reach", [staged, switched])
async def test_an_account_whose_terms_are_replaced_admits_by_those_that_are_live(
    path: Path, db: sqlite3.Connection, reach: Reach
) -> None:
    async with stored.serving(path) as ledger:
        await ledger.accounts.set_limit(ACCOUNT, 10**9, by="test", at_us=CREATED_US)
        row = read_account(db.execute(ACCOUNT_ROW, (ACCOUNT,)).fetchone())
        stage(db)
        with transaction(db):
            put_account(db, ACCOUNT, replace(row, version=row.version + 5))
            if reach is switched:
                let_be_read(db)
        await ledger.handle(create(ident(903)))
    after = read_account(db.execute(ACCOUNT_ROW, (ACCOUNT,)).fetchone())
    assert after.version == row.version + (5 if reach is switched else 0)
    assert after.live_tasks == row.live_tasks + 1


def holds(path: Path, text: str) -> bool:
    return text.encode() in path.read_bytes()


@pytest.mark.parametrize("reach", [staged, switched])
async def test_a_deletion_erases_what_is_staged_of_the_task_too(
    path: Path, db: sqlite3.Connection, reach: Reach
) -> None:
    reach(db)
    assert holds(path, SECRET)
    async with stored.serving(path) as ledger:
        for task in (LIVE, OTHER):
            await ledger.handle(cancel(task))
            await ledger.handle(delete(task))
    settle(db)
    cut(path)
    assert not holds(path, SECRET)


def test_what_cannot_be_live_cannot_be_staged(db: sqlite3.Connection) -> None:
    stage(db)
    row = list(db.execute(ROW, (LIVE,)).fetchone())
    row[TASK_COLUMNS.index("held_micros")] = -1
    with pytest.raises(sqlite3.IntegrityError, match="CHECK"), transaction(db):
        put_task(db, LIVE, row)


STATEMENTS = {
    "tasks by id": TASKS_BY_ID[1],
    "a page by status": tasks_page(["status = ?"], oldest_first=False),
    "a page by account": tasks_page(["account = ?", "task < ?"], oldest_first=False),
    "an account": ACCOUNTS_BY_NAME[1],
}


@pytest.mark.parametrize("statement", STATEMENTS.values(), ids=STATEMENTS.keys())
def test_while_it_is_switched_no_table_is_read_from_end_to_end(db: sqlite3.Connection, statement: str) -> None:
    switched(db)
    plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {statement}", [None] * statement.count("?"))]
    assert any("fresh_" in step for step in plan)
    assert [step for step in plan if re.match(r"SCAN (fresh_)?(tasks|accounts)\b", step)] == []


def test_slices_do_each_once_and_give_way_between(db: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []
    ends: list[int] = []
    db.set_trace_callback(lambda told: ends.append(len(done)) if told == "COMMIT" else None)
    in_slices(db, range(5), done.append)
    assert (done, ends) == ([0, 1, 2, 3, 4], [5])
    monkeypatch.setattr(sqlite_staging, "SLICE_NS", -1)
    done.clear()
    ends.clear()
    in_slices(db, range(5), done.append)
    assert (done, ends) == ([0, 1, 2, 3, 4], [1, 2, 3, 4, 5])


def test_a_slice_that_fails_leaves_those_before_it(db: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_staging, "SLICE_NS", -1)
    stage(db)
    with pytest.raises(sqlite3.Error):
        in_slices(db, [(GONE, None), (LIVE, ())], lambda one: put_task(db, *one))
    assert counted(db) == (1, 0)
    assert not db.in_transaction
