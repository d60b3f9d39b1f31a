"""Waiting for a task in place of polling it: woken by its own change and nothing else, and for nobody's harm.

Scenarios S30 (a timeout is no verdict) and S41 (serial polling collapses: stuck tasks hold up no other).
"""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import TypeVar

import pytest

from api import stays
from api.stays import StayLimits
from ledger.changes import Changes
from ledger.errors import DamagedError, Fault, StorageError
from ledger.ids import TaskId
from ledger.keys import Role, parse
from ledger.memory import MemoryEngine
from ledger.records import Head
from ledger.task import Status
from ledger.views import Seen
from tests.builders import ENGINES, Watched, ident
from tests.processes import ROOT
from tests.serving import Service, serving, spelled
from tests.streams import Stream, stream
from tests.wire import Reply
from tests.worded import code_of

T = TypeVar("T")
WAIT = "?wait=50"
"""Longer than any test waits."""


@pytest.fixture(params=sorted(ENGINES))
async def service(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Service]:
    async with serving(await ENGINES[request.param].open(tmp_path)) as running:
        yield running


async def waits(service: Service, waiting: asyncio.Task[T], *, tasks: int = 1) -> None:
    """Returns once so many tasks are waited for; *waiting* must be among those who wait."""
    async with asyncio.timeout(20):
        while service.ledger.views.changes.awaited < tasks:  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0.005)
    assert not waiting.done()


async def soon(waiting: Awaitable[T]) -> T:
    async with asyncio.timeout(20):
        return await waiting


def polled(service: Service, task: str, query: str = WAIT, **headers: str) -> asyncio.Task[Reply]:
    return asyncio.create_task(service.native("GET", f"/tasks/{task}{query}", key=service.worker, **headers))


# What is waited for


async def test_a_poll_is_answered_when_the_task_changes(service: Service) -> None:
    task = await service.create()
    waiting = polled(service, task["id"])
    await waits(service, waiting)
    after = await service.reported(task["id"], "started")
    reply = await soon(waiting)
    assert (reply.status, reply.json()) == (200, after)
    assert reply.headers["etag"] == f'"{after["version"]}"'


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.FAILED, Status.CANCELLED])
async def test_a_task_that_is_over_is_not_waited_for(service: Service, status: Status) -> None:
    task = await service.bring(status)
    assert (await soon(polled(service, task["id"]))).json() == task


async def test_what_the_client_has_seen_is_waited_beyond(service: Service) -> None:
    task = await service.bring(Status.RUNNING)
    waiting = polled(service, task["id"], If_None_Match=f'"{task["version"]}"')
    await waits(service, waiting)
    after = await service.reported(task["id"], "progressed", percent=5)
    assert (await soon(waiting)).json() == after


async def test_what_the_client_has_missed_is_told_at_once(service: Service) -> None:
    task = await service.bring(Status.RUNNING)
    assert (await soon(polled(service, task["id"], If_None_Match='"2"'))).json() == task


@pytest.mark.parametrize("status", [Status.QUEUED, Status.COMPLETED])
async def test_in_vain_it_is_a_304_for_who_has_seen_the_task_and_the_task_for_who_has_not(
    service: Service, status: Status
) -> None:
    task = await service.bring(status)
    reply = await polled(service, task["id"], "?wait=1", If_None_Match=f'"{task["version"]}"')
    assert (reply.status, reply.body, reply.headers["etag"]) == (304, b"", f'"{task["version"]}"')
    assert (await polled(service, task["id"], "?wait=1")).json() == task


async def test_a_wait_in_vain_changes_nothing_for_a_timeout_is_no_verdict(service: Service) -> None:
    task = await service.bring(Status.RUNNING)
    position = await service.position()
    assert (await polled(service, task["id"], "?wait=1")).json() == task
    assert await service.position() == position
    done = await service.reported(task["id"], "completed", actual_credits="1")
    assert (done["status"], done["billing"]["charged_credits"]) == ("completed", "1")


