"""Who reads is never cut off, however little there is to read, and who does not is: feed, stream of a task, poll."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from api.connections import Allowance, Connection
from api.stays import StayLimits
from ledger.memory import MemoryEngine
from tests.serving import Service, serving
from tests.streams import stream
from tests.test_feed import SSE
from tests.wire import request

BRIEF_SECONDS = 0.3
"""What anything may take: a head, a body, and a reader who does not read."""
PERIODS = 6
"""How many times as long as that a reader stays."""
LARGE_CHARS = 20_000


@pytest.fixture
async def service(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Service]:
    """With sockets that hold little, and streams that would wait for a slow reader for longer than connections do."""
    plain = Connection.connection_made

    def made(self: Connection, transport: asyncio.BaseTransport) -> None:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        plain(self, transport)

    monkeypatch.setattr(Connection, "connection_made", made)
    brief = Allowance(head_seconds=BRIEF_SECONDS, body_seconds=BRIEF_SECONDS, reader_seconds=BRIEF_SECONDS)
    waiting = StayLimits(heartbeat_seconds=1, slow_seconds=60)
    async with serving(MemoryEngine(), allowance=brief, waiting=waiting) as running:
        yield running


async def test_the_feed_lasts_while_it_is_read_be_it_quiet_or_not(service: Service) -> None:
    async with stream(service.port, "/ledger/v1/events?after=end", key=service.operator, headers=SSE) as reader:
        await asyncio.sleep(BRIEF_SECONDS * PERIODS)  # there is nothing but heartbeats to be read
        await reader.heartbeat()
        for number in range(PERIODS):
            task = await service.create(input={"prompt": "x" * LARGE_CHARS})
            assert (await reader.next()).json()["task"] == task["id"], number
            await reader.next()  # what is held for it
            await asyncio.sleep(BRIEF_SECONDS / 2)
    assert service.connections.cut == {}


async def test_a_task_s_stream_lasts_while_it_is_read(service: Service) -> None:
    task = (await service.create("bytespike"))["public_id"]
    key = await service.key("bytespike")
    async with stream(service.port, f"/bytespike/v1/tasks/stream/{task}", key=key) as reader:
        await reader.next()
        await asyncio.sleep(BRIEF_SECONDS * PERIODS)
        await service.reported(task, "started")
        assert (await reader.next()).json()["status"] == "running"
    assert service.connections.cut == {}


async def test_a_poll_may_wait_longer_than_anything_else_may_take(service: Service) -> None:
    task = (await service.create())["id"]
    waiting = asyncio.create_task(service.native("GET", f"/tasks/{task}?wait=30"))
    await asyncio.sleep(BRIEF_SECONDS * PERIODS)
    assert not waiting.done()
    await service.reported(task, "started")
    assert (await waiting).json()["status"] == "running"
    assert service.connections.cut == {}


async def test_who_does_not_read_the_feed_is_cut_off_and_the_place_is_free_again(service: Service) -> None:
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    one.settimeout(0)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(one, ("127.0.0.1", service.port))
    told = [("Authorization", f"Bearer {service.operator}"), ("Accept", "text/event-stream")]
    await loop.sock_sendall(one, request("GET", "/ledger/v1/events", headers=told))
    for _ in range(30):  # more than its socket and ours hold
        await service.create(input={"prompt": "x" * LARGE_CHARS})
    async with asyncio.timeout(30):
        while not service.logged("stream.ended"):  # noqa: ASYNC110 - the log tells nobody
            await asyncio.sleep(0.02)
    one.close()
    assert service.connections.cut == {"reader": 1}
    (line,) = service.logged("stream.ended")
    assert line["why"] in {"client_left", "slow_reader"}
    async with stream(service.port, "/ledger/v1/events", key=service.operator, headers=SSE) as reader:
        assert (await reader.next()).json()["type"] == "key-issued"


async def test_who_does_not_read_the_answer_of_a_poll_is_cut_off(service: Service) -> None:
    task = (await service.create(input={"prompt": "x" * 400_000}))["id"]
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    one.settimeout(0)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(one, ("127.0.0.1", service.port))
    told = [("Authorization", f"Bearer {service.operator}")]
    await loop.sock_sendall(one, request("GET", f"/ledger/v1/tasks/{task}?wait=30", headers=told))
    await asyncio.sleep(BRIEF_SECONDS * 2)
    assert service.connections.cut == {}, "it waits for us, not we for it"
    await service.reported(task, "started")
    async with asyncio.timeout(30):
        while not service.connections.cut:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.02)
    one.close()
    assert service.connections.cut == {"reader": 1}
