"""Connections, and how long each may keep us waiting: aiohttp itself bounds only how long one may be idle.

Each is looked at a few times within the shortest deadline, and asked what it waits for. Only that is kept which tells
whether anything has moved since, so a request costs one addition more. Alternative beaten: a timer around each read,
set and cancelled for every request there is.

=========== ======================================================== ====================================
it has      until                                                    and then
=========== ======================================================== ====================================
begun       the head is whole: `Allowance.head_seconds`              it is cut off
head only   the body is whole: `body_seconds`, and more for each     it is cut off
            `body_min_bytes_per_second` that has come
an answer   some of it has been read: `reader_seconds`               it is cut off
nothing     it asks something: `idle_seconds`                        aiohttp closes it
=========== ======================================================== ====================================

An answer may take as long as it takes us to give it, and as long as a reader reads it: a stream has no deadline. More
connections than there may be, in all or from one address, are answered 503 and closed before anything of them is read.
"""

import asyncio
from collections import Counter
from enum import StrEnum
from typing import Annotated, Any, NamedTuple, TypeAlias, cast

import msgspec
import structlog
from aiohttp import web

Seconds: TypeAlias = Annotated[float, msgspec.Meta(gt=0)]
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]

LOOKS = 4
"""How often it is looked within the shortest deadline: one is overstepped by a fourth of that, at most."""
LOOK_SECONDS_MAX = 1.0
FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nServer: task-ledger\r\nContent-Length: 0\r\n"
    b"Retry-After: 1\r\nConnection: close\r\n\r\n"
)


class Allowance(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a connection is allowed, and how many there may be."""

    max: Count = 20_480
    per_peer_max: Count = 4096
    """From one address; behind a proxy all of them are."""
    head_seconds: Seconds = 10.0
    body_seconds: Seconds = 30.0
    body_min_bytes_per_second: Count = 8192
    idle_seconds: Seconds = 15.0
    reader_seconds: Seconds = 60.0

    @property
    def look_seconds(self) -> float:
        """Between two looks."""
        return min(LOOK_SECONDS_MAX, min(self.head_seconds, self.body_seconds, self.reader_seconds) / LOOKS)


class Waiting(StrEnum):
    """What a connection keeps us waiting with."""

    HEAD = "head"
    BODY = "body"
    READER = "reader"


class _Wait(NamedTuple):
    """What for, what tells that it is still the same wait, since when, and how many bytes had come by then."""

    kind: Waiting
    mark: object
    since: float
    received_bytes: int


class Connections:
    """All that are open, and what became of the others."""

    def __init__(self, allowance: Allowance) -> None:
        self.allowance = allowance
        self.cut: Counter[str] = Counter()
        """How many were cut off, by what they kept us waiting with; and how many were not let in."""
        self._open: set[Connection] = set()
        self._peers: Counter[str] = Counter()
        self._look: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._open)

    def let_in(self, one: "Connection") -> bool:
        """Whether there is room for it; then it is looked at from now on."""
        if len(self._open) >= self.allowance.max or self._peers[one.peer] >= self.allowance.per_peer_max:
            self.cut["full"] += 1
            return False
        self._open.add(one)
        self._peers[one.peer] += 1
        if self._look is None:
            self._look = asyncio.get_running_loop().call_later(self.allowance.look_seconds, self._look_at_all)
        return True

    def leave(self, one: "Connection") -> None:
        """It is closed."""
        if one in self._open:
            self._open.remove(one)
            self._peers[one.peer] -= 1
            if not self._peers[one.peer]:
                del self._peers[one.peer]

    def _look_at_all(self) -> None:
        loop = asyncio.get_running_loop()
        now, cut = loop.time(), Counter[str]()
        for one in [*self._open]:
            overdue = one.overdue(now, self.allowance)
            if overdue is not None:
                cut[overdue] += 1
                one.cut_off()
        if cut:
            self.cut += cut
            structlog.get_logger().info("connections.cut_off", **cut)
        self._look = loop.call_later(self.allowance.look_seconds, self._look_at_all) if self._open else None


class Connection(web.RequestHandler):
    """One connection."""

    __slots__ = ("_connections", "_idle_bytes", "_idle_requests", "_received_bytes", "_wait", "_wire", "peer")

    def __init__(self, connections: Connections, manager: web.Server, **options: Any) -> None:  # noqa: ANN401 - aiohttp's
        super().__init__(manager, **options)
        self._connections = connections
        self._wire: asyncio.Transport | None = None
        """aiohttp forgets its own once it is closing, and that may take for ever when nobody reads."""
        self._received_bytes = 0
        self._idle_bytes, self._idle_requests = 0, 0
        """What had been received when a head was last waited for, after so many requests."""
        self._wait: _Wait | None = None
        self.peer = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        address = transport.get_extra_info("peername")
        self.peer = address[0] if isinstance(address, tuple) else ""
        self._wire = wire = cast("asyncio.Transport", transport)  # uvloop's is one by what it does only
        if self._connections.let_in(self):
            super().connection_made(transport)
        else:
            self._force_close = True
            wire.write(FULL)
            wire.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._connections.leave(self)
        self._wire = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._received_bytes += len(data)
        super().data_received(data)

    def cut_off(self) -> None:
        """Close it now, whatever is still to be sent."""
        if self._wire is not None:
            self._wire.abort()

    def overdue(self, now: float, allowance: Allowance) -> Waiting | None:
        """What it has kept us waiting with for too long; None: nothing."""
        found = self._waits_with()
        if found is None:
            self._wait = None
            return None
        kind, mark = found
        if self._wait is None or (self._wait.kind, self._wait.mark) != (kind, mark):
            self._wait = _Wait(kind, mark, now, self._received_bytes)
        waited = now - self._wait.since
        match kind:
            case Waiting.HEAD:
                allowed = allowance.head_seconds
            case Waiting.BODY:
                come_bytes = self._received_bytes - self._wait.received_bytes
                allowed = allowance.body_seconds + come_bytes / allowance.body_min_bytes_per_second
            case Waiting.READER:
                allowed = allowance.reader_seconds
        return kind if waited >= allowed else None

    def _waits_with(self) -> tuple[Waiting, object] | None:
        """What we wait for, and what changes when it moves: for a head or a body, only when it is whole."""
        request, wire = self._current_request, self._wire
        unsent_bytes = 0 if wire is None else wire.get_write_buffer_size()
        if unsent_bytes:
            written_bytes = 0 if request is None else request.writer.output_size
            return Waiting.READER, (self._request_count, written_bytes - unsent_bytes)
        if request is not None:
            is_ours = request.content.is_eof() or self._reading_paused
            return None if is_ours else (Waiting.BODY, self._request_count)
        if self._request_in_progress or self._messages:
            return None
        if self._idle_requests != self._request_count:
            self._idle_requests, self._idle_bytes = self._request_count, self._received_bytes
        return (Waiting.HEAD, self._request_count) if self._received_bytes > self._idle_bytes else None


class Server(web.Server):
    """aiohttp's server, with connections of ours."""

    def __init__(self, *args: Any, connections: Connections, **options: Any) -> None:  # noqa: ANN401 - aiohttp's
        super().__init__(*args, keepalive_timeout=connections.allowance.idle_seconds, **options)
        self.connections_open = connections

    def __call__(self) -> web.RequestHandler:
        return Connection(self.connections_open, self, loop=self._loop, **self._kwargs)
