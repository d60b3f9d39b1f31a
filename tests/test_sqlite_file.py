"""The SQLite file: it guards its own log, knows what it is, and lets one process serve it."""

import asyncio
import os
import sqlite3
import sys
import threading
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path

import pytest
from msgspec.structs import replace

from ledger.errors import CannotOpenError, StorageError
from ledger.keyring import Keyring
from ledger.keys import Role
from ledger.ledger import Ledger
from ledger.records import Placed, Stale, TaskFilter
from ledger.sqlite import open_beside, open_to_read, open_to_serve
from ledger.sqlite_engine import SqliteEngine
from ledger.sqlite_file import connect
from ledger.sqlite_sql import APPLICATION_ID, SCHEMA_VERSION
from tests.builders import (
    SEAL_KEY,
    append,
    claim_row,
    ident,
    key_row,
    task_row,
    whole_log,
)
from tests.rules_dsl import ACCOUNT, CREATED_US

ROOT = Path(__file__).parent.parent

Opener = Callable[[Path], Awaitable[SqliteEngine]]
TO_WRITE: list[Opener] = [open_to_serve, open_beside]
ALL_WAYS: list[Opener] = [open_to_serve, open_beside, open_to_read]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@asynccontextmanager
async def opened(how: Opener, path: Path) -> AsyncIterator[SqliteEngine]:
    engine = await how(path)
    try:
        yield engine
    finally:
        await engine.close()


@contextmanager
def by_hand(path: Path) -> Iterator[sqlite3.Connection]:
    """The file as any SQL shell opens it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


async def issue(engine: SqliteEngine) -> str:
    """The id of a new key of `ACCOUNT`."""
    issued = await Keyring(engine).issue(
        account=ACCOUNT, contract="chunkr", role=Role.CLIENT, by="cli", at_us=CREATED_US
    )
    return issued.key_id


# Append-only


def insert(*, verb: str = "INSERT", position: str = "4", task: int = 1, version: str = "3", **columns: str) -> str:
    """Insert an event; were it left at the defaults, the next one of task 1."""
    values = {name: name for name in ("lane", "type", "amount_micros")} | columns
    return f"""
{verb} INTO events (position, lane, task, version, type, recorded_at, effective_at, account, amount_micros, actor,
    request_id, data, payload, hash)
SELECT {position}, {values["lane"]}, x'{ident(task).hex()}', {version}, {values["type"]}, recorded_at, effective_at,
    account, {values["amount_micros"]}, actor, request_id, data, payload, hash FROM events WHERE position = 1"""  # noqa: S608


TAMPERING = [  # with a log of two events of task 1 and one of task 2
    "UPDATE events SET account = 'umbrella'",
    "UPDATE events SET amount_micros = 1 WHERE position = 2",
    "UPDATE events SET position = position + 1 WHERE position = 3",
    "UPDATE OR REPLACE events SET position = 1 WHERE position = 2",
    "UPDATE OR IGNORE events SET data = '{}'",
    "DELETE FROM events",
    "DELETE FROM events WHERE position = 3",
    insert(position="2"),
    insert(verb="INSERT OR REPLACE", position="2"),
    insert(verb="INSERT OR REPLACE", position="3", version="3"),
    insert(verb="REPLACE", position="1", version="1"),
    insert(version="2"),
    insert(verb="INSERT OR REPLACE", version="2"),
    insert(verb="INSERT OR REPLACE", version="1"),
    insert(position="5"),
    insert(position="0"),
    insert(position="-1"),
    insert(position="NULL"),
    insert(version="4"),
    insert(version="0"),
    insert(version="NULL"),
    insert(task=3, version="2"),
    insert(verb="INSERT OR IGNORE", position="5"),
    insert(position="2") + " ON CONFLICT (position) DO UPDATE SET account = 'umbrella'",
    insert(version="2") + " ON CONFLICT (task, version) DO UPDATE SET account = 'umbrella'",
    insert(lane="1"),
    insert(amount_micros="0"),
    insert(amount_micros="-1"),
]


def files(folder: Path) -> dict[str, bytes]:
    """What lies in *folder*, but for the locks."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".lock"}


