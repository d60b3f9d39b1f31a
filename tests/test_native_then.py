"""``at`` and ``clock`` in the native API: a task, and a list of tasks, as they stood."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ledger.times import rfc3339
from tests.builders import ENGINES
from tests.serving import Service, serving, spelled


@pytest.fixture(params=ENGINES)
async def service(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Service]:
    async with serving(await ENGINES[request.param].open(tmp_path)) as running:
        yield running


async def shown(service: Service, path: str) -> dict[str, Any]:
    reply = await service.native("GET", path, key=service.worker)
    assert reply.status == 200, reply
    found: dict[str, Any] = reply.json()
    return found


async def test_a_task_is_shown_as_it_was_after_each_of_its_events(service: Service) -> None:
    created = await service.create(input={"prompt": "a cat"})
    started = await service.reported(created["id"], "started", worker="w1")
    completed = await service.reported(created["id"], "completed", output={"assets": []})
    events = await service.history(created["id"])
    for view in (created, started, completed):
        position = events[view["version"] - 1]["position"]
        assert await shown(service, f"/tasks/{created['id']}?at={position}") == view


async def test_before_it_was_created_there_is_no_such_task(service: Service) -> None:
    before = await service.position()
    task = (await service.create())["id"]
    reply = await service.native("GET", f"/tasks/{task}?at={before}")
    assert (reply.status, reply.json()["code"]) == (404, "task_not_found")


async def test_what_was_deleted_since_has_no_content_in_the_past(service: Service) -> None:
    task = await service.bring(status="completed", contract="chunkr", input={"file": "secret"})  # type: ignore[arg-type]
    at = await service.position()
    reply = await service.ask("DELETE", f"/chunkr/api/v1/task/{task['id']}", key=await service.key("chunkr"))
    assert reply.status == 200, reply
    past = await shown(service, f"/tasks/{task['id']}?at={at}")
    assert (past["status"], past["deleted"], past["input"]) == ("completed", False, {})


async def test_by_effective_time_a_report_counts_from_when_it_happened(service: Service) -> None:
    task = (await service.create())["id"]
    created_us, happened_us = service.clock(), service.clock() + 1_000_000
    service.clock.now_us = created_us + 9_000_000
    await service.reported(task, "started", effective_at=rfc3339(happened_us))
    for at_us, clock, status in [
        (happened_us, "effective", "running"),
        (happened_us - 1, "effective", "queued"),
        (happened_us, "recorded", "queued"),
        (service.clock(), "recorded", "running"),
    ]:
        path = f"/tasks/{task}?at={rfc3339(at_us)}&clock={clock}".replace("+", "%2B")
        assert (await shown(service, path))["status"] == status, (at_us, clock)


async def test_a_list_has_the_tasks_and_their_statuses_of_then(service: Service) -> None:
    first, second = (await service.create())["id"], (await service.create())["id"]
    await service.reported(first, "started")
    then = await service.position()
    await service.reported(second, "started")
    await service.create()
    for status, wanted in (("queued", [second]), ("running", [first]), ("completed", [])):
        page = await shown(service, f"/tasks?at={then}&status={status}")
        assert ([one["id"] for one in page["tasks"]], page["has_more"]) == (wanted, False)
    page = await shown(service, f"/tasks?at={then}&limit=1&order=asc")
    rest = await shown(service, f"/tasks?at={then}&limit=1&order=asc&cursor={page['next_cursor']}")
    assert [one["id"] for one in page["tasks"] + rest["tasks"]] == sorted([first, second], key=spelled)


@pytest.mark.parametrize("of_now", ["/tasks?stalled=true", "/tasks/{task}?wait=1"])
async def test_what_is_of_now_is_refused_beside_a_moment(service: Service, of_now: str) -> None:
    task, at = (await service.create())["id"], await service.position()
    reply = await service.native("GET", f"{of_now.format(task=task)}&at={at}")
    assert (reply.status, reply.json()["code"], reply.json()["param"]) == (422, "invalid_request", "at"), reply