async def test_a_change_between_the_look_and_the_wait_is_not_missed(service: Service) -> None:
    task = (await service.create())["id"]
    version = 2
    for percent in range(1, 41):
        waiting = polled(service, task, If_None_Match=f'"{version}"')
        await asyncio.sleep(0.0005 * (percent % 5))
        await service.reported(task, "progressed", percent=percent)
        shown = (await soon(waiting)).json()
        assert shown["version"] > version
        version = (await service.task(task))["version"]


async def test_no_such_task_is_not_waited_for(service: Service) -> None:
    reply = await soon(polled(service, "019ab1c2-7d04-78a5-9bcd-0123456789ab"))
    assert (reply.status, code_of("ledger", reply)) == (404, "task_not_found")


# Who is woken


async def test_nobody_is_woken_by_another_tasks_change(service: Service) -> None:
    task, other = (await service.create())["id"], (await service.create())["id"]
    waiting = polled(service, task)
    await waits(service, waiting)
    looked = Looked(service, task)
    for percent in range(1, 6):
        await service.reported(other, "progressed", percent=percent)
    assert looked.count == 0
    await service.reported(task, "started")
    await soon(waiting)
    assert looked.count > 0


class Looked:
    """How often one task has been looked up since."""

    def __init__(self, service: Service, task: str) -> None:
        self.count = 0
        self._cached, self._task = service.ledger.views.cached, spelled(task)
        service.ledger.views.cached = self._look  # type: ignore[method-assign]

    def _look(self, task: TaskId) -> Seen | None:
        self.count += task == self._task
        return self._cached(task)


async def test_all_who_wait_for_a_task_are_told_of_it_and_stuck_ones_hold_up_nobody() -> None:
    """As many as a test may have: 50 tasks that never end beside 200 that do, each with a worker who waits for it."""
    async with serving(MemoryEngine()) as service:
        stuck = [(await service.create())["id"] for _ in range(50)]
        live = [(await service.create())["id"] for _ in range(200)]
        waiting = {task: polled(service, task) for task in stuck + live}
        await waits(service, waiting[stuck[0]], tasks=250)
        for task in live:
            await service.reported(task, "completed")
            shown = (await soon(waiting[task])).json()
            assert (shown["id"], shown["status"]) == (task, "completed")
        assert not any(waiting[task].done() for task in stuck)
        for task in stuck:
            await service.reported(task, "failed", code="stuck")
            await soon(waiting[task])
        assert service.ledger.views.changes.awaited == 0, "whoever has been told waits no longer"


def test_what_nobody_waits_for_is_told_to_nobody_and_kept_nowhere() -> None:
    changes = Changes()
    with changes.of(ident(1)) as first, changes.of(ident(1)) as second, changes.of(ident(2)) as other:
        changes.tell(ident(1))
        changes.tell(ident(3))
        assert (first.is_set(), second.is_set(), other.is_set()) == (True, True, False)
        assert changes.awaited == 2
        changes.tell_all()
        assert other.is_set()
    assert changes.awaited == 0


# Bounds, and ends before the time


async def test_more_than_may_wait_are_told_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stays, "LOOK_SECONDS", 0.05)
    async with serving(MemoryEngine(), waiting=StayLimits(requests_max=3, account_max=2)) as service:
        task = (await service.create())["id"]
        waiting = [polled(service, task) for _ in range(2)]
        await waits(service, waiting[0])
        await asyncio.sleep(0.05)
        reply = await soon(polled(service, task))
        assert (reply.status, code_of("ledger", reply), reply.headers["retry-after"]) == (503, "overloaded", "5")
        assert (await service.native("GET", f"/tasks/{task}", key=service.worker)).status == 200, "others are served"
        another = await service.key("ledger", account="another", role=Role.WORKER)
        third = asyncio.create_task(service.native("GET", f"/tasks/{task}{WAIT}", key=another))
        await asyncio.sleep(0.05)
        fourth = await service.key("ledger", account="a-fourth", role=Role.WORKER)
        assert (await soon(service.native("GET", f"/tasks/{task}{WAIT}", key=fourth))).status == 503
        await service.reported(task, "started")
        assert {(await soon(one)).status for one in [*waiting, third]} == {200}
        again = polled(service, task)
        await waits(service, again)
        await service.reported(task, "completed")
        assert (await soon(again)).status == 200


