"""Files of older schemas: upgraded in place when they are opened to write, with the rows that they would have had."""

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
from projections.audit import audit
from tests import stored
from tests.builders import ACCOUNT, STRANGER, append, cancel, create, ident

OLDEST = 2
"""The first schema that is upgraded: without accounts, and what is appended did not bring any."""


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger with something of everything in it, but for what came after the oldest schema."""
    path = tmp_path_factory.mktemp("older") / "ledger.db"
    stored.make(path, terms=False)
    return path


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
        db.executescript(f"DROP TABLE accounts; DROP VIEW appends; CREATE VIEW appends AS SELECT {older}")
        db.execute(f"PRAGMA user_version = {OLDEST}")


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
    report = await audit(engine)
    assert report.found == 0, report.findings
    await goes_on(engine)
    await engine.close()
    again = await open_to_serve(path)
    assert (await again.accounts(None)).keys() == {row.account for row in rows_in(filled)}
    await again.close()


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
        CannotOpenError, match=f"cannot be brought to schema {OLDEST + 1}: table accounts already exists"
    ):
        await open_to_serve(path)
    assert version_of(path) == OLDEST
    with closing(sqlite3.connect(path)) as db:
        db.execute("DROP TABLE accounts")
    engine = await open_to_serve(path)
    await goes_on(engine)
    await engine.close()
