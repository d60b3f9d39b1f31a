"""A store with a damaged page: it is served to be read, takes no writes, and says why and what to do."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from ledger import sqlite as sqlite_engine
from ledger.engine import Trouble
from ledger.errors import CannotOpenError, ReadOnlyError, StorageError
from ledger.ids import Spelling
from ledger.keys import Role
from ledger.sqlite import open_to_serve
from ledger.sqlite_sql import SCHEMA, TABLES
from scripts.restore import restore_to
from tests import stored
from tests.builders import append, ident
from tests.http import cancel, query
from tests.processes import Server, keys_in
from tests.serving import ACCOUNT, VENDORS, serving, spelled
from tests.wire import request
from tests.worded import code_of

OBJECTS = [name for name in (*TABLES, "tasks_by_account", "tasks_by_status", "tasks_by_id") if name != "meta"]
"""What has pages. Without its meta page a file is not opened at all."""


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


def zero_half_of(path: Path, name: str) -> None:
    """Turn the second half of the object's first page, where its cells are, to zeros, and make it claim more cells."""
    with closing(sqlite3.connect(path)) as db:
        (size,) = db.execute("PRAGMA page_size").fetchone()
        (page,) = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (name,)).fetchone()
    raw = bytearray(path.read_bytes())
    begin = (page - 1) * size
    raw[begin + size // 2 : begin + size] = bytes(size // 2)
    raw[begin + 3 : begin + 5] = (2000).to_bytes(2, "big")
    path.write_bytes(raw)


def zero_first_page(path: Path) -> None:
    path.write_bytes(bytes(4096) + path.read_bytes()[4096:])


def content(path: Path) -> bytes:
    return path.read_bytes()


def test_every_table_is_looked_at() -> None:
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(SCHEMA)
        made = {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    assert made == set(TABLES)


@pytest.mark.parametrize("name", OBJECTS)
async def test_r07_a_damaged_page_of_any_kind_is_found_when_the_file_is_opened_to_serve(path: Path, name: str) -> None:
    zero_half_of(path, name)
    engine = await open_to_serve(path)
    try:
        assert engine.trouble is Trouble.READ_ONLY
        before = content(path)
        with pytest.raises(ReadOnlyError, match=r"is damaged and read-only .*task-ledger verify.*task-ledger restore"):
            await engine.commit([append(500)])
        assert content(path) == before
    finally:
        await engine.close()


async def test_r07_without_its_first_page_a_file_is_no_ledger_and_not_served(path: Path) -> None:
    zero_first_page(path)
    with pytest.raises(CannotOpenError, match="is not a ledger"):
        await open_to_serve(path)


async def test_a_sound_file_is_looked_through_and_takes_writes(path: Path) -> None:
    engine = await open_to_serve(path)
    try:
        assert (await engine.look_through(), engine.trouble) == (None, None)
        assert await engine.commit([append(500)])
    finally:
        await engine.close()


async def test_r07_a_large_file_is_looked_through_while_it_is_served(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_engine, "LOOKED_AT_FIRST_MAX_BYTES", 0)
    zero_half_of(path, "tasks_by_status")
    engine = await open_to_serve(path)
    try:
        troubles = [engine.trouble]
        assert await engine.look_through() is not None
        assert [*troubles, engine.trouble] == [None, Trouble.READ_ONLY]
        with pytest.raises(ReadOnlyError):
            await engine.commit([append(500)])
    finally:
        await engine.close()


async def test_r07_damage_that_a_read_meets_ends_writing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_engine, "LOOKED_AT_FIRST_MAX_BYTES", 0)
    zero_half_of(path, "keys")
    engine = await open_to_serve(path)
    try:
        with pytest.raises(StorageError):
            await engine.keys(None)
        assert engine.trouble is Trouble.READ_ONLY
    finally:
        await engine.close()


# The service over it


async def test_r07_the_service_refuses_writes_in_each_contract_s_shape_and_serves_reads(tmp_path: Path) -> None:
    engine = await open_to_serve(tmp_path / "ledger.db")
    async with serving(engine) as service:
        tasks = {vendor: (await service.create(vendor))["id"] for vendor in VENDORS}
        for vendor in VENDORS:
            await service.key(vendor)
        assert (await service.ask("GET", "/readyz")).json()["status"] == "ready"
        engine._health.damage = "page 7 is not what was written"
        for vendor, task in tasks.items():
            refused = await service.client(vendor, cancel(vendor, spelled(task)))
            assert (refused.status, refused.headers["retry-after"]) == (503, "60")
            assert (await service.client(vendor, query(vendor, spelled(task)))).status == 200
        refused = await service.native(
            "POST", "/tasks", {"account": ACCOUNT, "contract": "chunkr", "model": "chunkr-parse"}
        )
        assert (refused.status, code_of("ledger", refused)) == (503, "store_unavailable")
        assert refused.json()["detail"] == (
            "the ledger is read-only until its store has been restored; nothing was written"
        )
        assert "page 7" not in refused.body.decode(), "nothing of our disks is told outside"
        assert len((await service.native("GET", "/tasks")).json()["tasks"]) == len(VENDORS)
        ready = await service.ask("GET", "/readyz")
        assert (ready.status, ready.json()["status"]) == (200, "read-only")
        assert all("task-ledger restore" in line["fault"] for line in service.logged("store.failed"))
        assert len(service.logged("store.failed")) == len(VENDORS) + 1


async def test_r07_the_real_server_starts_read_only_says_so_and_its_file_is_restored_up_to_what_is_sound(
    tmp_path: Path,
) -> None:
    path = tmp_path / "ledger.db"
    async with stored.serving(path) as ledger:
        await stored.fill(ledger.engine)
        end = (await ledger.engine.head()).position
    (key,) = await keys_in(path, ("ledger", Role.WORKER))
    zero_half_of(path, "tasks_by_status")
    headers = [("Authorization", f"Bearer {key}")]
    body = msgspec.json.encode({"account": ACCOUNT, "contract": "chunkr", "model": "chunkr-parse"})
    async with Server(path) as server:
        await server.start()
        async with server.wire() as wire:
            assert (await wire.send(request("POST", "/ledger/v1/tasks", headers=headers, body=body))).status == 503
            read = f"/ledger/v1/tasks/{Spelling.UUID.spell(ident(1))}"
            assert (await wire.send(request("GET", read, headers=headers))).status == 200
            assert (await wire.send(request("GET", "/readyz"))).json()["status"] == "read-only"
        assert await server.stop() == 0
        lines = [msgspec.json.decode(line) for line in server.logged().splitlines() if line.startswith("{")]
    (told,) = [line for line in lines if line["event"] == "store.damaged"]
    assert "task-ledger restore" in told["fault"]
    target = tmp_path / "restored.db"
    done = await restore_to(path, target, until=end)
    assert (done.restored, done.left_out) == (True, 1)
    async with Server(target) as server:
        await server.start()
        async with server.wire() as wire:
            assert (await wire.send(request("GET", "/readyz"))).json()["status"] == "ready"
        assert await server.stop() == 0


async def test_what_is_looked_through_can_be_left_in_the_middle(path: Path) -> None:
    engine = await open_to_serve(path)
    engine._health.is_looked_through = False
    looking = asyncio.create_task(engine.look_through())
    await asyncio.sleep(0)
    looking.cancel()
    await asyncio.wait([looking])
    await engine.close()
