"""Slow and hostile clients: each is cut off within its deadline, others are served, and who reads is never cut off."""

import asyncio
import re
import socket
import textwrap
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from msgspec.structs import replace

from api import connections, settings
from api.app import make_runner
from api.connections import FULL, Allowance, Connection, Connections, Server, Waiting
from ledger.memory import MemoryEngine
from tests.processes import ROOT
from tests.processes import Server as RealServer
from tests.serving import Service, serving
from tests.wire import Wire
from tests.wire import request as sent_as

BRIEF = Allowance(head_seconds=0.3, body_seconds=0.3, reader_seconds=0.3)
MANY = 500


# What a connection is allowed, on a clock that the test moves


class Transport(asyncio.Transport):
    """A transport to nowhere."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.1", 4711)})
        self.unsent_bytes = 0
        self.aborted = self.closed = False
        self.written = b""

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes

    def write(self, data: Any) -> None:  # noqa: ANN401 - bytes of any kind
        self.written += bytes(data)

    def abort(self) -> None:
        self.aborted = True

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class Held:
    """A connection whose requests are read to the end and answered when the test says so."""

    def __init__(self, allowance: Allowance) -> None:
        self.allowance = allowance
        self.go = asyncio.Event()
        self.connections = Connections(allowance)
        self.transport = Transport()
        self.connection = self.open(self.transport)

    def open(self, transport: Transport) -> Connection:
        server = Server(self._handle, connections=self.connections, access_log=None)
        connection = server()
        assert isinstance(connection, Connection)
        connection.connection_made(transport)
        return connection

    async def _handle(self, asked: web.BaseRequest) -> web.StreamResponse:
        await asked.read()
        await self.go.wait()
        return web.Response(text="done")

    async def receive(self, data: bytes) -> None:
        self.connection.data_received(data)
        for _ in range(5):
            await asyncio.sleep(0)

    def overdue(self, now: float) -> Waiting | None:
        return self.connection.overdue(now, self.allowance)


@pytest.fixture
async def held() -> AsyncIterator[Held]:
    made = Held(Allowance(head_seconds=10, body_seconds=30, body_min_bytes_per_second=100, reader_seconds=60))
    yield made
    made.connection.connection_lost(None)
    await asyncio.sleep(0)


HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"


async def test_a_head_that_does_not_end_is_overdue_however_steadily_it_comes(held: Held) -> None:
    assert held.overdue(0) is None, "aiohttp sees to those that are idle"
    for second in range(10):
        await held.receive(b"GET /" if second == 0 else b"x")
        assert held.overdue(float(second)) is None
    assert held.overdue(10.0) is Waiting.HEAD


async def test_a_head_that_ends_in_time_is_not(held: Held) -> None:
    await held.receive(b"GET / HTTP/1.1\r\n")
    assert held.overdue(0) is None
    held.go.set()
    await held.receive(b"Host: x\r\n\r\n")
    assert held.overdue(10) is None
    assert held.overdue(1000) is None
    await held.receive(b"GET ")
    assert held.overdue(1001) is None, "the next one has its own ten seconds"
    assert held.overdue(1011) is Waiting.HEAD


async def test_a_body_that_does_not_end_is_overdue(held: Held) -> None:
    await held.receive(HEAD)
    assert held.overdue(0) is None
    for second in range(1, 31):
        await held.receive(b"x")
        assert held.overdue(float(second) - 0.5) is None
    assert held.overdue(30.5) is Waiting.BODY, "thirty bytes bought three tenths of a second"


async def test_a_long_body_that_keeps_coming_is_not(held: Held) -> None:
    await held.receive(HEAD)
    for second in range(0, 500, 10):
        await held.receive(b"x" * 1000)
        assert held.overdue(float(second)) is None
    assert held.overdue(10_000) is Waiting.BODY


async def test_our_own_work_is_never_overdue(held: Held) -> None:
    await held.receive(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert [held.overdue(now) for now in (0, 1e3, 1e6)] == [None, None, None]


async def test_an_answer_that_nobody_reads_is_overdue_and_one_that_is_read_is_not(held: Held) -> None:
    held.go.set()
    await held.receive(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    held.transport.unsent_bytes = 5000
    for minute in range(100):  # at a byte a minute
        held.transport.unsent_bytes -= 1
        assert held.overdue(minute * 59.0) is None
    assert held.overdue(99 * 59.0 + 59) is None
    assert held.overdue(99 * 59.0 + 60) is Waiting.READER


async def test_a_stream_that_is_written_to_and_not_read_is_overdue_though_its_buffer_grows(held: Held) -> None:
    await held.receive(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    asked = held.connection._current_request
    assert asked is not None
    for second in range(0, 60, 10):
        await asked.writer.write(b"x" * 10)
        held.transport.unsent_bytes += 10
        assert held.overdue(float(second)) is None
    assert held.overdue(60) is Waiting.READER
    held.transport.unsent_bytes = 0  # all has been read
    assert held.overdue(61) is None


async def test_one_too_many_is_told_so_and_closed_unread_and_there_is_room_again() -> None:
    made = Held(Allowance(max=2))
    other = made.open(Transport())
    refused = Transport()
    third = made.open(refused)
    assert (refused.written, refused.closed, len(made.connections), made.connections.cut["full"]) == (FULL, True, 2, 1)
    third.data_received(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    third.connection_lost(None)
    assert len(made.connections) == 2
    other.connection_lost(None)
    let_in = Transport()
    again = made.open(let_in)
    assert (let_in.closed, len(made.connections)) == (False, 2)
    again.connection_lost(None)
    made.connection.connection_lost(None)
    assert (len(made.connections), made.connections._peers) == (0, {})
    await asyncio.sleep(0)


# Over real sockets


@pytest.fixture
async def service(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Service]:
    """With sockets that hold little, so that who does not read is soon waited for, and *idle_seconds* as asked."""
    plain = Connection.connection_made

    def made(self: Connection, transport: asyncio.BaseTransport) -> None:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        plain(self, transport)

    monkeypatch.setattr(Connection, "connection_made", made)
    idle_seconds = request.param if hasattr(request, "param") else 60
    async with serving(MemoryEngine(), allowance=replace(BRIEF, idle_seconds=idle_seconds)) as running:
        yield running


async def connect(port: int) -> socket.socket:
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    one.settimeout(0)
    await asyncio.get_running_loop().sock_connect(one, ("127.0.0.1", port))
    return one


async def drip(one: socket.socket, begin: bytes, byte: bytes) -> None:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(one, begin)
    while byte:
        await asyncio.sleep(0.05)
        await loop.sock_sendall(one, byte)


async def _silent(_service: Service, _one: socket.socket) -> None:
    """Nothing is said."""


async def _head(_service: Service, one: socket.socket) -> None:
    await drip(one, b"GET /healthz HTTP/1.1\r\nX-Slow: ", b"x")


async def _body(service: Service, one: socket.socket) -> None:
    await drip(one, sent_as("POST", "/ledger/v1/tasks", headers=_told(service, ("Content-Length", "100000"))), b"{")


async def _reader(service: Service, one: socket.socket) -> None:
    wanted = sent_as("GET", "/ledger/v1/tasks?limit=5", headers=_told(service))
    await drip(one, wanted, b"")


def _told(service: Service, *more: tuple[str, str]) -> list[tuple[str, str]]:
    return [("Authorization", f"Bearer {service.operator}"), *more]


Kind = Callable[[Service, socket.socket], Coroutine[Any, Any, None]]
KINDS: dict[str, Kind] = {"silent": _silent, "head": _head, "body": _body, "reader": _reader}


@pytest.mark.parametrize(
    ("service", "kind"), [(0.3 if kind == "silent" else 60, kind) for kind in KINDS], ids=KINDS, indirect=["service"]
)
async def test_s08_five_hundred_slow_clients_are_all_cut_off_while_a_good_one_is_served(
    service: Service, kind: str
) -> None:
    for _ in range(5 if kind == "reader" else 1):
        await service.create(input={"prompt": "x" * 20_000})
    before = len(service.connections)
    slow = [await connect(service.port) for _ in range(MANY)]
    doing = [asyncio.create_task(_until_cut(service, KINDS[kind], one)) for one in slow]
    served = 0
    async with asyncio.timeout(60):
        while not all(task.done() for task in doing):
            async with Wire("127.0.0.1", service.port) as good:
                assert (await good.send(sent_as("GET", "/healthz"))).status == 200
            served += 1
            await asyncio.sleep(0.01)
        await asyncio.gather(*doing)
        while len(service.connections) > before:  # noqa: ASYNC110 - they tell nobody
            await asyncio.sleep(0.01)
    assert served > 0
    if kind == "silent":
        assert service.connections.cut == {}, "those that never begin are idle, which is aiohttp's"
    else:
        assert service.connections.cut == {kind: MANY}
        assert sum(line.get(kind, 0) for line in service.logged("connections.cut_off")) > 0


async def _until_cut(service: Service, kind: Kind, one: socket.socket) -> None:
    """Returns when the service has closed *one*."""
    doing = asyncio.create_task(kind(service, one))
    try:
        if kind is _reader:  # who does not read does not see it
            while service.connections.cut["reader"] < MANY:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.05)
        else:
            while await asyncio.get_running_loop().sock_recv(one, 4096):
                pass
    except ConnectionError:
        pass
    finally:
        doing.cancel()
        await asyncio.gather(doing, return_exceptions=True)
        one.close()


async def test_a_stream_lasts_as_long_as_somebody_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "LOOK_SECONDS_MAX", 0.01)

    async def stream(asked: web.BaseRequest) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(asked)
        for number in range(10):
            await asyncio.sleep(0.1)  # each pause is a third of what anything may take
            await answer.write(b"%d" % number)
        await answer.write_eof()
        return answer

    open_ones = Connections(BRIEF)
    runner = make_runner(Server(stream, connections=open_ones, access_log=None), drain_seconds=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", runner.addresses[0][1])
        writer.write(sent_as("GET", "/", headers=[("Connection", "close")]))
        said = await reader.read()
        writer.close()
        await writer.wait_closed()
    finally:
        await runner.cleanup()
    assert (b"9" in said, open_ones.cut) == (True, {})


@pytest.mark.parametrize("few", [{"max": 3}, {"per_peer_max": 3}], ids=["in all", "of one address"])
async def test_connections_beyond_the_cap_are_refused_at_once(few: dict[str, int]) -> None:
    async with serving(MemoryEngine(), allowance=Allowance(**few)) as service:
        ones = [await asyncio.open_connection("127.0.0.1", service.port) for _ in range(3)]
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
        writer.close()
        for _, one in ones:
            one.close()
        async with asyncio.timeout(10):
            while len(service.connections):  # noqa: ASYNC110 - they tell nobody
                await asyncio.sleep(0.01)
        assert (await service.ask("GET", "/healthz")).status == 200


async def test_the_real_server_cuts_off_who_dawdles_and_serves_the_others(tmp_path: Path) -> None:
    config = tmp_path / "ledger.toml"
    config.write_text("[connections]\nhead_seconds = 0.3\nreader_seconds = 0.3\nper_peer_max = 3\n")
    async with RealServer(tmp_path / "ledger.db", "--config", str(config)) as server:
        await server.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /healthz HTTP/1.1\r\n")
        async with asyncio.timeout(20):
            assert await reader.read() == b""
        writer.close()
        ones = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(4)]
        async with asyncio.timeout(20):
            assert (await ones[-1][0].read()).startswith(b"HTTP/1.1 503 ")
        for _, one in ones:
            one.close()
        await asyncio.sleep(0.2)
        async with server.wire() as good:
            assert (await good.send(sent_as("GET", "/healthz"))).status == 200
        assert await server.stop() == 0
        assert '"head":1' in server.logged()


async def test_a_client_that_hangs_up_in_its_body_is_no_fault_of_ours(service: Service) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(sent_as("POST", "/ledger/v1/tasks", headers=_told(service, ("Content-Length", "100")), body=b"{"))
    await writer.drain()
    writer.close()
    async with asyncio.timeout(10):
        while not service.logged():  # noqa: ASYNC110 - the log tells nobody
            await asyncio.sleep(0.01)
    (line,) = service.logged()
    assert (line["status"], line["refusal"]) == (422, "Invalid")
    assert service.logged("http.broke") == []


# Smuggling

SMUGGLED = [
    b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    b"Content-Length: 3, 4\r\n\r\nabc",
    b"Content-Length: +3\r\n\r\nabc",
    b"Content-Length: -3\r\n\r\nabc",
    b"Content-Length: 0x3\r\n\r\nabc",
    b"Content-Length: 3 3\r\n\r\nabc",
    b"Content-Length : 3\r\n\r\nabc",
    b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: identity, chunked, chunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n1 \r\na\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n1\nab\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
    b"X-Folded: a\r\n b\r\nContent-Length: 3\r\n\r\nabc",
    b"X-Null: a\0b\r\n\r\n",
    b"X-Bare: a\nContent-Length: 3\r\n\r\nabc",
    b"X-Bare: a\rContent-Length: 3\r\n\r\nabc",
    b"X-Name\r\n\r\n",
    b" X-Blank: a\r\n\r\n",
    b"Host: y\r\n\r\n",
]


@pytest.mark.parametrize("sent", SMUGGLED)
async def test_s14_what_two_servers_may_read_differently_is_refused_and_hung_up_on(sent: bytes) -> None:
    second = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    async with serving(MemoryEngine()) as service:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(b"POST /ledger/v1/tasks HTTP/1.1\r\nHost: x\r\n" + sent + second)
        async with asyncio.timeout(20):
            said = await reader.read()
        writer.close()
        assert said.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4")), said
        assert said.count(b"HTTP/1.") == 1, said
        assert not any(line["route"] == "/smuggled" for line in service.logged())


# Settings


def test_the_readme_tells_what_is_allowed_without_a_configuration(tmp_path: Path) -> None:
    shown = (ROOT / "README.md").read_text().partition("[connections]")[2].partition("```")[0]
    path = tmp_path / "ledger.toml"
    path.write_text("[connections]" + textwrap.dedent(shown))
    assert settings.read(path).connections == Allowance()
    assert set(re.findall(r"^ *(\w+) =", shown, re.MULTILINE)) == set(Allowance.__struct_fields__)


def test_what_a_connection_is_allowed_is_read_from_the_configuration(tmp_path: Path) -> None:
    path = tmp_path / "ledger.toml"
    path.write_text("[connections]\nmax = 10\nper_peer_max = 5\nhead_seconds = 2\nidle_seconds = 0.5\n")
    allowed = settings.read(path).connections
    assert allowed == Allowance(max=10, per_peer_max=5, head_seconds=2, idle_seconds=0.5)
    for wrong in ("max = 0", "head_seconds = 0", "body_seconds = -1", "unknown = 1"):
        path.write_text(f"[connections]\n{wrong}\n")
        with pytest.raises(ValueError, match="connections"):
            settings.read(path)
