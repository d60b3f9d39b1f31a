"""The feed against the log, under writers who are delayed and roll back, and under a server that is killed.

Scenarios S32 (the same facts are readable by cursor), S33 (a late notice overwrites nothing), S39 (nothing committed is
skipped) and S45 (acknowledged, then lost).
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ledger.errors import StorageError
from ledger.ids import ENTROPY_BYTES, TaskId, task_id
from ledger.keys import Role
from ledger.ledger import Ledger
from ledger.records import Append, Outcome, TaskFilter
from tests.builders import ENGINES, Watched, complete, create, start, whole_log
from tests.processes import Server, keys_in
from tests.serving import Service, serving
from tests.streams import Ended, Event, stream
from tests.test_feed import SSE, page
from tests.wire import Cut, request

WRITERS = 16
TASKS_EACH = 25
SEED = 2026


class Unsteady(Watched):
    """An engine whose commits take their time, and of which each tenth is rolled back."""

    chance: random.Random

    async def commit(self, batch: Sequence[Append]) -> list[Outcome]:
        await asyncio.sleep(self.chance.uniform(0, 0.004))
        if self.chance.random() < 0.1:
            raise StorageError("rolled back")
        return await super().commit(batch)


@pytest.fixture(params=sorted(ENGINES))
async def service(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Service]:
    engine = Unsteady(await ENGINES[request.param].open(tmp_path))
    engine.chance = random.Random(f"steady {SEED}")
    engine.chance.random = lambda: 1.0  # type: ignore[method-assign]  # until the keys are issued
    async with serving(engine) as running:
        del engine.chance.random
        yield running


async def write(ledger: Ledger, chance: random.Random) -> list[TaskId]:
    """Tasks that live, each named when its request comes and written some time after; those that were taken."""
    taken = []
    for _ in range(TASKS_EACH):
        task = task_id(at_us=time.time_ns() // 1000, lane=0, entropy=chance.randbytes(ENTROPY_BYTES))
        await asyncio.sleep(chance.uniform(0, 0.01))
        try:
            await ledger.handle(create(task))
            taken.append(task)
            await ledger.handle(start(task))
            await ledger.handle(complete(task))
        except StorageError:
            continue
    return taken


async def by_page(service: Service, done: asyncio.Event) -> list[int]:
    """The positions that a reader of pages is told, who waits for what comes."""
    found: list[int] = []
    after = "end"
    while True:
        is_last = done.is_set()
        read = await page(service, f"?limit=7&wait=1&after={after}")
        found += [one["position"] for one in read["events"]]
        after = read["next_cursor"]
        if is_last and not read["has_more"] and not read["events"]:
            return found


async def by_stream(service: Service, done: asyncio.Event, chance: random.Random) -> list[int]:
    """The positions that a reader of streams is told, who is cut off every few events and comes back."""
    found: list[int] = []
    last_id: str | None = None
    while True:
        headers = SSE if last_id is None else SSE | {"Last-Event-ID": last_id}
        async with stream(service.port, "/ledger/v1/events?after=end", key=service.operator, headers=headers) as reader:
            for _ in range(chance.randrange(1, 40)):
                is_last = done.is_set()
                try:
                    event: Event = await reader.next(seconds=1)
                except TimeoutError:
                    if is_last:
                        return found
                    break
                found.append(event.json()["position"])
                last_id = event.last_id
            last_id = last_id or reader.last_id


async def by_name(ledger: Ledger, done: asyncio.Event) -> list[TaskId]:
    """The tasks that a naive reader finds, who asks for what has been named after the last one that he has seen."""
    found: list[TaskId] = []
    while True:
        is_last = done.is_set()
        last = found[-1] if found else None
        rows = await ledger.engine.page(TaskFilter(after=last, oldest_first=True, limit=50))
        found += [placed.row.task_id for placed in rows]
        if is_last and not rows:
            return found
        await asyncio.sleep(0.002)


async def test_r22_s39_behind_sixteen_writers_who_are_late_and_roll_back_a_reader_misses_nothing(
    service: Service,
) -> None:
    """The control is a reader in the order of time, as tasks are named by it: he does miss some."""
    ledger, done, before = service.ledger, asyncio.Event(), await service.position()
    readers = [
        asyncio.create_task(by_page(service, done)),
        asyncio.create_task(by_stream(service, done, random.Random(f"stream {SEED}"))),
    ]
    control = asyncio.create_task(by_name(ledger, done))
    await asyncio.sleep(0.2)
    wrote = await asyncio.gather(*(write(ledger, random.Random(f"{SEED} {number}")) for number in range(WRITERS)))
    done.set()
    log = await whole_log(ledger.engine)
    taken = {task for some in wrote for task in some}
    assert {TaskId(row.stream) for row in log if row.entry.type == "created"} == taken
    assert WRITERS * TASKS_EACH * 0.5 < len(taken) < WRITERS * TASKS_EACH, "some were rolled back, and not most"
    for reader in readers:
        assert await reader == [*range(before + 1, len(log) + 1)]
    seen = await control
    assert len(taken - set(seen)) > 0, "the control misses nothing: this test is too weak"


async def test_s45_nothing_is_told_that_is_not_durable(tmp_path: Path) -> None:
    """The writer is held up with its commit unanswered, and the one after it undone."""
    watched = Watched(await ENGINES["sqlite"].open(tmp_path))
    async with serving(watched) as service:
        watched.commit_gate.shut()
        watched.commit_faults.append(StorageError("undone"))
        waiting = asyncio.create_task(page(service, "?after=end&wait=2"))
        lost = asyncio.create_task(service.native("POST", "/tasks", order(), key=service.worker))
        await watched.commit_gate.someone_waits()
        assert (await waiting)["events"] == []
        watched.commit_gate.open()
        assert (await lost).status == 503
        waiting = asyncio.create_task(page(service, "?after=end&wait=30"))
        await asyncio.sleep(0.1)
        task = await service.create()
        assert {one["task"] for one in (await waiting)["events"]} == {task["id"]}


def order() -> dict[str, Any]:
    return {"account": "acme", "contract": "lemondata", "model": "seedance-2.0"}


async def test_a_failure_that_is_told_after_the_success_is_in_the_feed_and_changes_nothing(service: Service) -> None:
    before = (await page(service, "?after=end"))["next_cursor"]

    async def surely(kind: str, **fields: str) -> dict[str, Any]:
        while (reply := await service.report(task, kind, **fields)).status == 503:
            pass
        assert reply.status == 200
        shown: dict[str, Any] = reply.json()
        return shown

    reply = await service.native("POST", "/tasks", order(), key=service.worker)
    while reply.status == 503:
        reply = await service.native("POST", "/tasks", order(), key=service.worker)
    task = reply.json()["id"]
    await surely("completed")
    shown = await surely("failed", code="timeout")
    assert (shown["status"], shown["late"]) == ("completed", True)
    types = [one["type"] for one in (await page(service, f"?after={before}"))["events"]]
    assert types[-1] == "late-reported"
    assert "failed" not in types


async def test_s45_what_was_acknowledged_is_in_the_feed_of_the_server_that_comes_back(tmp_path: Path) -> None:
    """Killed three times under eight writers; the reader goes on with the last id that he has seen, each time."""
    path = tmp_path / "ledger.db"
    worker, operator = await keys_in(path, ("ledger", Role.WORKER), ("ledger", Role.OPERATOR))
    acknowledged: list[str] = []
    told: list[dict[str, Any]] = []
    last_id = ""
    async with Server(path) as server:
        for _ in range(3):
            await server.start()
            writers = [asyncio.create_task(create_on(server, worker, acknowledged)) for _ in range(8)]
            goal = len(acknowledged) + 60
            try:
                headers = SSE | ({"Last-Event-ID": last_id} if last_id else {})
                target = "/ledger/v1/events"
                async with stream(server.port, target, key=operator, headers=headers) as reader:
                    while len(acknowledged) < goal:
                        event = await reader.next()
                        told.append(event.json())
                        last_id = event.last_id
                    await server.kill()
                    while True:
                        event = await reader.next()
                        told.append(event.json())
                        last_id = event.last_id
            except Ended:
                await asyncio.gather(*writers)
        await server.start()
        async with stream(
            server.port, "/ledger/v1/events", key=operator, headers=SSE | {"Last-Event-ID": last_id}
        ) as reader:
            missing = set(acknowledged) - {one["task"] for one in told}
            while missing:
                told.append((await reader.next()).json())
                missing.discard(told[-1]["task"])
        await server.stop()
    assert [one["position"] for one in told] == [*range(1, len(told) + 1)]


async def create_on(server: Server, key: str, acknowledged: list[str]) -> None:
    """Create tasks until the server is gone."""
    body = b'{"account":"acme","contract":"lemondata","model":"seedance-2.0"}'
    asked = request("POST", "/ledger/v1/tasks", headers=[("Authorization", f"Bearer {key}")], body=body)
    async with server.wire() as wire:
        while True:
            try:
                reply = await wire.send(asked)
            except Cut:
                return
            assert reply.status == 201
            acknowledged.append(reply.json()["id"])