@pytest.fixture
async def three_events(path: Path) -> Path:
    async with opened(open_to_serve, path) as engine:
        await engine.commit([append(1, events=2), append(2)])
    return path


@pytest.mark.parametrize("sql", TAMPERING)
async def test_the_database_itself_refuses_whatever_would_change_the_log(three_events: Path, sql: str) -> None:
    with by_hand(three_events) as connection:
        before = connection.execute("SELECT * FROM events ORDER BY position").fetchall()
        with pytest.raises(sqlite3.IntegrityError):
            connection.execute(sql)
        assert connection.execute("SELECT * FROM events ORDER BY position").fetchall() == before
    async with opened(open_to_read, three_events) as engine:
        assert len(await whole_log(engine)) == 3


@pytest.mark.parametrize("sql", [insert(), insert(verb="INSERT OR REPLACE"), insert(task=3, version="1")])
async def test_the_next_position_and_version_is_all_that_an_insert_may_have(three_events: Path, sql: str) -> None:
    with by_hand(three_events) as connection:
        assert connection.execute(sql).rowcount == 1


async def test_whoever_writes_a_deletion_takes_the_key_of_its_task_with_it(three_events: Path) -> None:
    with by_hand(three_events) as connection:
        for task in (1, 2):
            connection.execute("INSERT INTO seals VALUES (?, ?)", (ident(task), SEAL_KEY))
        connection.execute(insert(type="'started'"))
        assert connection.execute("SELECT count(*) FROM seals").fetchone() == (2,)
        connection.execute(insert(position="5", version="4", type="'deleted'"))
        assert connection.execute("SELECT task, key FROM seals").fetchall() == [(ident(2), SEAL_KEY)]


@pytest.mark.parametrize("row", [(ident(1), b""), (ident(1), SEAL_KEY[1:]), (b"task", SEAL_KEY), (ident(1), None)])
async def test_the_database_itself_refuses_what_is_no_key(three_events: Path, row: tuple[bytes, bytes | None]) -> None:
    with by_hand(three_events) as connection, pytest.raises(sqlite3.IntegrityError):
        connection.execute("INSERT INTO seals VALUES (?, ?)", row)


async def test_a_task_never_gets_a_second_key(path: Path) -> None:
    async with opened(open_to_serve, path) as engine:
        await engine.commit([replace(append(1), seal_key=SEAL_KEY)])
        with pytest.raises(StorageError):
            await engine.commit([replace(append(1, expected=1), seal_key=SEAL_KEY[::-1])])
        assert [row.seal_key for row in await whole_log(engine)] == [SEAL_KEY]


@pytest.mark.parametrize("table", ["seals", "events", "tasks", "claims", "keys"])
async def test_a_commit_that_fails_at_any_of_its_tables_writes_to_none(path: Path, table: str) -> None:
    async with opened(open_to_serve, path) as engine:
        await engine.commit([append(1)])
        with by_hand(path) as connection:
            connection.execute(f"CREATE TRIGGER no BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'no'); END")
        more = replace(append(2, claims=(claim_row("k"),), keys=(key_row("key"),)), seal_key=SEAL_KEY)
        with pytest.raises(StorageError):
            await engine.commit([append(1, expected=1), more])
        assert len(await whole_log(engine)) == 1
        assert await engine.page(TaskFilter()) == [Placed(row=task_row(1), position=1)]
        assert await engine.claims([(ACCOUNT, "create", "k")]) == {}
        assert await engine.keys(None) == []
        with by_hand(path) as connection:
            connection.execute("DROP TRIGGER no")
        assert await engine.commit([append(1, expected=1), more]) == [2, 3]
        assert len(await whole_log(engine)) == 3


STATEMENTS = ["BEGIN", "INSERT INTO appends", "COMMIT"]