async def test_who_hangs_up_gives_his_place_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stays, "LOOK_SECONDS", 0.05)
    async with serving(MemoryEngine()) as service:
        task = (await service.create())["id"]
        answer = asyncio.create_task(head(service, f"/ledger/v1/tasks/{task}{WAIT}"))
        await waits(service, answer)
        answer.cancel()
        await asyncio.wait([answer])
        async with asyncio.timeout(20):
            while service.ledger.views.changes.awaited:  # noqa: ASYNC110 - nobody is told
                await asyncio.sleep(0.01)


async def head(service: Service, target: str, *, key: str | None = None) -> Stream:
    """The answer to a GET on a connection of its own."""
    async with stream(service.port, target, key=key or service.worker) as answer:
        return answer


async def test_a_stop_answers_those_who_wait_with_what_there_is() -> None:
    async with serving(MemoryEngine()) as service:
        task = await service.create()
        answer = asyncio.create_task(head(service, f"/ledger/v1/tasks/{task['id']}{WAIT}"))
        await waits(service, answer)
    found = await soon(answer)
    assert (found.status, found.headers["etag"]) == (200, '"2"')


async def test_a_key_that_dies_meanwhile_is_told_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stays, "LOOK_SECONDS", 0.05)
    async with serving(MemoryEngine()) as service:
        task = (await service.create())["id"]
        key = await service.key("ledger", account="another", role=Role.WORKER)
        waiting = asyncio.create_task(service.native("GET", f"/tasks/{task}{WAIT}", key=key))
        await waits(service, waiting)
        token = parse(key)
        assert token is not None
        await service.native("DELETE", f"/keys/{token.key_id}")
        reply = await soon(waiting)
        assert (reply.status, code_of("ledger", reply)) == (401, "revoked_api_key")


async def test_keys_are_read_only_when_the_log_has_grown_and_each_once_for_all_who_show_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stays, "LOOK_SECONDS", 0.02)
    watched = Watched(MemoryEngine())
    async with serving(watched) as service:
        task, other = (await service.create())["id"], (await service.create())["id"]
        waiting = [polled(service, task) for _ in range(20)]
        await waits(service, waiting[0])
        await asyncio.sleep(0.2)
        watched.key_reads.clear()
        await asyncio.sleep(0.3)
        assert watched.key_reads == []
        await service.reported(other, "started")
        await asyncio.sleep(0.3)
        assert len(watched.key_reads) < 5
        await service.reported(task, "started")
        await asyncio.gather(*waiting)


@pytest.mark.parametrize("fault", [StorageError("the disk is gone"), DamagedError("a row cannot be read")])
async def test_the_store_may_be_gone_for_a_while_and_those_who_wait_wait_on(
    monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    monkeypatch.setattr(stays, "LOOK_SECONDS", 0.02)

    class Failing(Watched):
        fails = False

        async def head(self) -> Head:
            if self.fails:
                raise fault
            return await super().head()

    engine = Failing(MemoryEngine())
    async with serving(engine) as service:
        task = (await service.create())["id"]
        other = await service.key("ledger", account="another", role=Role.WORKER)
        revoked = parse(other).key_id  # type: ignore[union-attr]
        others = asyncio.create_task(service.native("GET", f"/tasks/{task}{WAIT}", key=other))
        waiting = polled(service, task)
        await waits(service, waiting)
        engine.fails = True
        await asyncio.sleep(0.2)
        assert not waiting.done()
        engine.fails = False
        await service.native("DELETE", f"/keys/{revoked}")
        assert (await soon(others)).status == 401, "and they are looked after still"
        await service.reported(task, "started")
        assert (await soon(waiting)).status == 200


# As many as there are files


def test_the_service_may_have_as_many_files_open_as_its_limit_allows() -> None:
    """Begun with fewer, as a login shell begins."""
    script = (
        "import resource, scripts.listening as one; most = resource.getrlimit(resource.RLIMIT_NOFILE)[1];"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, most)); one.allow_files();"
        "assert resource.getrlimit(resource.RLIMIT_NOFILE) == (most, most)"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)
