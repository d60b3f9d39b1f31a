"""The load of every row: one thread, raw sockets, requests made beforehand, and no more parsing than it takes.

wrk would be faster still, but is not everywhere, cannot send a new key with every create without a script of its own,
and does not tell one kind of request from another. What a generator must be is faster than what it measures, and
that is told with the figures: ``busy`` is the share of the time in which it did not wait for an answer.
"""

import gc
import select
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

STALL_SECONDS = 10.0
_READ_BYTES = 1 << 16
_LENGTH = b"\r\nContent-Length: "


class StalledError(Exception):
    """The server answers no more."""


class UnexpectedError(Exception):
    """The server answered something else than it should."""


class Traffic(NamedTuple):
    """Requests of one kind, each sent when its connection has had the answer to the one before it."""

    requests: Iterable[bytes]
    connections: int
    expects: int = 200
    keep_bodies: bool = False


class Load(NamedTuple):
    """What became of one kind of traffic."""

    answers: int
    seconds: float
    latencies: list[float]
    bodies: list[bytes]
    busy: float

    @property
    def per_second(self) -> float:
        return self.answers / self.seconds


class _Connection:
    __slots__ = ("kind", "missing", "partial", "sent_at", "socket")

    def __init__(self, address: tuple[str, int], kind: "_Kind") -> None:
        self.socket = socket.create_connection(address, timeout=STALL_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.kind = kind
        self.partial = b""
        self.missing = 0
        self.sent_at = 0.0


class _Kind:
    def __init__(self, traffic: Traffic) -> None:
        self.requests: Iterator[bytes] = iter(traffic.requests)
        self.expects = b" %d " % traffic.expects
        self.keep_bodies = traffic.keep_bodies
        self.latencies: list[float] = []
        self.bodies: list[bytes] = []
        self.ended_at = 0.0


def drive(address: tuple[str, int], traffics: Sequence[Traffic], *, seconds: float) -> list[Load]:
    """Send until *seconds* are over or the requests used up, and wait for the last answers; a load per traffic.

    Raises:
        StalledError: nothing came for `STALL_SECONDS`.
        UnexpectedError: an answer has another status than its traffic expects.
    """
    kinds = [_Kind(traffic) for traffic in traffics]
    connections = [
        _Connection(address, kind)
        for kind, traffic in zip(kinds, traffics, strict=True)
        for _ in range(traffic.connections)
    ]
    collecting = gc.isenabled()
    gc.disable()
    try:
        began_at, began_cpu = time.perf_counter(), time.process_time()
        _exchange(connections, ends_at=began_at + seconds)
        busy = (time.process_time() - began_cpu) / (time.perf_counter() - began_at)
    finally:
        if collecting:
            gc.enable()
        for connection in connections:
            connection.socket.close()
    return [
        Load(len(kind.latencies), kind.ended_at - began_at, kind.latencies, kind.bodies, busy) for kind in kinds
    ]


def _exchange(connections: Sequence[_Connection], *, ends_at: float) -> None:
    by_fd = {connection.socket.fileno(): connection for connection in connections}
    waiting = 0
    with select.epoll() as poll:
        for fd, connection in by_fd.items():
            poll.register(fd, select.EPOLLIN)
            waiting += _send_next(connection, ends_at)
        while waiting:
            ready = poll.poll(STALL_SECONDS)
            if not ready:
                raise StalledError(f"no answer for {STALL_SECONDS:g} s")
            for fd, _ in ready:
                connection = by_fd[fd]
                if _answered(connection):
                    waiting += _send_next(connection, ends_at) - 1


def _send_next(connection: _Connection, ends_at: float) -> int:
    """How many requests were sent: one, or none when it is time to end."""
    now = connection.sent_at = time.perf_counter()
    request = next(connection.kind.requests, None) if now < ends_at else None
    if request is None:
        return 0
    connection.socket.sendall(request)
    return 1


def _answered(connection: _Connection) -> bool:
    """Read what has come; whether the answer is whole now."""
    read = connection.socket.recv(_READ_BYTES)
    if not read:
        raise UnexpectedError("the server has closed the connection")
    if connection.missing:
        connection.missing -= len(read)
    else:
        connection.partial += read
        if not _begin(connection):
            return False
    if connection.kind.keep_bodies:
        connection.partial += read
    if connection.missing > 0:
        return False
    kind = connection.kind
    kind.ended_at = time.perf_counter()
    kind.latencies.append(kind.ended_at - connection.sent_at)
    return True