@pytest.mark.parametrize("statement", STATEMENTS)
async def test_a_caller_who_leaves_at_any_statement_of_a_commit_leaves_no_half_of_it(
    path: Path, statement: str
) -> None:
    loop = asyncio.get_running_loop()
    async with opened(open_to_serve, path) as engine:
        assert engine._writer is not None
        whole = append(1, claims=(claim_row("k"),), keys=(key_row("key"),))
        committing = asyncio.create_task(engine.commit([whole]))

        def leave(sql: str) -> None:
            if sql.strip().startswith(statement):
                loop.call_soon_threadsafe(committing.cancel)

        await engine._writer.set_trace_callback(leave)
        with pytest.raises(asyncio.CancelledError):
            await committing
        await engine._writer.set_trace_callback(lambda _sql: None)
        await engine.commit([append(2)])
        assert len(await whole_log(engine)) == 2
        assert (await engine.tasks([ident(1)])).keys() == {ident(1)}
        assert len(await engine.claims([(ACCOUNT, "create", "k")])) == 1
        assert await engine.keys(None) == [key_row("key")]


async def test_closing_waits_for_a_commit_whose_caller_has_left(path: Path) -> None:
    async with opened(open_to_serve, path) as engine:
        committing = asyncio.create_task(engine.commit([append(1)]))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        committing.cancel()
    async with opened(open_to_read, path) as engine:
        assert len(await whole_log(engine)) == 1


# How it is written


@pytest.mark.parametrize("how", TO_WRITE)
async def test_a_commit_is_on_disk_before_it_returns(path: Path, how: Opener) -> None:
    for _ in ("a new file", "an old one"):
        async with opened(how, path) as engine:
            assert engine._writer is not None
            assert list(await engine._writer.execute_fetchall("PRAGMA synchronous")) == [(2,)]  # FULL
            assert list(await engine._writer.execute_fetchall("PRAGMA journal_mode")) == [("wal",)]


@pytest.mark.parametrize("how", TO_WRITE)
async def test_what_is_deleted_turns_to_zeros_and_no_page_lies_in_a_temporary_file(path: Path, how: Opener) -> None:
    for _ in ("a new file", "an old one"):
        async with opened(how, path) as engine:
            assert engine._writer is not None
            assert list(await engine._writer.execute_fetchall("PRAGMA secure_delete")) == [(1,)]  # and not FAST
            assert list(await engine._writer.execute_fetchall("PRAGMA temp_store")) == [(2,)]  # MEMORY


async def test_the_file_says_what_it_is(path: Path, tmp_path: Path) -> None:
    async with opened(open_to_serve, path):
        pass
    assert files(tmp_path)["ledger.db"][68:72] == b"TLDG"
    with by_hand(path) as connection:
        assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)


# What is no ledger


def text_file(path: Path) -> None:
    path.write_text("not a ledger\n" * 100)


def empty_file(path: Path) -> None:
    path.write_bytes(b"")


def short_text_file(path: Path) -> None:
    path.write_text("not a ledger\n")


def someone_elses_database(path: Path) -> None:
    with by_hand(path) as connection:
        connection.execute("CREATE TABLE events (position INTEGER PRIMARY KEY)")


def database_of_another_application(path: Path) -> None:
    with by_hand(path) as connection:
        connection.execute("PRAGMA application_id = 0x47504B47")


@pytest.mark.parametrize("how", ALL_WAYS)
@pytest.mark.parametrize(
    "foreign", [text_file, short_text_file, someone_elses_database, database_of_another_application]
)
async def test_a_foreign_file_is_not_opened_and_not_touched(
    tmp_path: Path, path: Path, foreign: Callable[[Path], None], how: Opener
) -> None:
    foreign(path)
    before = files(tmp_path)
    with pytest.raises(CannotOpenError, match=r"ledger\.db is not a ledger: "):
        await how(path)
    assert files(tmp_path) == before
    assert not path.with_name("ledger.db.lock").exists()


