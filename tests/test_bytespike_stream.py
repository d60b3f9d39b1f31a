"""ByteSpike's event stream: a ``status`` event for each change of what a query shows, and nothing else.

Source: the route alone is public (docs.bytespike.ai, tasks API); what it sends is chosen.
Scenario S34 (outer state and embedded payload disagree): each state is the body of a query, byte for byte.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from api.stays import StayLimits
from ledger.ids import TaskId
from ledger.keys import parse
from ledger.task import Status
from tests.builders import ENGINES
from tests.http import query, spell
from tests.serving import STRANGER, Service, serving, spelled
from tests.streams import Event, Stream, stream
from tests.worded import code_of


@pytest.fixture(params=sorted(ENGINES))
async def service(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Service]:
    async with serving(await ENGINES[request.param].open(tmp_path), waiting=StayLimits(heartbeat_seconds=1)) as running:
        yield running


async def opened(service: Service, task: str, **told: str) -> Any:  # noqa: ANN401 - a context manager of a Stream
    target = f"/bytespike/v1/tasks/stream/{spell('bytespike', spelled(task))}"
    return stream(service.port, target, key=told.get("key") or await service.key("bytespike"))


async def queried(service: Service, task: str) -> bytes:
    return (await service.client("bytespike", query("bytespike", spelled(task)))).body


async def state(reader: Stream) -> Event:
    event = await reader.next()
    assert event.name == "status"
    return event


async def test_the_current_state_comes_first_then_each_change_and_the_end_after_the_last(service: Service) -> None:
    task = (await service.create("bytespike", out_task_id="order-1"))["id"]
    async with await opened(service, task) as reader:
        assert (reader.status, reader.headers["content-type"]) == (200, "text/event-stream")
        states = [(await state(reader)).data.encode()]
        shown = [await queried(service, task)]
        for kind in ("started", "completed"):
            await service.reported(task, kind)
            states.append((await state(reader)).data.encode())
            shown.append(await queried(service, task))
        assert states == shown, "the data is the body of a query"
        assert await reader.rest() == []


ENDS = [Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.EXPIRED]


@pytest.mark.parametrize("status", ENDS)
async def test_a_task_that_is_over_is_told_once(service: Service, status: Status) -> None:
    fields = {"expires_at": "2026-02-01T00:00:00Z"} if status is Status.EXPIRED else {}
    task = await service.bring(status, "bytespike", **fields)
    async with await opened(service, task["id"]) as reader:
        assert [event.data.encode() for event in await reader.rest()] == [await queried(service, task["id"])]


async def test_what_a_query_does_not_show_is_no_change(service: Service) -> None:
    task = (await service.bring(Status.RUNNING, "bytespike"))["id"]
    async with await opened(service, task) as reader:
        await state(reader)
        for percent in (10, 50, 90):
            await service.reported(task, "progressed", percent=percent)
        await service.reported(task, "charged", amount_credits="0.5", key="c1")
        assert (await state(reader)).json()["credits_used"] == 0.5


async def test_a_cancel_is_told_as_it_is_answered(service: Service) -> None:
    task = (await service.bring(Status.RUNNING, "bytespike"))["id"]
    async with await opened(service, task) as reader:
        await state(reader)
        path = f"/bytespike/v1/tasks/cancel/{spell('bytespike', spelled(task))}"
        answer = await service.ask("POST", path, key=await service.key("bytespike"))
        assert [event.data.encode() for event in await reader.rest()] == [answer.body]


async def test_a_quiet_stream_has_comments(service: Service) -> None:
    task = (await service.create("bytespike"))["id"]
    async with await opened(service, task) as reader:
        await state(reader)
        await reader.heartbeat()
        await reader.heartbeat()
        await service.reported(task, "started")
        assert (await state(reader)).json()["status"] == "running"


async def test_what_is_not_there_is_a_404_before_the_stream_begins(service: Service) -> None:
    foreign = (await service.create("bytespike", account=STRANGER))["id"]
    names = [spell("bytespike", spelled(foreign)), spell("bytespike", TaskId(bytes(16))), "task_nonsense"]
    for name in names:
        reply = await service.ask("GET", f"/bytespike/v1/tasks/stream/{name}", key=await service.key("bytespike"))
        assert (reply.status, code_of("bytespike", reply)) == (404, "task_not_found")
    reply = await service.ask("GET", f"/bytespike/v1/tasks/stream/{names[0]}")
    assert (reply.status, code_of("bytespike", reply)) == (401, "invalid_api_key")


async def test_any_task_of_the_account_can_be_followed_at_the_bare_root_too(service: Service) -> None:
    task = (await service.create("lemondata"))["id"]
    target = f"/v1/tasks/stream/{spell('bytespike', spelled(task))}"
    async with stream(service.port, target, key=await service.key("bytespike")) as reader:
        assert (await state(reader)).json()["status"] == "pending"


async def test_a_task_that_is_deleted_meanwhile_ends_the_stream_with_a_comment_that_says_so(service: Service) -> None:
    task = await service.bring(Status.COMPLETED, "chunkr")
    await service.client(
        "chunkr", query("chunkr", spelled(task["id"]))._replace(method="PATCH", body=b'{"high_resolution":true}')
    )
    async with await opened(service, task["id"]) as reader:
        assert (await state(reader)).json()["status"] == "pending"
        await service.reported(task["id"], "completed")
        assert [event.json()["status"] for event in await reader.rest()] == ["completed"]


async def test_many_who_follow_one_task_share_what_is_rendered(service: Service) -> None:
    task = (await service.create("bytespike"))["id"]
    async with AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(await opened(service, task)) for _ in range(12)]
        assert len({(await state(reader)).data for reader in readers}) == 1
        await service.reported(task, "started")
        assert {(await state(reader)).json()["status"] for reader in readers} == {"running"}
        seen = service.ledger.views.cached(spelled(task))
        assert seen is not None
        assert len(seen.answers) == 1


async def test_a_dead_key_ends_the_stream_and_a_comment_says_why(service: Service) -> None:
    task = (await service.create("bytespike"))["id"]
    key = await service.key("bytespike")
    async with await opened(service, task, key=key) as reader:
        await state(reader)
        token = parse(key)
        assert token is not None
        await service.native("DELETE", f"/keys/{token.key_id}")
        assert await reader.rest() == []
        assert reader.comments[-1] == "closed: key_revoked"


async def test_a_stream_costs_its_account_one_read_and_is_logged_when_it_begins_and_ends(service: Service) -> None:
    task = (await service.create("bytespike"))["id"]
    async with await opened(service, task) as reader:
        await state(reader)
        assert reader.headers["x-ratelimit-remaining"] == "99999"
        request_id = reader.headers["x-request-id"]
        await service.reported(task, "completed")
        await reader.rest()
    async with asyncio.timeout(20):
        while not service.logged("stream.ended"):  # noqa: ASYNC110 - the log tells nobody
            await asyncio.sleep(0.01)
    begun = next(line for line in service.logged() if line["request_id"] == request_id)
    (ended,) = service.logged("stream.ended")
    assert (begun["status"], begun["route"]) == (200, "/bytespike/v1/tasks/stream/{id}")
    assert (ended["request_id"], ended["why"]) == (request_id, "complete")


async def test_an_old_client_is_sent_the_same_without_chunks(service: Service) -> None:
    task = (await service.bring(Status.COMPLETED, "bytespike"))["id"]
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    name, key = spell("bytespike", spelled(task)), await service.key("bytespike")
    writer.write(f"GET /bytespike/v1/tasks/stream/{name} HTTP/1.0\r\nx-api-key: {key}\r\n\r\n".encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    assert b"chunked" not in head
    assert body == b"event: status\ndata: " + await queried(service, task) + b"\n\n"
