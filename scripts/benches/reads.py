"""Rows of reading: P1 from memory, P2 from the store, P8 while others write, P16 while others wait."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import cycle

from scripts.benches.load import READ_BYTES, STALL_SECONDS, Load, LoadError, Traffic, drive, request
from scripts.benches.measure import Effort, Figure, Pair, Row, by_turns, percentile
from scripts.benches.servers import Ours, bare, creates, ours
from scripts.benches.yardstick import PATH
from scripts.listening import allow_files

TASKS = 256
TASKS_BEYOND_CACHE = 2048
VIEWS_TINY_BYTES = 64 * 1024
"""Memory for a dozen tasks."""
P99 = 99
WAITERS = 2000
"""Of connections on either side: limits of open files begin at some thousands, once they are raised."""


def cached(effort: Effort) -> Iterator[Pair]:
    with ours() as server:
        yield from _gets(effort, server, tasks=TASKS)


def uncached(effort: Effort) -> Iterator[Pair]:
    with ours(views_max_bytes=VIEWS_TINY_BYTES) as server:
        yield from _gets(effort, server, tasks=TASKS_BEYOND_CACHE)


def _gets(effort: Effort, server: Ours, *, tasks: int) -> Iterator[Pair]:
    """GET of the tasks in turn through a vendor's contract / GET of constant bytes."""
    asks = cycle(_reads(server, tasks))
    with bare(server.length_of(next(asks))) as address:
        constant = cycle([request("GET", PATH, key=server.client)])
        yield from by_turns(
            effort,
            lambda: _only(drive(server.address, Traffic(asks), seconds=effort.seconds)).rate,
            lambda: _only(drive(address, Traffic(constant), seconds=effort.seconds)).rate,
        )


def among_writers(effort: Effort) -> Iterator[Pair]:
    """The 99th percentile of 64 readers' latency while 64 writers create / the same without them."""
    with ours() as server:
        asks, writes = cycle(_reads(server, TASKS)), creates(server, "lemondata")
        yield from by_turns(
            effort,
            lambda: _p99(*drive(server.address, Traffic(asks), Traffic(writes, expects=201), seconds=effort.seconds)),
            lambda: _p99(*drive(server.address, Traffic(asks), seconds=effort.seconds)),
        )


def among_waiters(effort: Effort) -> Iterator[Pair]:
    """GET of tasks while so many clients follow one each that does not change / the same without them."""
    with ours() as crowded, ours() as alone, _followed(crowded):
        theirs, others = cycle(_reads(crowded, TASKS)), cycle(_reads(alone, TASKS))
        yield from by_turns(
            effort,
            lambda: _only(drive(crowded.address, Traffic(theirs), seconds=effort.seconds)).rate,
            lambda: _only(drive(alone.address, Traffic(others), seconds=effort.seconds)).rate,
        )


@contextmanager
def _followed(server: Ours) -> Iterator[None]:
    """`WAITERS` tasks are followed while this is entered."""
    allow_files()
    with ExitStack() as stack:
        for task in server.create("bytespike", WAITERS):
            waiter = stack.enter_context(socket.create_connection(server.address, timeout=STALL_SECONDS))
            waiter.sendall(request("GET", f"/bytespike/v1/tasks/stream/{task}", key=server.client))
            if not waiter.recv(READ_BYTES).startswith(b"HTTP/1.1 200 "):
                raise LoadError("a task cannot be followed")
        yield


def _reads(server: Ours, tasks: int) -> list[bytes]:
    ids = server.create("lemondata", tasks)
    return [request("GET", f"/lemondata/v1/tasks/{task}", key=server.client) for task in ids]


def _only(loads: list[Load]) -> Load:
    (load,) = loads
    return load


def _p99(reading: Load, writing: Load | None = None) -> Figure:
    """Of the reads, in milliseconds; beside them the rate of the writes."""
    beside = None if writing is None else writing.rate.value
    return Figure(percentile(reading.latencies, P99) * 1000, reading.busy, beside)


ROWS = (
    Row("P1", "cached GET / bare GET", "req/s", pass_line=0.85, goal=0.95, measure=cached),
    Row("P2", "uncached GET / bare GET", "req/s", pass_line=0.50, goal=0.60, measure=uncached),
    Row("P16", "GET among 2,000 waiting / alone", "req/s", pass_line=0.90, goal=0.98, measure=among_waiters),
    Row(
        "P8",
        "GET p99 among 64 writers / alone",
        "ms",
        pass_line=3,
        goal=2,
        measure=among_writers,
        more_is_better=False,
    ),
)