@pytest.mark.parametrize("how", ALL_WAYS)
async def test_a_folder_and_a_file_in_no_folder_are_told_as_that_and_nothing_is_made(
    tmp_path: Path, how: Opener
) -> None:
    with pytest.raises(CannotOpenError, match="is a folder: a ledger is one file"):
        await how(tmp_path)
    assert not tmp_path.with_name(f"{tmp_path.name}.lock").exists()
    with pytest.raises(CannotOpenError, match=r"there is no folder .*nowhere"):
        await how(tmp_path / "nowhere" / "ledger.db")


@pytest.mark.parametrize("how", ALL_WAYS)
async def test_a_newer_schema_is_not_opened(three_events: Path, how: Opener) -> None:
    with by_hand(three_events) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(CannotOpenError, match=f"has schema {SCHEMA_VERSION + 1}, .* use a newer task-ledger"):
        await how(three_events)


@pytest.mark.parametrize("how", ALL_WAYS)
async def test_an_older_schema_is_not_opened_and_what_to_do_is_said(
    tmp_path: Path, three_events: Path, how: Opener
) -> None:
    with by_hand(three_events) as connection:
        connection.execute("PRAGMA user_version = 1")
    before = files(tmp_path)["ledger.db"]
    with pytest.raises(CannotOpenError, match=r"has schema 1, whose contents are not sealed.*: begin a new ledger in"):
        await how(three_events)
    assert files(tmp_path)["ledger.db"] == before


@pytest.mark.parametrize("how", ALL_WAYS)
@pytest.mark.parametrize("name", ["log_id", "pepper"])
async def test_a_ledger_that_has_lost_its_name_or_pepper_is_not_opened(
    three_events: Path, how: Opener, name: str
) -> None:
    with by_hand(three_events) as connection:
        connection.execute("DELETE FROM meta WHERE name = ?", (name,))
    with pytest.raises(CannotOpenError, match="damaged"):
        await how(three_events)


@pytest.mark.parametrize("how", TO_WRITE)
async def test_an_empty_file_becomes_a_ledger(path: Path, how: Opener) -> None:
    empty_file(path)
    async with opened(how, path) as engine:
        assert await engine.commit([append(1)]) == [1]


async def test_a_missing_file_cannot_be_read_and_is_not_made(tmp_path: Path, path: Path) -> None:
    with pytest.raises(CannotOpenError, match=f"no ledger at {path}: .*task-ledger serve"):
        await open_to_read(path)
    assert files(tmp_path) == {}


@pytest.mark.parametrize("how", ALL_WAYS)
async def test_a_missing_folder_is_said_to_be_missing(tmp_path: Path, how: Opener) -> None:
    with pytest.raises(CannotOpenError, match=r"missing/ledger\.db"):
        await how(tmp_path / "missing" / "ledger.db")
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize("how", ALL_WAYS)
async def test_a_folder_is_no_ledger(tmp_path: Path, how: Opener) -> None:
    with pytest.raises(CannotOpenError, match=str(tmp_path)):
        await how(tmp_path)


# One process serves it

PROLOGUE = """
import asyncio, sys
from contextlib import asynccontextmanager
from pathlib import Path
from ledger.keyring import Keyring
from ledger.keys import Role
from ledger.sqlite import open_beside, open_to_read, open_to_serve

path, way, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
how = {"serve": open_to_serve, "beside": open_beside, "read": open_to_read}[way]


@asynccontextmanager
async def opened():
    engine = await how(path)
    try:
        yield engine
    finally:
        await engine.close()


async def issue(engine):
    await Keyring(engine).issue(account="acme", contract="chunkr", role=Role.CLIENT, by="cli", at_us=1)


async def main():
"""
EPILOGUE = """

asyncio.run(main())
"""

