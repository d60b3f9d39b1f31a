"""Replay: what is folded from the log, folded anew, compared, switched, and switched back."""

import asyncio
import json
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ledger import sqlite_staging
from ledger.ids import Spelling, TaskId
from ledger.keys import Role
from ledger.ledger import Ledger
from ledger.sqlite_staging import State, state_of
from ledger.task import Task
from projections.audit.audit import audit
from projections.audit.findings import Report
from projections.books.books_sql import SHAPE
from projections.replay import switch as replay_switch
from projections.replay.books_sql import TABLES
from projections.replay.file import alone, replay_of
from scripts.cli import EXIT_INTERRUPT, app, run
from tests import stored
from tests.builders import ACCOUNT, CREATED_US, cancel, create, delete, ident, start

NAME = Spelling.UUID.spell(ident(0))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("original") / "ledger.db"
    stored.make(path)
    return path


@pytest.fixture
def path(original: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "ledger.db"
    copy.write_bytes(original.read_bytes())
    return copy


class Replayed:
    """What a run of the verb came to."""

    def __init__(self, code: int, out: str) -> None:
        self.code = code
        self.objects: list[dict[str, Any]] = [json.loads(line) for line in out.splitlines()]

    @property
    def changes(self) -> list[tuple[str, str, str]]:
        """Projection, row and field."""
        return [(one["projection"], one["row"], one["field"]) for one in self.objects if "field" in one]

    @property
    def switched(self) -> dict[str, Any]:
        (found,) = [one for one in self.objects if "took_ms" in one]
        return found


Shell = Callable[..., Replayed]


@pytest.fixture
def replay(path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    def shell(*options: str) -> Replayed:
        capsys.readouterr()
        code = run(app, ["replay", "--store", f"sqlite:{path}", "--json", *options])
        return Replayed(code, capsys.readouterr().out)

    return shell


def rows(path: Path, table: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()  # noqa: S608 - a table's name


def plant(path: Path, statement: str, *values: object) -> None:
    """Change what no guard of the store guards: rows that are folded."""
    with closing(sqlite3.connect(path)) as db:
        assert db.execute(statement, values).rowcount > 0
        db.commit()


def kept(path: Path) -> int:
    with closing(sqlite3.connect(f"{path}.replay")) as db:
        return int(db.execute("SELECT count(*) FROM kept").fetchone()[0])


def findings(path: Path) -> int:
    """How much an audit finds."""
    return asyncio.run(audited(path)).found


async def audited(path: Path) -> Report:
    async with stored.reading(path) as engine:
        return await audit(engine)


def test_what_was_never_touched_does_not_differ_and_nothing_is_changed(path: Path, replay: Shell) -> None:
    before = path.read_bytes()
    found = replay("--verify")
    assert (found.code, found.changes) == (0, [])
    assert path.read_bytes() == before
    done = replay()
    assert (done.code, done.changes, done.switched["position"]) == (0, [], None)
    assert rows(path, "tasks") == rows(path, "tasks")


def test_what_goes_wrong_after_a_replay_is_found_by_the_next_and_the_switch_before_can_be_undone(
    path: Path, replay: Shell
) -> None:
    right = rows(path, "tasks")
    plant(path, "UPDATE tasks SET created_at = 1 WHERE task = ?", ident(0))
    wrong = rows(path, "tasks")
    assert replay("--projection", "tasks").switched["tasks"] == 1
    assert replay("--projection", "tasks").switched["tasks"] == 0, "nothing was left to do"
    assert replay("--back").switched["tasks"] == 1
    assert rows(path, "tasks") == wrong
    assert replay("--projection", "tasks").changes == [("tasks", NAME, "created_at")]
    assert rows(path, "tasks") == right


WRONG = [  # what is done to the store, and the first line that tells of it
    ("UPDATE tasks SET held_micros = held_micros + 7 WHERE task = ?", ("tasks", NAME, "held_micros")),
    ("UPDATE tasks SET status = 'expired' WHERE task = ?", ("tasks", NAME, "status")),
    ("UPDATE tasks SET version = version + 1 WHERE task = ?", ("tasks", NAME, "version")),
    ("UPDATE tasks SET position = 1 WHERE task = ?", ("tasks", NAME, "position")),
    ("UPDATE tasks SET view = x'7b7d' WHERE task = ?", ("tasks", NAME, "view.task_id")),
    ("UPDATE tasks SET view = x'ff' WHERE task = ?", ("tasks", NAME, "view")),
    ("DELETE FROM tasks WHERE task = ?", ("tasks", NAME, "row")),
    ("UPDATE tasks SET task = randomblob(16) WHERE task = ?", ("tasks", NAME, "row")),
]


@pytest.mark.parametrize(("statement", "line"), WRONG, ids=[str(line[2]) + one[:6] for one, line in WRONG])
def test_a_wrong_row_is_told_put_right_and_put_back(
    path: Path, replay: Shell, statement: str, line: tuple[str, str, str]
) -> None:
    right = rows(path, "tasks")
    plant(path, statement, ident(0))
    wrong = rows(path, "tasks")

    found = replay("--verify")
    assert found.code == 1
    assert line in found.changes
    assert rows(path, "tasks") == wrong, "to verify changes nothing"

    done = replay()
    assert (done.code, done.changes) == (0, found.changes)
    assert rows(path, "tasks") == right
    assert findings(path) == 0
    assert done.switched["tasks"] == kept(path)
    assert replay("--verify").code == 0

    back = replay("--back")
    assert (back.code, back.switched["left"]) == (0, 0)
    assert rows(path, "tasks") == wrong


def test_where_nothing_was_replaced_nothing_is_put_back(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verb = ["replay", "--store", f"sqlite:{path}"]
    assert run(app, [*verb, "--back"]) == 0
    assert capsys.readouterr().out == "nothing to put back\nbooks: nothing to put back\n"
    assert run(app, [*verb, "--verify"]) == 0
    compared, books = capsys.readouterr().out.splitlines()
    assert (compared.partition(":")[0], books) == ("no difference", "books: no difference")


@pytest.mark.parametrize("is_told", [True, False])
def test_what_a_switch_replaced_in_another_log_that_had_this_path_is_not_put_back(
    *, path: Path, replay: Shell, capsys: pytest.CaptureFixture[str], is_told: bool
) -> None:
    """The rows are the same, as they are in a log that was restored from this one."""
    plant(path, "UPDATE tasks SET created_at = 1 WHERE task = ?", ident(0))
    assert replay().switched["tasks"] == 1
    right = rows(path, "tasks")
    if is_told:
        plant(path, "UPDATE meta SET value = CAST(? AS BLOB) WHERE name = 'log_id'", "0123456789abcdef")
    else:  # by a program before this
        with closing(sqlite3.connect(replay_of(path))) as db, db:
            db.execute("DROP TABLE kept_of")
    capsys.readouterr()
    assert run(app, ["replay", "--store", f"sqlite:{path}", "--back"]) == 2
    assert "was replaced in another log than" in capsys.readouterr().err
    assert rows(path, "tasks") == right
    plant(path, "UPDATE tasks SET created_at = 2 WHERE task = ?", ident(0))
    assert replay().switched["tasks"] == 1
    assert replay("--back").switched["tasks"] == 1, "what this log has switched to is put back"


def test_where_nothing_is_kept_there_is_nothing_to_put_back_whatever_the_log_is_called(
    path: Path, replay: Shell
) -> None:
    assert replay().code == 0
    plant(path, "UPDATE meta SET value = CAST(? AS BLOB) WHERE name = 'log_id'", "0123456789abcdef")
    assert replay("--back", "--projection", "tasks").switched["tasks"] == 0


@pytest.fixture
def replay_apart(path: Path) -> Shell:
    """The verb in a process of its own."""

    def shell(*options: str) -> Replayed:
        command = [sys.executable, "-m", "scripts.replay", "--store", f"sqlite:{path}", "--json", *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.stderr == ""
        return Replayed(done.returncode, done.stdout)

    return shell


ACCOUNT_FIELDS = ("held_micros", "charged_micros", "refunded_micros", "expected_micros", "position", "version")


@pytest.mark.parametrize("field", ACCOUNT_FIELDS)
def test_a_wrong_figure_of_an_account_is_told_put_right_and_put_back(path: Path, replay: Shell, field: str) -> None:
    right = rows(path, "accounts")
    plant(path, f"UPDATE accounts SET {field} = {field} + 1 WHERE account = ?", ACCOUNT)  # noqa: S608 - a column
    wrong = rows(path, "accounts")
    done = replay("--projection", "accounts")
    assert (done.code, done.changes) == (0, [("accounts", ACCOUNT, field)])
    assert rows(path, "accounts") == right
    assert findings(path) == 0
    assert replay("--back").switched["accounts"] == 1
    assert rows(path, "accounts") == wrong


async def test_a_task_that_has_moved_on_since_the_switch_is_not_put_back(path: Path, replay_apart: Shell) -> None:
    fresh = ident(900)
    async with stored.serving(path) as ledger:
        await ledger.handle(create(fresh))
    plant(path, "UPDATE tasks SET created_at = 1 WHERE task IN (?, ?)", ident(0), fresh)
    assert replay_apart().switched["tasks"] == 2
    async with stored.serving(path) as ledger:
        await ledger.handle(start(fresh))
    back = replay_apart("--back")
    assert (back.switched["tasks"], back.switched["left"]) == (1, 1)
    assert (await audited(path)).found == 1


async def nothing(_: Ledger) -> None:
    """No commit."""


async def limit(ledger: Ledger) -> None:
    await ledger.accounts.set_limit(ACCOUNT, 10**9, by="test", at_us=CREATED_US)


async def key(ledger: Ledger) -> None:
    await ledger.keys.issue(account=ACCOUNT, contract="beatra", role=Role.CLIENT, by="test", at_us=CREATED_US)


@pytest.mark.parametrize("first", [nothing, limit, key])
async def test_a_serving_process_decides_on_what_was_put_there_and_not_on_what_it_had_in_memory(
    path: Path, replay_apart: Shell, first: Callable[[Ledger], Awaitable[None]]
) -> None:
    """Whatever it commits *first* after the switch, which need not be of a task."""
    task = ident(900)
    async with stored.serving(path) as ledger:
        await ledger.handle(create(task))
        right = await read(ledger, task)
    plant(
        path,
        "UPDATE tasks SET view = CAST(replace(CAST(view AS TEXT), 'seedance', 'sundance') AS BLOB) WHERE task = ?",
        task,
    )
    async with stored.serving(path) as ledger:
        assert await read(ledger, task) != right, "it has the wrong one in memory"
        assert replay_apart().switched["tasks"] == 1
        await first(ledger)
        outcome = await ledger.handle(start(task))
        assert outcome.task.model == right.model
        await ledger.heed_switches()
        assert (await read(ledger, task)).model == right.model
    assert (await audited(path)).found == 0


async def read(ledger: Any, task: Any) -> Task:  # noqa: ANN401
    seen = await ledger.task(task, account=None)
    assert isinstance(seen.task, Task)
    return seen.task


def test_a_disk_that_gets_full_while_rows_are_staged_has_its_room_back_and_nothing_was_changed(
    path: Path, replay: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = rows(path, "tasks")
    plant(path, "UPDATE tasks SET created_at = created_at + 1")
    wrong, stage = rows(path, "tasks"), sqlite_staging.stage

    def stage_with_little_room(db: sqlite3.Connection) -> None:
        stage(db)
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count = {pages + 1}")

    with monkeypatch.context() as patched:
        patched.setattr(replay_switch, "stage", stage_with_little_room)
        assert replay("--projection", "tasks").code == 3
    with closing(sqlite3.connect(path)) as db:
        assert state_of(db) is State.AT_REST
    assert rows(path, "tasks") == wrong
    assert replay("--projection", "tasks").switched["tasks"] == len(wrong)
    assert rows(path, "tasks") == right


@pytest.mark.parametrize("options", [(), ("--back",)], ids=["on", "back"])
def test_a_replay_that_is_told_to_end_while_it_stages_leaves_nothing_staged(
    path: Path, replay: Shell, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    only = ("--projection", "tasks", *options)
    plant(path, "UPDATE tasks SET created_at = created_at + 1")
    if options:
        assert replay().code == 0
    before, in_slices = rows(path, "tasks"), sqlite_staging.in_slices

    def told_to_end(*some: Any) -> None:  # noqa: ANN401 - as they come
        in_slices(*some)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(replay_switch, "in_slices", told_to_end)
        assert replay(*only).code == EXIT_INTERRUPT
    with closing(sqlite3.connect(path)) as db:
        assert state_of(db) is State.AT_REST
    assert rows(path, "tasks") == before
    assert replay(*only).switched["tasks"] > 0


def test_accounts_that_moved_while_rows_were_staged_are_right_after_the_switch(
    path: Path, replay: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is staged of them is thrown away, and they are compared again under the lock."""
    fresh = [ident(number) for number in range(900, 904)]
    plant(path, "UPDATE accounts SET held_micros = held_micros + 7, version = version + 1")
    plant(path, "UPDATE tasks SET created_at = created_at + 1 WHERE task = ?", ident(0))
    in_slices, left = sqlite_staging.in_slices, [*fresh]

    def between_slices(db: Any, items: Any, do: Any) -> None:  # noqa: ANN401 - as they come
        in_slices(db, items, do)
        if left:
            with ThreadPoolExecutor(1) as elsewhere:
                elsewhere.submit(asyncio.run, created(path, left.pop())).result()

    monkeypatch.setattr(replay_switch, "in_slices", between_slices)
    monkeypatch.setattr(replay_switch, "ROUNDS_MAX", 1)
    done = replay()
    assert done.switched["tasks"] == 1
    assert done.switched["accounts"] > 1
    assert not left
    assert findings(path) == 0
    assert replay("--verify").code == 0


async def created(path: Path, task: TaskId) -> None:
    async with stored.serving(path) as ledger:
        await ledger.handle(create(task))


def test_of_a_task_that_is_deleted_just_before_its_row_is_staged_none_is_staged(
    path: Path, replay: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its content would be in the file again, and stay there if the replay died."""
    task, in_slices, staged = ident(900), sqlite_staging.in_slices, list[list[bytes]]()
    asyncio.run(created(path, task))
    plant(path, "UPDATE tasks SET created_at = created_at + 1 WHERE task IN (?, ?)", ident(0), task)

    def after_a_deletion(db: sqlite3.Connection, items: Any, do: Any) -> None:  # noqa: ANN401 - as they come
        if not staged:
            with ThreadPoolExecutor(1) as elsewhere:
                elsewhere.submit(asyncio.run, erased(path, task)).result()
        in_slices(db, items, do)
        staged.append([one for (one,) in db.execute("SELECT task FROM fresh_tasks")])

    monkeypatch.setattr(replay_switch, "in_slices", after_a_deletion)
    assert replay().switched["tasks"] == 2, (
        "what is wrong of the deleted one's row was found once more, without content"
    )
    assert staged[0] == [ident(0)]
    assert findings(path) == 0


async def erased(path: Path, task: TaskId) -> None:
    async with stored.serving(path) as ledger:
        await ledger.handle(cancel(task))
        await ledger.handle(delete(task))


def test_two_replays_at_once_are_one_too_many(path: Path, replay: Shell) -> None:
    with alone(replay_of(path)):
        assert replay().code == 3
        assert replay("--projection", "books").code == 3
    assert replay().code == 0


# The books


def books(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    return {table: rows(Path(f"{path}.books"), table) for table in TABLES}


def test_all_that_the_books_keep_is_compared_to_the_last_column() -> None:
    with closing(sqlite3.connect(":memory:")) as db:
        for statement in SHAPE.founding:
            db.execute(statement)
        kept = {table: {name for _, name, *_ in db.execute(f"PRAGMA table_info({table})")} for table in SHAPE.tables}
    assert {table: {*key, *rest} for table, (key, rest) in TABLES.items()} == kept


BOOKS_WRONG = [  # what is done to the books, and in which table and field it shows
    ("UPDATE movements SET amount_micros = amount_micros + 1 WHERE position = (SELECT min(position) FROM movements)",),
    ("DELETE FROM movements WHERE position = (SELECT max(position) FROM movements)",),
    ("UPDATE tasks SET status = 'lost' WHERE task = (SELECT min(task) FROM tasks)",),
    ("DELETE FROM tasks WHERE task = (SELECT max(task) FROM tasks)",),
    ("INSERT INTO provider_tasks VALUES ('made-up', x'00')",),
    ("UPDATE purposes SET provider = 'other' WHERE purpose = 1",),
]


@pytest.mark.parametrize("statement", [one for (one,) in BOOKS_WRONG])
def test_wrong_books_are_told_put_right_and_put_back(path: Path, replay: Shell, statement: str) -> None:
    only = ("--projection", "books")
    assert replay(*only, "--verify").code == 0
    right = books(path)
    plant(Path(f"{path}.books"), statement)
    wrong = books(path)
    found = replay(*only, "--verify")
    assert (found.code, len(found.changes)) == (1, 1)
    assert books(path) == wrong, "to verify changes nothing"

    assert replay(*only).changes == found.changes
    assert books(path) == right
    assert replay(*only, "--verify").code == 0
    assert findings(path) == 0

    replay(*only, "--back")
    assert books(path) == wrong
    assert not list(path.parent.glob("*.green*"))


# As it stood


def stood(path: Path, capsys: pytest.CaptureFixture[str], *options: str) -> list[str]:
    """The lines that the verb prints of a projection as it stood, with nothing replaced."""
    before = path.read_bytes()
    capsys.readouterr()
    assert run(app, ["replay", "--store", f"sqlite:{path}", *options]) == 0
    assert path.read_bytes() == before
    return capsys.readouterr().out.splitlines()


def test_tasks_as_they_stood_at_the_end_of_the_log_are_told_with_their_money_in_credits(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    end = str(rows(path, "events")[-1][0])
    told = [json.loads(line) for line in stood(path, capsys, "--at", end, "--json")]
    assert {Spelling.UUID.parse(one["id"]) for one in told} == {TaskId(row[0]) for row in rows(path, "task_rows")}
    for one, line in zip(told, stood(path, capsys, "--at", end), strict=True):
        money = " ".join(f"{name} {one['billing'][f'{name}_credits']}" for name in ("held", "charged", "net"))
        assert line == f"{one['id']} v{one['version']} {one['account']} {one['model']} {one['status']} {money}"


@pytest.mark.parametrize("projection", ["tasks", "accounts"])
def test_before_the_first_event_nothing_stood(path: Path, capsys: pytest.CaptureFixture[str], projection: str) -> None:
    assert stood(path, capsys, "--at", "0", "--projection", projection, "--json") == []


def test_accounts_as_they_stood_at_the_end_of_the_log_are_those_that_are_live(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    end = str(rows(path, "events")[-1][0])
    told = [json.loads(line) for line in stood(path, capsys, "--at", end, "--projection", "accounts", "--json")]
    capsys.readouterr()
    assert run(app, ["accounts", "show", "--store", f"sqlite:{path}", "--json"]) == 0
    assert told == [json.loads(line) for line in capsys.readouterr().out.splitlines()]
