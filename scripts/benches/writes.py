"""Rows of writing: P3 creates, P4 cancels, each durable when it is answered, with everything on."""

from collections.abc import Iterator
from itertools import repeat

import msgspec

from scripts.benches.load import Address, Traffic, drive, request
from scripts.benches.measure import Effort, Figure, Pair, Row, by_turns
from scripts.benches.servers import Ours, bare, creates, ours
from scripts.benches.yardstick import PATH

CANCELS_PER_SECOND = 2000
"""Tasks to cancel in a round, for each second of load that was asked for."""
CANCELS_MIN, CANCELS_MAX = 64, 20_000
SECONDS_MAX = 120.0
CANCEL = "/bytespike/v1/tasks/cancel"


def created(effort: Effort) -> Iterator[Pair]:
    """Creates through the native API: key checked, idempotency key claimed, credits held, chained, on disk."""
    with ours() as server:
        asks, same = creates(server, "lemondata"), creates(server, "lemondata", path=PATH)
        with bare(server.length_of(next(asks), expects=201)) as address:
            yield from by_turns(
                effort,
                lambda: _rate(server.address, Traffic(asks, expects=201), seconds=effort.seconds),
                lambda: _rate(address, Traffic(same), seconds=effort.seconds),
            )


def cancelled(effort: Effort) -> Iterator[Pair]:
    """Cancels of queued tasks through ByteSpike's contract, which release what was held; the tasks are made untimed."""
    count = min(max(CANCELS_MIN, int(CANCELS_PER_SECOND * effort.seconds)), CANCELS_MAX)
    with ours() as server, bare(server.length_of(*_cancels(server, 1, path=CANCEL))) as address:
        (same,) = _cancels(server, 1, path=PATH)
        yield from by_turns(
            effort,
            lambda: _rate(server.address, Traffic(_cancels(server, count, path=CANCEL)), seconds=SECONDS_MAX),
            lambda: _rate(address, Traffic(repeat(same, count)), seconds=SECONDS_MAX),
        )


def _rate(address: Address, traffic: Traffic, *, seconds: float) -> Figure:
    (load,) = drive(address, traffic, seconds=seconds)
    return load.rate


def _cancels(server: Ours, count: int, *, path: str) -> list[bytes]:
    bodies = [msgspec.json.encode({"task_id": task}) for task in server.create("bytespike", count)]
    return [request("POST", path, key=server.client, body=body) for body in bodies]


ROWS = (
    Row("P3", "durable create / bare POST", "req/s", pass_line=0.55, goal=0.75, measure=created),
    Row("P4", "durable cancel / bare POST", "req/s", pass_line=0.50, goal=0.70, measure=cancelled),
)
