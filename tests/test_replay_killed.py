"""A replay that dies beside a server at work: at each of its steps, and the next one ends right."""

import asyncio
import signal
import sqlite3
import sys
from asyncio.subprocess import PIPE
from contextlib import closing
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import pytest

from ledger.ids import Spelling
from ledger.keys import Role
from ledger.sqlite_staging import State, state_of
from projections.books.books import books_of
from projections.replay.books import drop, green_of, keeping_of
from scripts.cli import app, run
from tests import stored
from tests.builders import create, ident
from tests.processes import ROOT, Server, keys_in
from tests.test_replay import audited
from tests.test_replay_running import told, write

TASKS = range(900, 930)
ONLY_TASKS, ONLY_BOOKS = ("--projection", "tasks"), ("--projection", "books")
WRONG = "UPDATE tasks SET created_at = created_at + 1 WHERE task BETWEEN ? AND ?"

DYING = """
import os, signal, sqlite3, sys
from ledger import sqlite_staging
from scripts.cli import app, run

path, armed_by, text, count, when = sys.argv[1:]
sqlite_staging.SLICE_NS = -1  # a row a slice
is_armed, left = not armed_by, int(count)

def die():
    os.kill(os.getpid(), signal.SIGKILL)

class Dying(sqlite3.Connection):
    def execute(self, sql, *values):
        global is_armed, left
        told = sql.strip()
        if is_armed and told.startswith(text):
            left -= 1
            if not left and when == "before":
                die()
        found = super().execute(sql, *values)
        if is_armed and not left:
            die()
        is_armed = is_armed or told.startswith(armed_by)
        return found

connect = sqlite3.connect
sqlite3.connect = lambda *values, **options: connect(*values, **{"factory": Dying, **options})
run(app, ["replay", *OPTIONS, "--store", f"sqlite:{path}"])
"""


class Moment(NamedTuple):
    """At the so-many-th statement that begins with the text, once one has been executed that begins with the other."""

    armed_by: str
    text: str
    times: int = 1
    when: str = "after"


MOMENTS = {  # when it dies: where, in which state the file is then, and whether what differed is right
    "while it folds": (Moment("", "SELECT task, position, data", 1), State.AT_REST, False),
    "before it keeps": (Moment("", "DELETE FROM kept", 1, "before"), State.AT_REST, False),
    "before it stages": (Moment("INSERT INTO kept", "COMMIT"), State.AT_REST, False),
    "while it stages": (Moment("", "INSERT INTO fresh_tasks", 7), State.STAGED, False),
    "while it follows": (Moment("INSERT INTO fresh_tasks", "UPDATE replay SET until"), State.STAGED, False),
    "before the commit": (Moment("CREATE TRIGGER staged_merge", "COMMIT", when="before"), State.STAGED, False),
    "after the commit": (Moment("CREATE TRIGGER staged_merge", "COMMIT"), State.SWITCHED, True),
    "while it moves": (Moment("CREATE TRIGGER staged_merge", "INSERT INTO tasks", 7), State.SWITCHED, True),
    "before it settles": (Moment("", "DROP TRIGGER staged_merge", when="before"), State.SWITCHED, True),
    "while it settles": (Moment("", "DROP TABLE fresh_tasks"), State.SWITCHED, True),
    "before it cuts": (Moment("DROP TABLE gone_accounts", "PRAGMA wal_checkpoint", when="before"), State.AT_REST, True),
    "before it ends": (Moment("DROP TABLE gone_accounts", "DELETE FROM replay", when="before"), State.AT_REST, True),
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("original") / "ledger.db"
    asyncio.run(make(path))
    return path


async def make(path: Path) -> None:
    async with stored.serving(path) as ledger:
        for number in TASKS:
            await ledger.handle(create(ident(number)))


@pytest.fixture
def path(original: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "ledger.db"
    copy.write_bytes(original.read_bytes())
    return copy


def times(path: Path) -> list[tuple[bytes, int]]:
    """When the tasks were created, as it is read now."""
    with closing(sqlite3.connect(path)) as db:
        found = "SELECT task, created_at FROM task_rows WHERE task BETWEEN ? AND ? ORDER BY task"
        return db.execute(found, (ident(TASKS[0]), ident(TASKS[-1]))).fetchall()


def state(path: Path) -> State:
    with closing(sqlite3.connect(path)) as db:
        return state_of(db)


def plant(path: Path) -> None:
    with closing(sqlite3.connect(path, timeout=30)) as db:
        assert db.execute(WRONG, (ident(TASKS[0]), ident(TASKS[-1]))).rowcount == len(TASKS)
        db.commit()


async def killed(path: Path, moment: Moment, *options: str) -> None:
    program = DYING.replace("OPTIONS", repr(options))
    values = (str(path), moment.armed_by, moment.text, str(moment.times), moment.when)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, *values, cwd=ROOT, stdout=PIPE, stderr=PIPE
    )
    _, said = await process.communicate()
    assert process.returncode == -signal.SIGKILL, said.decode()


async def replay(path: Path, *options: str) -> int:
    return await asyncio.to_thread(run, app, ["replay", "--store", f"sqlite:{path}", *options])


async def report(server: Server, key: str, stop: asyncio.Event) -> None:
    """Report progress on the very tasks whose rows are wrong, one after the other."""
    wire = server.wire()
    try:
        for number in cycle(TASKS[::3]):
            if stop.is_set():
                return
            task = Spelling.UUID.spell(ident(number))
            await told(wire, key, f"/ledger/v1/tasks/{task}/events", {"type": "progressed", "percent": 1})
            await asyncio.sleep(0.01)
    finally:
        await wire.close()


async def test_wherever_a_replay_dies_beside_a_server_all_is_read_as_before_or_as_after_and_the_next_ends_right(
    path: Path,
) -> None:
    (key,) = await keys_in(path, ("ledger", Role.WORKER))
    right, stop = times(path), asyncio.Event()
    wrong = [(task, at_us + 1) for task, at_us in right]
    async with Server(path) as server:
        await server.start()
        writing = [asyncio.create_task(write(server, key, stop)), asyncio.create_task(report(server, key, stop))]
        for name, (moment, where, is_right) in MOMENTS.items():
            plant(path)
            await killed(path, moment, *ONLY_TASKS)
            assert (name, state(path), times(path)) == (name, where, right if is_right else wrong)
            assert await replay(path, *ONLY_TASKS, "--verify") == (not is_right), name
            assert state(path) is where, "to verify changes nothing"
            assert await replay(path, *ONLY_TASKS) == 0, name
            assert (name, state(path), times(path)) == (name, State.AT_REST, right)
            assert await replay(path, *ONLY_TASKS, "--verify") == 0, name
        stop.set()
        await asyncio.gather(*writing)
        assert await server.stop() == 0
    found = await audited(path)
    assert found.found == 0, found.findings


# The books

BOOKS_MOMENTS = {  # when it dies: where, and of the books whether it is on record that they were switched, and right
    "before it copies": (Moment("", "SELECT one", 1), False, False),
    "before it is on record": (Moment("", "INSERT INTO appends", when="before"), False, False),
    "before that is committed": (Moment("INSERT INTO appends", "COMMIT", when="before"), False, False),
    "once it is on record": (Moment("INSERT INTO appends", "COMMIT"), True, False),
    "while it takes them": (Moment("INSERT INTO appends", "DELETE FROM main.tasks"), True, False),
    "before they are committed": (Moment("UPDATE main.checkpoint", "COMMIT", when="before"), True, False),
    "once they are committed": (Moment("UPDATE main.checkpoint", "COMMIT"), True, True),
}


def plant_in_books(path: Path) -> None:
    with closing(sqlite3.connect(f"{path}.books", timeout=30)) as db:
        assert db.execute(WRONG, (ident(TASKS[0]), ident(TASKS[-1]))).rowcount == len(TASKS)
        db.commit()


def switches(path: Path) -> int:
    """How many there are on record."""
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute("SELECT count(*) FROM events WHERE type = 'projection-switched'").fetchone()[0])


