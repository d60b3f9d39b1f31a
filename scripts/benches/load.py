"""The load of every row: one thread, raw sockets, requests made beforehand, and no more parsing than it takes.

Alternative beaten: wrk, which is faster still, but is not everywhere, needs a script of its own to send a new key with
every create, and does not tell the latency of reads from that of writes. What a generator must be is faster than what
it measures, so how busy it was is told with the figures.
"""

import gc
import math
import re
import selectors
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple, TypeAlias

from scripts.benches.measure import Figure

STALL_SECONDS = 10.0
READ_BYTES = 1 << 16
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)

Address: TypeAlias = tuple[str, int]


class LoadError(Exception):
    """The server answers something else than it should, or nothing at all: there is nothing to measure."""


class Traffic(NamedTuple):
    """Requests of one kind. A connection sends its next one when it has had the answer to the one before."""

    requests: Iterable[bytes]
    connections: int = 64
    expects: int = 200
    keep_bodies: bool = False


class Load(NamedTuple):
    """What became of one kind of traffic."""

    seconds: float
    latencies: list[float]
    """In seconds, one for each answer."""
    bodies: list[bytes]
    busy: float

    @property
    def rate(self) -> Figure:
        """Answers a second."""
        return Figure(len(self.latencies) / self.seconds, self.busy)


class _Kind:
    """A traffic while it flows."""

    __slots__ = ("bodies", "ended_at", "keep_bodies", "latencies", "requests", "status")

    def __init__(self, traffic: Traffic) -> None:
        self.requests: Iterator[bytes] = iter(traffic.requests)
        self.status = b" %d " % traffic.expects
        self.keep_bodies = traffic.keep_bodies
        self.latencies: list[float] = []
        self.bodies: list[bytes] = []
        self.ended_at = 0.0


class _Connection:
    __slots__ = ("kind", "partial", "sent_at", "socket")

    def __init__(self, address: Address, kind: _Kind) -> None:
        self.socket = socket.create_connection(address, timeout=STALL_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.kind = kind
        self.partial = b""
        self.sent_at = 0.0


def drive(address: Address, *traffics: Traffic, seconds: float) -> list[Load]:
    """Send until *seconds* are over or the requests used up, and wait for the last answers; a load per traffic.

    Each connection sends one request at least.

    Raises:
        LoadError: nothing came for `STALL_SECONDS`, or an answer has another status than is expected.
    """
    kinds = [_Kind(traffic) for traffic in traffics]
    try:
        with ExitStack() as stack, _no_collection():
            connections = []
            for kind, traffic in zip(kinds, traffics, strict=True):
                for _ in range(traffic.connections):
                    connections.append(_Connection(address, kind))
                    stack.callback(connections[-1].socket.close)
            began_at, began_cpu = time.perf_counter(), time.process_time()
            _exchange(connections, ends_at=began_at + seconds)
            busy = (time.process_time() - began_cpu) / (time.perf_counter() - began_at)
    except OSError as error:
        raise LoadError(f"the connection broke: {error}") from error
    return [Load(kind.ended_at - began_at, kind.latencies, kind.bodies, busy) for kind in kinds]


@contextmanager
def _no_collection() -> Iterator[None]:
    """Without pauses of our own."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _exchange(connections: Sequence[_Connection], *, ends_at: float) -> None:
    unanswered = 0
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection.socket, selectors.EVENT_READ, connection)
            unanswered += _send_next(connection, math.inf)  # one at least, however late this process gets its turn
        while unanswered:
            ready = selector.select(STALL_SECONDS)
            if not ready:
                raise LoadError(f"no answer for {STALL_SECONDS:g} s")
            for key, _ in ready:
                if _is_answered(key.data):
                    unanswered += _send_next(key.data, ends_at) - 1


def _send_next(connection: _Connection, ends_at: float) -> int:
    """How many requests were sent: one, or none when it is time to end."""
    now = connection.sent_at = time.perf_counter()
    request = next(connection.kind.requests, None) if now < ends_at else None
    if request is None:
        return 0
    connection.socket.sendall(request)
    return 1


def _is_answered(connection: _Connection) -> bool:
    """Read what has come; whether the answer is whole now."""
    read = connection.socket.recv(READ_BYTES)
    if not read:
        raise LoadError("the connection broke: the server has closed it")
    data = connection.partial + read
    head_end = data.find(b"\r\n\r\n") + 4
    length = _LENGTH.search(data, 0, head_end) if head_end > 3 else None  # noqa: PLR2004 - found
    if length is None or len(data) < head_end + int(length[1]):
        connection.partial = data
        return False
    kind = connection.kind
    if data[8:13] != kind.status:
        raise LoadError(f"expected{kind.status.decode()}, found {data[:500]!r}")
    connection.partial = b""
    kind.ended_at = time.perf_counter()
    kind.latencies.append(kind.ended_at - connection.sent_at)
    if kind.keep_bodies:
        kind.bodies.append(data[head_end:])
    return True


def request(method: str, path: str, *, key: str, body: bytes = b"", headers: str = "") -> bytes:
    """A request as it is sent; *headers* are whole lines."""
    length = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n{headers}{length}\r\n"
    return head.encode() + body
