"""What lies under the log and shows in no row of it: indexes, triggers, the schema, the file's word of itself."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from ledger.engine import Engine
from ledger.errors import StorageError
from ledger.memory import MemoryEngine
from ledger.sqlite_damage import DAMAGES_MAX, made
from projections.audit.audit import audit
from projections.audit.findings import Check, Report
from tests import stored
from tests.builders import Watched

INDEXES = sorted(name for kind, name in made() if kind == "index" and made()[kind, name][0] != "claims")
"""Those beside a table; that of the claims is the table."""
TRIGGERS = sorted(name for kind, name in made() if kind == "trigger")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("original") / "ledger.db"
    stored.make(path)
    return path.read_bytes()


@pytest.fixture
def path(original: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "ledger.db"
    path.write_bytes(original)
    return path


async def audited(path: Path) -> Report:
    async with stored.reading(path) as engine:
        return await audit(engine)


async def store_findings(path: Path) -> Sequence[str]:
    report = await audited(path)
    assert {finding.check for finding in report.findings} <= {Check.STORE}, report.findings
    assert report.first_bad_position is None
    return [finding.detail for finding in report.findings]


def flip_in_index(path: Path, name: str) -> None:
    """Flip a bit in the last byte of the index's first page: the end of the cell that was written there first."""
    with closing(sqlite3.connect(path)) as db:
        (size,) = db.execute("PRAGMA page_size").fetchone()
        (page,) = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (name,)).fetchone()
    raw = bytearray(path.read_bytes())
    raw[page * size - 1] ^= 1
    path.write_bytes(raw)


def change_trigger(path: Path, name: str) -> None:
    """Change a byte of its text: the same to SQLite, and another to whoever looks."""
    with closing(sqlite3.connect(path)) as db:
        (sql,) = db.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (name,)).fetchone()
    raw, begins = path.read_bytes(), sql[: sql.index("BEGIN") + 5].encode()
    assert raw.count(begins) == 1
    path.write_bytes(raw.replace(begins, begins[:-5] + b"BEGiN"))


async def test_a_store_of_this_program_is_sound(engine: Engine) -> None:
    await stored.fill(engine)
    assert await engine.damage() == []


def test_there_are_indexes_and_triggers_to_damage() -> None:
    assert {"tasks_by_account", "tasks_by_status", "tasks_by_id", "sqlite_autoindex_keys_1"} <= set(INDEXES)
    assert {"append", "events_in_order", "events_unchanged", "events_kept", "events_erase"} == set(TRIGGERS)


@pytest.mark.parametrize("name", INDEXES)
async def test_a_flipped_bit_in_an_index_is_found(path: Path, name: str) -> None:
    flip_in_index(path, name)
    report = await audited(path)
    said = [finding.detail for finding in report.findings if finding.check is Check.STORE]
    assert any(name in detail for detail in said), report.findings


@pytest.mark.parametrize("name", TRIGGERS)
async def test_a_changed_byte_in_a_trigger_is_found(path: Path, name: str) -> None:
    change_trigger(path, name)
    assert await store_findings(path) == [f"the schema has another trigger {name} than this program makes"]


SCHEMA_CHANGES = [
    ("DROP TRIGGER events_kept", "the schema lacks trigger events_kept"),
    ("DROP INDEX tasks_by_status", "the schema lacks index tasks_by_status"),
    (
        "CREATE TRIGGER mine AFTER INSERT ON events BEGIN SELECT 1; END",
        "the schema has trigger mine, which this program does not make",
    ),
    ("CREATE TABLE mine (a)", "the schema has table mine, which this program does not make"),
    (
        "UPDATE meta SET value = x'6162' WHERE name = 'log_id'",
        "meta: log_id has not the form that this program gives it",
    ),
    (
        "UPDATE meta SET value = x'6162' WHERE name = 'pepper'",
        "meta: pepper has not the form that this program gives it",
    ),
    ("INSERT INTO meta VALUES ('mine', x'00')", "meta: mine is nothing that this program writes"),
]


@pytest.mark.parametrize(("sql", "detail"), SCHEMA_CHANGES)
async def test_a_schema_that_this_program_did_not_make_is_found(path: Path, sql: str, detail: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute(sql)
        db.commit()
    assert await store_findings(path) == [detail]


STRAYS = [
    ("INSERT INTO lanes VALUES (1, 0, x'', 0)", "lanes: there are more than the one: 1"),
    ("INSERT INTO seals VALUES (randomblob(16), randomblob(32))", "seals: a key is no task's: 1"),
    (
        "UPDATE claims SET task = randomblob(16) WHERE key = (SELECT min(key) FROM claims)",
        "claims: a row points at no task: 1",
    ),
]


@pytest.mark.parametrize(("sql", "detail"), STRAYS)
async def test_a_row_that_nothing_looks_up_is_found(path: Path, sql: str, detail: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute(sql)
        db.commit()
    assert await store_findings(path) == [detail]


async def test_advice_to_the_planner_is_no_damage(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("ANALYZE")
    assert await store_findings(path) == []


async def test_what_litestream_makes_is_no_damage(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE _litestream_seq (id INTEGER PRIMARY KEY, seq INTEGER)")
        db.execute("CREATE TABLE _litestream_lock (id INTEGER)")
    assert await store_findings(path) == []


async def test_it_looks_beside_a_serving_process(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    async with stored.serving(path) as ledger:
        await stored.fill(ledger.engine)
        assert await store_findings(path) == []


async def test_damages_are_told_up_to_a_bound(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        for number in range(DAMAGES_MAX + 10):
            db.execute(f"CREATE TABLE mine{number} (a)")
    assert len(await store_findings(path)) == DAMAGES_MAX


async def test_a_store_that_cannot_be_checked_is_a_finding_and_the_rest_is_checked() -> None:
    class Uncheckable(Watched):
        async def damage(self) -> list[str]:
            raise StorageError("broken")

    report = await audit(Uncheckable(MemoryEngine()))
    (finding,) = report.findings
    assert (finding.check, finding.detail) == (Check.STORE, "the store cannot be checked: StorageError: broken")