def beside(path: Path) -> set[str]:
    """What a switch has left beside the books."""
    return {file.suffix for file in path.parent.glob(f"{path.name}.books.*")}


async def test_wherever_a_switch_of_the_books_dies_beside_a_server_it_is_on_record_once_and_the_next_ends_it(
    path: Path,
) -> None:
    (key,) = await keys_in(path, ("ledger", Role.WORKER))
    assert await replay(path, *ONLY_BOOKS, "--verify") == 0
    stop = asyncio.Event()
    async with Server(path) as server:
        await server.start()
        writing = [asyncio.create_task(write(server, key, stop)), asyncio.create_task(report(server, key, stop))]
        for name, (moment, is_on_record, is_right) in BOOKS_MOMENTS.items():
            before = switches(path)
            plant_in_books(path)
            await killed(path, moment, *ONLY_BOOKS)
            assert switches(path) == before + is_on_record, name
            assert await replay(path, *ONLY_BOOKS, "--verify") == (not is_right), name
            assert await replay(path, *ONLY_BOOKS) == 0, name
            assert (name, switches(path), beside(path)) == (name, before + 1, {".back"})
            assert await replay(path, *ONLY_BOOKS, "--verify") == 0, name
        stop.set()
        await asyncio.gather(*writing)
        assert await server.stop() == 0
    found = await audited(path)
    assert found.found == 0, found.findings


@pytest.mark.parametrize("name", BOOKS_MOMENTS)
async def test_going_back_that_dies_is_ended_by_going_back_again_and_not_undone(path: Path, name: str) -> None:
    moment, *_ = BOOKS_MOMENTS[name]
    assert await replay(path, *ONLY_BOOKS, "--verify") == 0
    plant_in_books(path)
    assert await replay(path, *ONLY_BOOKS) == 0
    await killed(path, moment, *ONLY_BOOKS, "--back")
    assert await replay(path, *ONLY_BOOKS, "--back") == 0
    assert (switches(path), beside(path)) == (2, {".back"})
    assert await replay(path, *ONLY_BOOKS, "--verify") == 1, "the wrong ones are live again"
    assert await replay(path, *ONLY_BOOKS) == 0
    assert await replay(path, *ONLY_BOOKS, "--verify") == 0


async def test_a_switch_of_the_books_that_dies_between_two_names_is_ended(path: Path) -> None:
    assert await replay(path, *ONLY_BOOKS, "--verify") == 0
    plant_in_books(path)
    await killed(path, BOOKS_MOMENTS["once they are committed"][0], *ONLY_BOOKS)
    drop(green_of(books_of(path)))
    assert beside(path) == {".keeping"}
    assert await replay(path, *ONLY_BOOKS) == 0
    assert (switches(path), beside(path)) == (1, {".back"})


async def test_a_copy_of_the_books_that_is_not_whole_is_thrown_away(path: Path) -> None:
    keeping_of(books_of(path)).write_bytes(b"")
    assert await replay(path, *ONLY_BOOKS) == 0
    assert (switches(path), beside(path)) == (0, set())
