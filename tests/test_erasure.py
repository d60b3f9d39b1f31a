"""What a customer has deleted is nowhere any more: in no file, no later copy, no answer and no line of log."""

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import msgspec
import pytest
from msgspec.structs import replace

from ledger import sqlite_wipe
from ledger.commands import Progress
from ledger.ids import Spelling, TaskId
from ledger.keys import Role
from ledger.ledger import Ledger
from ledger.seals import NONCE_BYTES
from ledger.sqlite import open_to_serve
from ledger.sqlite_engine import SqliteEngine
from projections.audit.audit import audit
from tests import stored
from tests.builders import CREATED_US, Watched, cancel, claim, create, delete, ident
from tests.http import MODELS, Call, DeleteAsked, Reported, Service, spell
from tests.processes import Server, keys_in
from tests.serving import ACCOUNT, STRANGER, VENDORS, spelled
from tests.wire import Reply, request

MARK = "nightingale-4711"
MADE = {"assets": [{"kind": "video", "url": f"https://cdn.example.test/{MARK}.mp4"}]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


def files(path: Path) -> bytes:
    """All that lies on the disk of the ledger at *path*: the file, its write-ahead log, and what else there is."""
    return b"".join(one.read_bytes() for one in sorted(path.parent.glob(f"{path.name}*")))


@contextmanager
def by_hand(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def seal_key(path: Path, task: TaskId) -> bytes:
    with by_hand(path) as database:
        (key,) = database.execute("SELECT key FROM seals WHERE task = ?", (task,)).fetchone()
    return bytes(key)


def copied(path: Path) -> bytes:
    """An online copy of the file, as SQLite's own backup makes it beside the server."""
    to = path.with_name("copy.db")
    with by_hand(path) as database, closing(sqlite3.connect(to)) as copy:
        database.backup(copy)
    return to.read_bytes()


# The real server


class Asked:
    """A worker and a customer of the real server."""

    def __init__(self, server: Server, worker: str, customer: str) -> None:
        self._server, self._worker, self._customer = server, worker, customer

    async def native(self, method: str, path: str, body: object = None, *, status: int = 200) -> Any:  # noqa: ANN401
        headers = [("Authorization", f"Bearer {self._worker}")]
        sent = b"" if body is None else msgspec.json.encode(body)
        reply = await self._send(method, request(method, f"/ledger/v1{path}", headers=headers, body=sent))
        assert reply.status == status, reply
        return reply.json()

    async def chunkr(self, method: str, task: str) -> int:
        sent = request(method, f"/chunkr/api/v1/task/{task}", headers=[("Authorization", self._customer)])
        return (await self._send(method, sent)).status

    async def _send(self, method: str, sent: bytes) -> Reply:
        async with self._server.wire() as wire:
            return await wire.send(sent, method=method)

    async def life(self, text: str, *, account: str = ACCOUNT) -> str:
        """A finished task with *text* wherever text can be."""
        content = {"input": {"file": f"https://files.example.test/{text}"}, "metadata": {"note": text}}
        body = {"account": account, "contract": "chunkr", "model": "chunkr-parse", **content}
        task: str = (await self.native("POST", "/tasks", body, status=201))["id"]
        for report in (
            {"type": "progressed", "percent": 10, "message": f"looking at {text}"},
            {"type": "completed", "output": {"pdf_url": f"https://cdn.example.test/{text}"}, "actual_credits": "0.5"},
            {"type": "failed", "code": "late", "message": f"too late for {text}"},
            {"type": "refunded", "amount_credits": "0.1", "key": "goodwill", "reason": f"sorry for {text}"},
        ):
            await self.native("POST", f"/tasks/{task}/events", report)
        return task


@pytest.fixture
async def server(path: Path) -> AsyncIterator[Server]:
    async with Server(path) as real:
        yield real


async def started(server: Server) -> Asked:
    worker, customer = await keys_in(server.path, ("ledger", Role.WORKER), ("chunkr", Role.CLIENT))
    await server.start()
    return Asked(server, worker, customer)


ENDS = ["goes on", "is stopped", "is killed"]


@pytest.mark.parametrize("ends", ENDS)
async def test_s21_of_a_deleted_task_nothing_is_left_anywhere_and_the_books_are_as_they_were(
    server: Server, path: Path, ends: str
) -> None:
    asked = await started(server)
    task, neighbour = await asked.life(MARK), await asked.life("a skylark")
    path_of_task = f"/tasks/{task}"
    key, before = seal_key(path, spelled(task)), await asked.native("GET", path_of_task)
    assert MARK.encode() in files(path), "or what follows shows nothing"
    assert MARK.encode() in copied(path)
    assert key in files(path)

    assert await asked.chunkr("DELETE", task) == 200
    if ends == "is killed":
        await server.kill()
    at_once = files(path) if ends == "is killed" else files(path) + copied(path)
    assert MARK.encode() not in at_once
    assert key not in at_once

    if ends == "is stopped":
        await server.stop()
    if ends != "goes on":
        assert MARK.encode() not in files(path)
        assert key not in files(path)
        await server.start()
    assert await asked.chunkr("GET", task) == 404
    after = await asked.native("GET", path_of_task)
    assert after["billing"] == before["billing"]
    assert after["billing"]["net_credits"] == "0.4"
    assert (after["input"], after["metadata"], after["output"], after["deleted"]) == ({}, {}, None, True)
    assert (await asked.native("GET", f"/tasks/{neighbour}"))["metadata"] == {"note": "a skylark"}
    told = await asked.native("GET", f"{path_of_task}/events")
    assert MARK not in str(told)
    async with stored.reading(path) as engine:
        report = await audit(engine)
    assert (report.found, report.tasks) == (0, 2), report.findings
    await server.stop()
    everything = files(path) + copied(path) + server.logged().encode()
    assert b"http.answered" in everything, "the log was looked at"
    assert MARK.encode() not in everything
    assert key not in everything


async def test_s40_a_deletion_leaves_the_bytes_and_hashes_of_all_other_tasks_and_accounts(
    server: Server, path: Path
) -> None:
    asked = await started(server)
    mine = [await asked.life(MARK) for _ in range(3)]
    for _ in range(3):
        await asked.life(MARK, account=STRANGER)
    deleted = spelled(mine[1])
    before = rows(path)
    assert await asked.chunkr("DELETE", mine[1]) == 200
    after = rows(path)
    *events, last = after["events"]
    assert events == before["events"], "all events with their hashes, its own too"
    assert last["type"] == "deleted"
    for table in ("tasks", "seals", "claims"):
        assert others(after[table], deleted) == others(before[table], deleted)
    assert {row["task"] for row in before["seals"]} - {row["task"] for row in after["seals"]} == {deleted}
    assert money(after) == money(before)


def rows(path: Path) -> dict[str, list[dict[str, Any]]]:
    with by_hand(path) as database:
        database.row_factory = sqlite3.Row
        return {
            table: [dict(row) for row in database.execute(f"SELECT * FROM {table} ORDER BY 1")]  # noqa: S608
            for table in ("events", "tasks", "seals", "claims")
        }


def others(found: list[dict[str, Any]], task: TaskId) -> list[dict[str, Any]]:
    return [row for row in found if row["task"] != task]


def money(found: dict[str, list[dict[str, Any]]]) -> list[tuple[Any, ...]]:
    names = [name for name in found["tasks"][0] if name.endswith("_micros") or name == "account"]
    return [tuple(row[name] for name in names) for row in found["tasks"]]


# The file, however the pages come to lie


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_is_written_around_it_nothing_of_what_was_deleted_is_left_in_the_file(
    path: Path, seed: int
) -> None:
    random, numbers = Random(seed), count(1)
    live: dict[int, bytes] = {}
    gone: dict[int, bytes] = {}
    async with stored.serving(path) as ledger:
        for _ in range(12):
            new = [next(numbers) for _ in range(20)]
            await asyncio.gather(*(ledger.handle(made(number, random)) for number in new))
            live |= {number: seal_key(path, ident(number)) for number in new}
            talk = [told(number, random) for number in random.choices([*live], k=40)]
            await asyncio.gather(*map(ledger.handle, talk))
            over = random.sample([*live], k=random.randrange(15))
            await asyncio.gather(*(ledger.handle(cancel(ident(number))) for number in over))
            await asyncio.gather(*(ledger.handle(delete(ident(number))) for number in over))
            gone |= {number: live.pop(number) for number in over}
            there = files(path)
            assert not [number for number in gone if mark(number) in there or gone[number] in there]
        assert all(mark(number) in there and live[number] in there for number in live)
        assert (await audit(ledger.engine)).found == 0
    assert len(gone) > 30


def mark(number: int) -> bytes:
    return f"<{number:06}>".encode()


def text(number: int, random: Random) -> str:
    return mark(number).decode() * random.choice([1, 3, 40, 200, 900])


def made(number: int, random: Random) -> Any:  # noqa: ANN401 - a command
    return create(ident(number), input={"prompt": text(number, random)})


def told(number: int, random: Random) -> Progress:
    return Progress(task_id=ident(number), at_us=CREATED_US, actor="w", message=text(number, random))


# Those who read meanwhile


class Held(NamedTuple):
    """A ledger whose task has been deleted while somebody reads an older state of it."""

    ledger: Ledger
    reader: sqlite3.Connection
    key: bytes


@pytest.fixture
async def held_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Held]:
    monkeypatch.setattr(sqlite_wipe, "AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(sqlite_wipe, "CLOSING_PATIENCE_MS", 10)
    async with stored.serving(path) as ledger:
        await ledger.handle(create(ident(1), input={"prompt": MARK}))
        await ledger.handle(cancel(ident(1)))
        key = seal_key(path, ident(1))
        with by_hand(path) as reader:
            reader.execute("BEGIN")
            assert reader.execute("SELECT count(*) FROM seals").fetchone() == (1,)
            await ledger.handle(delete(ident(1)))
            yield Held(ledger, reader, key)


async def cut(path: Path) -> None:
    """Returns when the write-ahead log is empty."""
    async with asyncio.timeout(10):
        while path.with_name("ledger.db-wal").stat().st_size:  # noqa: ASYNC110 - a file tells nobody how long it is
            await asyncio.sleep(0.01)


async def test_a_reader_holds_the_wiping_up_and_nothing_else_and_when_it_is_gone_so_is_the_text(
    held_up: Held, path: Path
) -> None:
    assert MARK.encode() in files(path), "the reader may still read it"
    await held_up.ledger.handle(create(ident(2)))
    await asyncio.sleep(0.1)
    assert held_up.key in files(path)
    held_up.reader.execute("COMMIT")
    await cut(path)
    assert MARK.encode() not in files(path)
    assert held_up.key not in files(path)
    assert (await audit(held_up.ledger.engine)).found == 0


async def test_a_ledger_is_closed_while_the_wiping_is_held_up_and_the_next_one_wipes(
    held_up: Held, path: Path, tmp_path: Path
) -> None:
    died = tmp_path / "died" / "ledger.db"
    died.parent.mkdir()
    for name in ("ledger.db", "ledger.db-wal"):  # as a process leaves them that is killed now
        shutil.copy(path.with_name(name), died.with_name(name))
    await held_up.ledger.close()
    assert held_up.key in files(path)
    assert held_up.key in files(died)
    assert isinstance(held_up.ledger.engine, SqliteEngine)
    assert not held_up.ledger.engine.is_wiped
    held_up.reader.close()
    for left in (path, died):
        async with stored.serving(left) as ledger:
            assert held_up.key not in files(left)
            assert MARK.encode() not in files(left)
            assert (await audit(ledger.engine)).found == 0


async def test_a_ledger_that_is_closed_waits_for_the_reader_a_while_so_that_nothing_is_left(
    held_up: Held, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_wipe, "AGAIN_SECONDS", 60.0)
    monkeypatch.setattr(sqlite_wipe, "CLOSING_PATIENCE_MS", 10_000)
    other = sqlite3.connect(path)  # so that ours is not the last to close, which would cut by itself
    closing_down = asyncio.create_task(held_up.ledger.close())
    await asyncio.sleep(0.1)
    assert held_up.key in files(path)
    held_up.reader.execute("COMMIT")
    await closing_down
    other.close()
    assert held_up.key not in files(path)
    assert isinstance(held_up.ledger.engine, SqliteEngine)
    assert held_up.ledger.engine.is_wiped


async def test_a_server_that_stops_while_the_wiping_is_held_up_says_so(server: Server, path: Path) -> None:
    asked = await started(server)
    task = await asked.life(MARK)
    with by_hand(path) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM seals").fetchone() == (1,)
        assert await asked.chunkr("DELETE", task) == 200
        await server.stop()
        assert '"store.not_wiped"' in server.logged()
        assert MARK.encode() in files(path)
    await server.start()
    await server.stop()
    assert server.logged().count("store.not_wiped") == 1
    assert MARK.encode() not in files(path)


# Its own readers


SLOW = """
WITH RECURSIVE n (x) AS (SELECT position FROM lanes UNION ALL SELECT x + 1 FROM n WHERE x < ?) SELECT max(x) FROM n
"""
"""A read of the store that takes long."""


async def test_what_the_server_itself_reads_meanwhile_does_not_hold_the_wiping_up(path: Path) -> None:
    engine = await open_to_serve(path)
    async with Ledger(engine) as ledger:
        await ledger.handle(create(ident(1), input={"prompt": MARK}))
        await ledger.handle(cancel(ident(1)))
        key = seal_key(path, ident(1))
        reads = [asyncio.create_task(engine._read(SLOW, (1_000_000,))) for _ in range(3)]
        await asyncio.sleep(0.01)
        await ledger.handle(delete(ident(1)))
        assert key not in files(path)
        assert MARK.encode() not in files(path)
        assert [[tuple(row) for row in rows] for rows in await asyncio.gather(*reads)] == [[(1_000_000,)]] * 3


async def test_who_waits_for_the_end_of_one_wiping_does_not_read_during_the_next(path: Path) -> None:
    engine = await open_to_serve(path)
    try:
        async with engine._reading.paused():
            waiting = asyncio.create_task(engine.head())
            await asyncio.sleep(0)
        async with engine._reading.paused():
            await asyncio.sleep(0.02)
            assert not waiting.done()
        assert (await waiting).position == 0
    finally:
        await engine.close()


async def test_trouble_with_the_wiping_fails_no_commit_and_it_is_tried_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_wipe, "AGAIN_SECONDS", 0.01)
    async with stored.serving(path) as ledger:
        await ledger.handle(create(ident(1), input={"prompt": MARK}))
        await ledger.handle(cancel(ident(1)))
        with monkeypatch.context() as broken:
            broken.setattr(sqlite_wipe, "_CUT", "PRAGMA wal_checkpoint(")
            assert (await ledger.handle(delete(ident(1)))).task.deleted
            assert MARK.encode() in files(path)
        await cut(path)
        assert MARK.encode() not in files(path)


async def test_a_commit_that_erases_nothing_leaves_the_write_ahead_log_alone(path: Path) -> None:
    async with stored.serving(path) as ledger:
        await ledger.handle(create(ident(1)))
        await ledger.handle(cancel(ident(1)))
        assert path.with_name("ledger.db-wal").stat().st_size > 0


async def test_the_commits_after_a_wiping_wait_for_locks_as_long_as_those_before(path: Path) -> None:
    engine = await open_to_serve(path)
    try:
        assert isinstance(engine, SqliteEngine)
        assert engine._writer is not None
        await engine.wipe()
        assert [tuple(row) for row in await engine._writer.execute_fetchall("PRAGMA busy_timeout")] == [(5000,)]
    finally:
        await engine.close()


# In memory, and in what is answered


CREATES: dict[str, tuple[Call, dict[str, str]]] = {
    "lemondata": (Call("POST", "/v1/videos/generations", b'{"model":"seedance-2.0","prompt":"%s"}'), {}),
    "bytespike": (
        Call("POST", "/v1/tasks/submit", b'{"model":"wan-2.6","params":{"prompt":"%s"},"out_task_id":"order-1"}'),
        {},
    ),
    "chunkr": (Call("POST", "/api/v1/task/parse", b'{"file":"https://files.example.test/%s"}'), {}),
    "beatra": (Call("POST", "/v1/images/generations", b'{"prompt":"%s","n":1}'), {}),
}


def asking(contract: str, prompt: str) -> Call:
    call, _ = CREATES[contract]
    assert call.body is not None
    return call._replace(body=call.body % prompt.encode())


@pytest.mark.parametrize("contract", VENDORS)
async def test_a_create_that_comes_again_after_the_deletion_shows_its_first_answer_without_the_text(
    service: Service, contract: str
) -> None:
    key = {"Idempotency_Key": "k1"}
    first = await service.ask(contract, asking(contract, MARK), **key)
    assert first.status in {200, 201, 202}, first
    (listed,) = (await service.native("GET", "/tasks")).json()["tasks"]
    task = spelled(listed["id"])
    await service.go_on(task, Reported({"type": "completed", "output": MADE}))
    assert MARK in str((await service.seen(task))["input"])
    await service.go_on(task, DeleteAsked())
    assert (await service.query(contract, task)).status == 404
    again = await service.ask(contract, asking(contract, MARK), **key)
    assert again.status == first.status
    assert MARK not in again.body
    assert spell(contract, task) in again.body
    other = await service.ask(contract, asking(contract, "another text"), **key)
    assert other.status in {400, 409, 422}
    assert MARK not in other.body
    assert (await service.types(task))[-1] == "deleted", "nothing was added"


async def test_the_history_of_a_task_shows_its_content_until_it_is_deleted_and_then_says_so(service: Service) -> None:
    task = await service.make("chunkr", input={"file": MARK})
    await service.go_on(task, Reported({"type": "completed", "output": MADE}))
    path = f"/tasks/{Spelling.UUID.spell(task)}/events"
    before = (await service.native("GET", path)).json()["events"]
    assert [(event["type"], event["payload"], event["erased"]) for event in before] == [
        ("created", {"input": {"file": MARK}}, False),
        ("started", None, False),
        ("completed", {"output": MADE}, False),
        ("charged", None, False),
    ]
    await service.go_on(task, DeleteAsked())
    *after, deleted = (await service.native("GET", path)).json()["events"]
    for event in before:
        if event["payload"] is not None:
            event |= {"payload": None, "erased": True}
    assert after == before, "the facts and the hashes are as they were"
    assert (deleted["type"], deleted["payload"], deleted["erased"]) == ("deleted", None, False)


async def test_what_is_in_memory_of_a_deleted_task_is_its_emptied_view_and_no_key(service: Service) -> None:
    task = await service.make("lemondata", input={"prompt": MARK})
    await service.go_on(task, Reported({"type": "completed", "output": MADE}))
    assert MARK in (await service.query("lemondata", task)).body
    seen = service.ledger.views.cached(task)
    assert seen is not None
    assert (seen.seal_key is not None, len(seen.answers)) == (True, 1)
    await service.go_on(task, DeleteAsked())
    seen = service.ledger.views.cached(task)
    assert seen is not None
    assert (seen.seal_key, seen.answers) == (None, {})
    assert MARK not in repr(seen.task)


async def test_a_fingerprint_of_the_same_request_is_another_one_in_another_log(
    service: Service, tmp_path: Path
) -> None:
    body = {"account": ACCOUNT, "contract": "chunkr", "model": MODELS["chunkr"], "input": {"file": MARK}}
    await service.native("POST", "/tasks", body | {"out_task_id": "o1"}, role=Role.WORKER)
    kept = (await service.ledger.engine.after(0, 10))[-1].event.claims[0]
    asked = (claim(fingerprint="f"),)
    assert len(kept.fingerprint) == 64
    async with stored.serving(tmp_path / "other.db") as other:
        (here,), (there,) = service.ledger.keys.keyed(asked), other.keys.keyed(asked)
        assert "f" != here.fingerprint != there.fingerprint
        assert service.ledger.keys.keyed(asked) == (here,)


async def test_what_is_decided_anew_is_sealed_anew_since_the_first_may_lie_on_the_disk(watched: Watched) -> None:
    async with Ledger(watched) as ledger:
        await ledger.handle(create(ident(1)))
        watched.commit_faults.append(ValueError("a batch that cannot be written, as a whole"))
        talk = [told(1, Random(second)) for second in range(2)]
        await asyncio.gather(*(ledger.handle(replace(one, message=f"m{n}")) for n, one in enumerate(talk)))
        offered = [entry for batch in watched.commits for append in batch for entry in append.entries]
        nonces = [entry.payload[1 : 1 + NONCE_BYTES] for entry in offered if entry.payload is not None]
        assert len(nonces) == 1 + 2 + 2, "the creation; both in one batch, which failed; each by itself"
        assert len(set(nonces)) == len(nonces)
        keys = [append.seal_key for batch in watched.commits for append in batch]
        assert [key is None for key in keys] == [False] + [True] * 4, "the key comes with the first content alone"
        assert (await audit(ledger.engine)).found == 0