ISSUE = """
    async with opened() as engine:
        for _ in range(count):
            await issue(engine)
"""
ISSUE_AND_STAY = (
    ISSUE
    + """
        print("ready", flush=True)
        sys.stdin.readline()
"""
)
OPEN_TOGETHER_AND_ISSUE = """
    print("ready", flush=True)
    sys.stdin.readline()
    async with opened() as engine:
        await issue(engine)
        print(engine.log_id, flush=True)
"""


@asynccontextmanager
async def another_process(body: str, path: Path, way: str, *, count: int = 1) -> AsyncIterator[Process]:
    """A Python of its own that opens *path* in this *way*; what it prints is there to be read."""
    script = PROLOGUE + body + EPILOGUE
    args = (sys.executable, "-c", script, str(path), way, str(count))
    process = await asyncio.create_subprocess_exec(*args, cwd=ROOT, stdin=PIPE, stdout=PIPE)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def line(process: Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


async def test_a_file_that_is_served_is_not_served_twice_in_one_process(path: Path) -> None:
    async with opened(open_to_serve, path) as engine:
        with pytest.raises(CannotOpenError, match=rf"ledger\.db is served by another process \(pid {os.getpid()}\)"):
            await open_to_serve(path)
        assert await engine.commit([append(1)]) == [1]
    async with opened(open_to_serve, path) as engine:
        assert await engine.commit([append(1, expected=1)]) == [2]


async def test_a_file_that_another_process_serves_is_refused_until_that_process_is_dead(path: Path) -> None:
    async with another_process(ISSUE_AND_STAY, path, "serve", count=3) as other:
        assert await line(other) == "ready"
        for _ in range(2):
            with pytest.raises(CannotOpenError, match=rf"served by another process \(pid {other.pid}\): one writer"):
                await open_to_serve(path)
        other.kill()
        await other.wait()
        async with opened(open_to_serve, path) as engine:
            assert len(await whole_log(engine)) == 3
            assert len(await engine.keys(ACCOUNT)) == 3
            assert await engine.commit([append(1)]) == [4]


async def test_a_served_file_can_be_read_and_so_can_that_of_a_killed_process(path: Path) -> None:
    async with another_process(ISSUE_AND_STAY, path, "serve", count=2) as other:
        assert await line(other) == "ready"
        async with opened(open_to_read, path) as reader:
            assert len(await whole_log(reader)) == 2
        other.kill()
        await other.wait()
        async with opened(open_to_read, path) as reader:
            assert len(await whole_log(reader)) == 2


async def test_an_engine_closed_twice_lets_go_of_the_lock_once(path: Path) -> None:
    engine = await open_to_serve(path)
    await engine.close()
    async with opened(open_to_serve, path):
        await engine.close()
        with pytest.raises(CannotOpenError, match="served"):
            await open_to_serve(path)


async def test_a_refused_file_is_not_left_locked(path: Path) -> None:
    text_file(path)
    with pytest.raises(CannotOpenError, match="not a ledger"):
        await open_to_serve(path)
    empty_file(path)
    async with opened(open_to_serve, path) as engine:
        assert await engine.commit([append(1)]) == [1]


# Appending beside it


async def test_a_ledger_that_does_not_start_lets_go_of_its_file(three_events: Path) -> None:
    with by_hand(three_events) as database:
        database.execute("DELETE FROM lanes")
    for _ in range(2):
        with pytest.raises(StorageError, match="lost its lane"):
            await Ledger(await open_to_serve(three_events)).start()


async def test_one_who_appends_beside_does_not_disturb_the_serving_engine_nor_it_him(path: Path) -> None:
    async with opened(open_to_serve, path) as serving, opened(open_beside, path) as beside:
        assert (serving.log_id, serving.pepper) == (beside.log_id, beside.pepper)
        assert await serving.commit([append(1)]) == [1]
        first = await issue(beside)
        assert await serving.commit([append(1, expected=1), append(2)]) == [3, 4]
        second = await issue(beside)
        third = await issue(beside)
        assert await serving.commit([append(2, expected=1)]) == [7]
        assert [key.key_id for key in await serving.keys(ACCOUNT)] == sorted([first, second, third])
        assert len(await whole_log(serving)) == 7


async def test_one_who_appends_beside_may_be_first(path: Path) -> None:
    async with opened(open_beside, path) as beside:
        await issue(beside)
        async with opened(open_to_serve, path) as serving:
            await issue(beside)
            assert await serving.commit([append(1)]) == [3]
            await issue(beside)
            assert await serving.commit([append(1, expected=1)]) == [5]
        await issue(beside)
        assert len(await whole_log(beside)) == 6


async def test_what_was_decided_before_the_log_moved_on_is_still_checked_against_its_stream(path: Path) -> None:
    async with opened(open_to_serve, path) as serving, opened(open_beside, path) as beside:
        assert await serving.commit([append(1, events=2)]) == [2]
        await issue(beside)
        batch = [append(1, expected=1), append(2), append(3, expected=1)]
        assert await serving.commit(batch) == [Stale(2), 4, Stale(0)]
        assert len(await whole_log(serving)) == 4


async def test_another_process_appends_beside_while_the_serving_engine_commits(path: Path) -> None:
    async with opened(open_to_serve, path) as serving:
        async with another_process(ISSUE, path, "beside", count=20) as other:
            number = 0
            while other.returncode is None:
                number += 1
                (outcome,) = await serving.commit([append(number)])
                assert isinstance(outcome, int)
                await asyncio.sleep(0.002)  # SQLite hands its lock to whoever asks: let the other ask too
            assert other.returncode == 0
        assert await serving.commit([append(number + 1)]) == [number + 21]
        assert len(await whole_log(serving)) == number + 21
        assert len(await serving.keys(ACCOUNT)) == 20


async def test_two_processes_append_keys_to_one_account_and_none_is_lost(path: Path) -> None:
    async with (
        another_process(ISSUE, path, "beside", count=15) as one,
        another_process(ISSUE, path, "beside", count=15) as two,
    ):
        assert (await one.wait(), await two.wait()) == (0, 0)
    async with opened(open_to_read, path) as engine:
        assert len(await engine.keys(ACCOUNT)) == 30
        assert len(await whole_log(engine)) == 30


@pytest.mark.parametrize("ways", [("beside", "beside", "beside"), ("serve", "beside", "beside")])
async def test_processes_that_found_the_same_file_at_once_all_get_the_same_ledger(
    tmp_path: Path, ways: tuple[str, str, str]
) -> None:
    for attempt in range(3):
        path = tmp_path / f"{attempt}.db"
        async with (
            another_process(OPEN_TOGETHER_AND_ISSUE, path, ways[0]) as one,
            another_process(OPEN_TOGETHER_AND_ISSUE, path, ways[1]) as two,
            another_process(OPEN_TOGETHER_AND_ISSUE, path, ways[2]) as three,
        ):
            processes = (one, two, three)
            assert [await line(process) for process in processes] == ["ready"] * 3
            for process in processes:
                assert process.stdin is not None
                process.stdin.write(b"go\n")
            names = {await line(process) for process in processes}
        async with opened(open_to_read, path) as engine:
            assert names == {engine.log_id}
            assert len(await whole_log(engine)) == 3


def test_who_leaves_while_a_file_is_opened_leaves_no_thread_behind(tmp_path: Path) -> None:
    """At each step of the opening: a thread that is left would speak to a loop that is closed, or never end."""
    before = {*threading.enumerate()}

    async def leave(after: int) -> None:
        opening = asyncio.create_task(connect(tmp_path / f"{after}.db", mode="rwc"))
        for _ in range(after):
            await asyncio.sleep(0)
        opening.cancel()
        with suppress(asyncio.CancelledError):
            await (await opening).close()

    for _ in range(20):
        for after in range(4):
            asyncio.run(leave(after))
    for thread in {*threading.enumerate()} - before:
        thread.join(10)  # it may have been told and not have heard yet
        assert not thread.is_alive()
