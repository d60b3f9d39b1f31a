"""The bytes of an answer: for whom the connection stays open, what may stand in a head, and the ids of requests."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp.test_utils import make_mocked_request

from api.answers import Sent
from api.contracts.shape import Answer
from api.request_ids import RequestIds
from ledger.memory import MemoryEngine
from tests.serving import Service, serving
from tests.wire import Wire, request


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with serving(MemoryEngine()) as running:
        yield running


OLD = b"GET /healthz HTTP/1.0\r\nHost: ledger.test\r\n"
NEW = request("GET", "/healthz")
CONNECTIONS = [
    (NEW, "HTTP/1.1", None),
    (request("GET", "/healthz", headers=[("Connection", "close")]), "HTTP/1.1", "close"),
    (OLD + b"\r\n", "HTTP/1.0", None),
    (OLD + b"Connection: keep-alive\r\n\r\n", "HTTP/1.0", "keep-alive"),
]


@pytest.mark.parametrize(("sent", "version", "connection"), CONNECTIONS)
async def test_a_connection_stays_open_for_those_who_may_expect_it(
    service: Service, sent: bytes, version: str, connection: str | None
) -> None:
    async with Wire("127.0.0.1", service.port) as wire:
        reply = await wire.send(sent)
        assert (reply.status, reply.version, reply.headers.get("connection")) == (200, version, connection)
        assert reply.headers["content-length"] == str(len(reply.body))
        assert (await wire.send(sent)).status == 200  # on this connection, or on a new one if it has said so


async def test_a_closed_connection_is_closed_by_us_after_the_answer(service: Service) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(OLD + b"\r\n")
    sent = await asyncio.wait_for(reader.read(), 5)  # to the end: without it this would wait
    assert sent.startswith(b"HTTP/1.0 200 OK\r\n")
    assert sent.endswith(b"}")
    writer.close()


async def test_head_is_answered_as_get_without_the_body(service: Service) -> None:
    seen = await service.send(NEW)
    head = await service.send(request("HEAD", "/healthz"), method="HEAD")
    assert (head.status, head.body) == (200, b"")
    same = {"content-type", "content-length", "cache-control", "server"}
    assert {name: head.headers[name] for name in same} == {name: seen.headers[name] for name in same}


async def test_many_requests_at_once_on_one_connection_are_answered_in_order(service: Service) -> None:
    ids = [f"number-{number}" for number in range(20)]
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(b"".join(request("GET", "/healthz", headers=[("X-Request-Id", one)]) for one in ids))
    for one in ids:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        assert f"X-Request-Id: {one}\r\n".encode() in head
        await reader.readexactly(len(b'{"status":"alive"}'))
    writer.close()


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: b", "a\nb", "a\0b"])
def test_a_header_that_ends_its_line_is_never_sent(value: str) -> None:
    answer = Answer(200, b"", headers={"Location": value})
    with pytest.raises(ValueError, match="ends its line"):
        Sent(make_mocked_request("GET", "/"), answer, also=b"", request_id="r", at_us=0)


def test_request_ids_sort_by_time_and_are_all_different() -> None:
    ids = RequestIds(lambda size: b"\xab" * size)
    made = [ids.next(at_us) for at_us in range(1_700_000_000_000_000, 1_700_000_000_020_000, 7)]
    assert made == sorted(set(made))
    assert all(len(one) == len("req_") + 26 for one in made)


def test_request_ids_take_new_random_bits_when_all_that_are_counted_have_been_used() -> None:
    given = iter([bytes(10), b"\xff" * 10])
    ids = RequestIds(lambda _: next(given))
    made = {ids.next(0) for _ in range((1 << 20) + 2)}
    assert len(made) == (1 << 20) + 2
