"""Files of older schemas: upgraded in place when they are opened to write, with the rows that they would have had."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from ledger.engine import Engine
from ledger.errors import CannotOpenError
from ledger.ledger import Ledger
from ledger.money import AMOUNT_MAX_MICROS
from ledger.records import SUM_MAX_MICROS, AccountRow, Move
from ledger.sqlite import open_beside, open_to_read, open_to_serve
from ledger.sqlite_rows import read_account
from ledger.sqlite_sql import ACCOUNTS_ALL, APPEND_COLUMNS, SCHEMA_VERSION
from ledger.sqlite_upgrades import UPGRADES
from projections.audit.audit import audit
from scripts.backup import back_up
from scripts.restore import restore_to
from tests import stored
from tests.builders import ACCOUNT, STRANGER, append, cancel, create, ident
from tests.rules_dsl import HOLD

OLDEST, UNCOUNTED = 2, 3
"""The first schema that is upgraded, without accounts; and the one whose accounts do not count their tasks."""
FREE = "globex"
"""An account whose tasks cost nothing."""


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger with something of everything in it, but for what came after the oldest schema."""
    path = tmp_path_factory.mktemp("older") / "ledger.db"
    stored.make(path, terms=False)
    asyncio.run(add_free_tasks(path))
    return path


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, with what accounts were given."""
    path = tmp_path_factory.mktemp("given") / "ledger.db"
    stored.make(path, terms=True)
    asyncio.run(add_free_tasks(path))
    return path


@pytest.fixture
def uncounted(given: Path, tmp_path: Path) -> Path:
    path = tmp_path / "uncounted.db"
    path.write_bytes(given.read_bytes())
    set_back_to_uncounted(path)
    return path


async def add_free_tasks(path: Path) -> None:
    """Two under way and one that is over, which have cost nothing and are the last that happened."""
    free = replace(HOLD, estimated_micros=0)
    async with stored.serving(path) as ledger:
        for number in (900, 901, 902):
            await ledger.handle(create(ident(number), account=FREE, terms=free))
        await ledger.handle(create(ident(903), terms=free))
        await ledger.handle(cancel(ident(902), account=FREE))


@pytest.fixture
def path(filled: Path, tmp_path: Path) -> Path:
    path = tmp_path / "ledger.db"
    path.write_bytes(filled.read_bytes())
    set_back(path)
    return path


def set_back(path: Path) -> None:
    """Make it a ledger of the oldest schema."""
    older = ", ".join(f"NULL AS {name}" for name in APPEND_COLUMNS if not name.startswith("accounts"))
    with closing(sqlite3.connect(path)) as db:
        db.executescript("DROP VIEW task_rows; DROP VIEW account_rows; DROP TABLE accounts; DROP VIEW appends")
        db.execute(f"CREATE VIEW appends AS SELECT {older}")
        db.execute(f"PRAGMA user_version = {OLDEST}")


def set_back_to_uncounted(path: Path) -> None:
    """Make it a ledger of the schema whose accounts only knew what costs: rows, and places, of nothing else."""
    with closing(sqlite3.connect(path)) as db:
        terms = db.execute(
            "SELECT account, version, limit_micros, granted_micros FROM accounts WHERE version"
        ).fetchall()
    set_back(path)
    with closing(sqlite3.connect(path)) as db:
        db.executescript(UPGRADES[OLDEST])
        for account, *told in terms:
            (place,) = db.execute(
                "SELECT max(position) FROM events WHERE account = ? AND type LIKE 'credit-%'", (account,)
            ).fetchone()
            db.execute("INSERT OR IGNORE INTO accounts VALUES (?, 0, 0, NULL, NULL, 0, 0, 0, 0)", (account,))
            db.execute(
                """UPDATE accounts SET version = ?, limit_micros = ?, granted_micros = ?, position = max(position, ?)
                WHERE account = ?""",
                (*told, place, account),
            )
        db.execute(f"PRAGMA user_version = {UNCOUNTED}")
        db.commit()


def rows_in(path: Path) -> list[AccountRow]:
    with closing(sqlite3.connect(path)) as db:
        return [read_account(row) for row in db.execute(ACCOUNTS_ALL)]


def version_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute("PRAGMA user_version").fetchone()[0])


async def goes_on(engine: Engine) -> None:
    position = (await engine.head()).position
    assert await engine.commit([append(999, move=Move(held_micros=1), rests_on=0)]) == [position + 1]


@pytest.mark.parametrize("how", [open_to_serve, open_beside])
async def test_a_ledger_without_accounts_gets_those_that_it_would_have(filled: Path, path: Path, how: object) -> None:
    assert callable(how)
    engine = await how(path)
    assert version_of(path) == SCHEMA_VERSION
    assert rows_in(path) == rows_in(filled)
    assert any(row.expected_micros for row in rows_in(path))
    assert {row.account: row.live_tasks for row in rows_in(path)}[FREE] == 2
    report = await audit(engine)
    assert report.found == 0, report.findings
    await goes_on(engine)
    await engine.close()
    again = await open_to_serve(path)
    assert (await again.accounts(None)).keys() == {row.account for row in rows_in(filled)}
    await again.close()


@pytest.mark.parametrize("how", [open_to_serve, open_beside])
async def test_a_ledger_that_did_not_count_tasks_counts_them_and_keeps_what_accounts_were_given(
    given: Path, uncounted: Path, how: object
) -> None:
    assert callable(how)
    before = rows_in(given)
    with closing(sqlite3.connect(uncounted)) as db:
        rows = {row[0]: row for row in db.execute("SELECT account, position, version FROM accounts")}
    assert FREE not in rows
    assert rows[ACCOUNT][1] < next(row.position for row in before if row.account == ACCOUNT)
    assert rows[STRANGER][2]
    engine = await how(uncounted)
    assert version_of(uncounted) == SCHEMA_VERSION
    assert rows_in(uncounted) == before
    assert {row.account: row.live_tasks for row in before}[FREE] == 2
    assert any(row.granted_micros for row in before)
    report = await audit(engine)
    assert report.found == 0, report.findings
    assert await engine.damage() == []
    await engine.close()


OLDER = ["path", "uncounted"]
"""By fixture, a file of each older schema."""


@pytest.mark.parametrize("older", OLDER)
@pytest.mark.parametrize("until_the_end", [True, False])
async def test_a_backup_of_an_older_schema_is_upgraded_while_it_is_restored_and_stays_as_it_is(
    *, request: pytest.FixtureRequest, tmp_path: Path, older: str, until_the_end: bool
) -> None:
    store: Path = request.getfixturevalue(older)
    backup, target = tmp_path / "backup.db", tmp_path / "restored.db"
    made = back_up(store, backup)
    before, version = backup.read_bytes(), version_of(backup)
    assert version == version_of(store) < SCHEMA_VERSION
    until = made.position if until_the_end else made.position // 2
    done = await restore_to(backup, target, until=until)
    assert (done.restored, done.report.findings, done.position) == (True, (), until)
    assert (backup.read_bytes(), version_of(store), version_of(target)) == (before, version, SCHEMA_VERSION)
    if until_the_end:
        whole: Path = request.getfixturevalue("filled" if older == "path" else "given")
        assert rows_in(target) == rows_in(whole)
    async with stored.serving(target) as ledger:
        assert await ledger.engine.damage() == []
        await ledger.handle(create(ident(999)))


async def test_sums_beyond_64_bits_are_kept_at_the_most_that_there_is(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    most = create(ident(0)).terms
    assert most is not None
    most = replace(most, estimated_micros=AMOUNT_MAX_MICROS)
    async with Ledger(await open_to_serve(path)) as ledger:
        for number in range(10):
            await ledger.handle(create(ident(number), terms=most))
        await ledger.handle(create(ident(10), account=STRANGER, terms=most))
        for number in range(11, 20):
            await ledger.handle(create(ident(number), account=STRANGER, terms=most))
            await ledger.handle(cancel(ident(number), account=STRANGER))
    before = rows_in(path)
    assert {row.account: row.held_micros for row in before} == {ACCOUNT: SUM_MAX_MICROS, STRANGER: AMOUNT_MAX_MICROS}
    set_back(path)
    engine = await open_to_serve(path)
    assert rows_in(path) == before
    assert (await audit(engine)).found == 0
    await engine.close()


async def test_a_ledger_of_an_older_schema_is_not_read_before_it_is_upgraded(path: Path) -> None:
    with pytest.raises(
        CannotOpenError, match=f"has schema {OLDEST}, this program needs {SCHEMA_VERSION}: .* brings it"
    ):
        await open_to_read(path)
    assert version_of(path) == OLDEST


async def test_it_is_not_upgraded_under_a_process_that_serves_it(filled: Path, path: Path, tmp_path: Path) -> None:
    del filled
    serving = await open_to_serve(tmp_path / "ledger.db")
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {OLDEST}")
    with pytest.raises(CannotOpenError, match="is served by another process"):
        await open_beside(path)
    assert version_of(path) == OLDEST
    await serving.close()


async def test_an_upgrade_that_fails_leaves_the_file_as_it_was(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE accounts (mine)")
    with pytest.raises(
        CannotOpenError, match=f"cannot be brought to schema {SCHEMA_VERSION}: table accounts already exists"
    ):
        await open_to_serve(path)
    assert version_of(path) == OLDEST
    with closing(sqlite3.connect(path)) as db:
        db.execute("DROP TABLE accounts")
    engine = await open_to_serve(path)
    await goes_on(engine)
    await engine.close()


async def test_an_upgrade_whose_last_step_fails_undoes_the_first_as_well(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE accounts_before (mine)")
        before = db.execute("SELECT name, sql FROM sqlite_schema ORDER BY name").fetchall()
    with pytest.raises(CannotOpenError, match="there is already another table or index with this name"):
        await open_to_serve(path)
    assert version_of(path) == OLDEST
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT name, sql FROM sqlite_schema ORDER BY name").fetchall() == before
