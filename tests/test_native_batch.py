"""Many reports in one request: a line each, taken or refused each by itself, and told so each."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from api.native_batch import LINES_MAX
from ledger.errors import StorageError
from ledger.memory import MemoryEngine
from ledger.task import Status
from tests.builders import ENGINES, Watched, whole_ledger
from tests.serving import ROUTES, Service, serving
from tests.wire import Reply
from tests.worded import code_of


@pytest.fixture(params=sorted(ENGINES))
async def service(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Service]:
    async with serving(await ENGINES[request.param].open(tmp_path)) as running:
        yield running


async def sent(service: Service, *lines: dict[str, Any] | bytes) -> Reply:
    body = b"\n".join(line if isinstance(line, bytes) else msgspec.json.encode(line) for line in lines)
    return await service.ask("POST", "/ledger/v1/events", key=service.worker, body=body)


async def results(service: Service, *lines: dict[str, Any] | bytes) -> list[dict[str, Any]]:
    reply = await sent(service, *lines)
    assert (reply.status, reply.headers["content-type"]) == (200, "application/x-ndjson"), reply
    assert reply.body.endswith(b"\n")
    return [msgspec.json.decode(line) for line in reply.body.splitlines()]


def line(task: str, kind: str, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - fields of the report
    return {"task": task, "type": kind, **fields}


async def test_each_line_does_what_the_same_report_alone_does(service: Service) -> None:
    alone, together = (await service.create())["id"], (await service.create())["id"]
    told: list[tuple[str, dict[str, Any]]]
    told = [("started", {"worker": "w1"}), ("progressed", {"percent": 40}), ("completed", {"actual_credits": "1.2"})]
    for kind, fields in told:
        await service.reported(alone, kind, **fields)
    found = await results(service, *(line(together, kind, **fields) for kind, fields in told))
    assert [(one["line"], one["status"], one["task_status"]) for one in found] == [
        (1, 200, "running"),
        (2, 200, "running"),
        (3, 200, "completed"),
    ]
    first, second = await service.task(alone), await service.task(together)
    assert (found[-1]["version"], found[-1]["cursor"]) == (second["version"], second["cursor"])
    for own in ("id", "public_id", "cursor", "links"):
        assert first.pop(own) != second.pop(own)
    assert first == second


async def test_a_line_that_is_refused_stops_no_other(service: Service) -> None:
    task, over = (await service.create())["id"], (await service.create())["id"]
    found = await results(
        service,
        line(task, "started", worker="w1"),
        b"{nonsense",
        line("task_nonsense", "started"),
        line(task, "started", worker="w2"),
        line(over, "completed", actual_credits="99"),
        line(over, "exploded"),
        {"type": "started"},
        line(task, "completed"),
    )
    assert [(one["line"], one["status"], one.get("code")) for one in found] == [
        (1, 200, None),
        (2, 422, "invalid_request"),
        (3, 404, "task_not_found"),
        (4, 409, "already_started"),
        (5, 422, "amount_exceeds"),
        (6, 422, "invalid_request"),
        (7, 422, "invalid_request"),
        (8, 200, None),
    ]
    assert [one["task"] for one in found] == [task, None, "task_nonsense", task, over, over, None, task]
    assert found[4]["left_credits"] == "1.5"
    assert all(one["request_id"] for one in found if one["status"] != 200)
    await whole_ledger(service.ledger.engine)


async def test_lines_of_one_task_are_taken_in_their_order(service: Service) -> None:
    """By whichever of its names each line calls it."""
    made = [await service.create() for _ in range(20)]
    names = [(task["id"], task["public_id"]) for task in made]
    lines = [line(name[percent % 2], "progressed", percent=percent) for percent in range(1, 21) for name in names]
    found = await results(service, *lines)
    assert [one["status"] for one in found] == [200] * 400
    tasks = [task["id"] for task in made]
    for task in tasks:
        percents = [one["data"]["percent"] for one in await service.history(task) if one["type"] == "progressed"]
        assert percents == [*range(1, 21)]


async def test_lines_of_many_tasks_share_commits() -> None:
    watched = Watched(MemoryEngine())
    async with serving(watched) as service:
        tasks = [(await service.create())["id"] for _ in range(200)]
        watched.commits.clear()
        found = await results(service, *(line(task, "completed") for task in tasks))
        assert {one["task_status"] for one in found} == {"completed"}
        assert len(watched.commits) < 50


async def test_a_report_is_one_whether_it_comes_alone_or_in_a_line(service: Service) -> None:
    task = (await service.create())["id"]
    await service.reported(task, "progressed", percent=5, event_id="e1")
    (again,) = await results(service, line(task, "progressed", percent=5, event_id="e1"))
    assert (again["status"], again["replayed"]) == (200, True)
    (other,) = await results(service, line(task, "progressed", percent=6, event_id="e1"))
    assert (other["status"], other["code"]) == (422, "idempotency_key_reused")


@pytest.mark.parametrize("kind", ["charged", "refunded"])
async def test_money_that_was_moved_under_its_key_before_is_told_as_replayed(service: Service, kind: str) -> None:
    """As the same report alone has it in ``Idempotent-Replayed``: of several who send it one is first."""
    task = (await service.bring(Status.RUNNING))["id"]
    await service.reported(task, "charged", amount_credits="1", key="first")
    found = await results(service, *[line(task, kind, amount_credits="0.2", key="part")] * 2)
    assert [(one["status"], one["replayed"]) for one in found] == [(200, False), (200, True)]
    alone = await service.report(task, kind, amount_credits="0.2", key="part")
    assert alone.headers["idempotent-replayed"] == "true"


async def test_what_comes_after_the_outcome_is_told_as_late_and_changes_nothing(service: Service) -> None:
    task = (await service.create())["id"]
    found = await results(service, line(task, "completed"), line(task, "failed", code="late"))
    assert [(one["task_status"], one["late"]) for one in found] == [("completed", False), ("completed", True)]
    assert (await service.history(task))[-1]["type"] == "late-reported"


async def test_a_line_tells_that_a_cancel_was_asked_for(service: Service) -> None:
    task = (await service.create())["id"]
    await service.reported(task, "started")
    await service.native("POST", f"/tasks/{task}/cancel")
    (found,) = await results(service, line(task, "progressed", percent=1))
    assert found["cancel_requested"] is True


async def test_a_task_is_named_in_any_contracts_spelling_and_blank_lines_are_passed_over(service: Service) -> None:
    task = await service.create("bytespike")
    found = await results(service, b"", line(task["public_id"], "started"), b"  \r", line(task["id"], "completed"), b"")
    assert [(one["line"], one["id"]) for one in found] == [(2, task["id"]), (4, task["id"])]


@pytest.mark.parametrize("body", [b"", b"\n \n", b"{}\n" * (LINES_MAX + 1)])
async def test_none_or_too_many_lines_are_no_batch(service: Service, body: bytes) -> None:
    reply = await sent(service, body)
    assert (reply.status, code_of("ledger", reply)) == (422, "invalid_request")


async def test_too_large_a_batch_is_refused(service: Service) -> None:
    reply = await sent(service, b" " * (8 * 2**20 + 1))
    assert (reply.status, code_of("ledger", reply)) == (413, "body_too_large")


async def test_what_finds_no_room_is_told_in_its_line_and_what_was_taken_is_there() -> None:
    """Backpressure: the store stands still, the queue is full; each line knows what became of it."""
    watched = Watched(MemoryEngine())
    async with serving(watched, queue_max=8) as service:
        tasks = [(await service.create())["id"] for _ in range(100)]
        found = await results(service, *(line(task, "completed") for task in tasks))
        statuses = [one["status"] for one in found]
        assert set(statuses) == {200, 503}
        assert {one["code"] for one in found if one["status"] == 503} == {"overloaded"}
        for task, status in zip(tasks, statuses, strict=True):
            assert (await service.task(task))["status"] == ("completed" if status == 200 else "queued")


async def test_a_store_that_takes_nothing_refuses_the_whole() -> None:
    watched = Watched(MemoryEngine())
    async with serving(watched) as service:
        task = (await service.create())["id"]
        watched.commit_faults.append(StorageError("the disk is full"))
        reply = await sent(service, line(task, "started"))
        assert (reply.status, code_of("ledger", reply), reply.headers["retry-after"]) == (503, "store_unavailable", "2")
        assert (await service.task(task))["status"] == "queued"


def test_workers_may_report_so() -> None:
    (route,) = (route for route in ROUTES if str(route) == "POST /ledger/v1/events")
    assert not route.operator_only
