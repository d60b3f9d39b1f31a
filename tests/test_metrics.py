"""What Prometheus reads: every figure is what has happened, and nobody but an operator sees any."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ledger.commands import RecordCallback
from ledger.events import BreakKind
from ledger.figures import Histogram
from ledger.keys import Role
from ledger.memory import MemoryEngine
from ledger.silence import SECONDS
from ledger.task import Status
from ledger.unread import UNREAD_MAX
from tests.builders import Watched, ident
from tests.http import query
from tests.receiving import BROKEN, FINE, TO_LOOPBACK, receiving
from tests.serving import Service, queued, serving, spelled
from tests.streams import stream
from tests.test_callbacks import ended, over, retry
from tests.test_feed import SSE
from tests.wire import Wire

Figures = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
async def service(watched: Watched) -> AsyncIterator[Service]:
    async with serving(watched) as running:
        yield running


async def figures(service: Service) -> Figures:
    """All samples, by name and labels."""
    reply = await service.ask("GET", "/metrics", key=service.operator)
    assert reply.status == 200, reply
    families = text_string_to_metric_families(reply.body.decode())
    return {(one.name, frozenset(one.labels.items())): one.value for family in families for one in family.samples}


def figure(found: Figures, name: str, **labels: str) -> float | None:
    return found.get((f"task_ledger_{name}", frozenset(labels.items())))


async def test_requests_are_counted_by_contract_route_and_status(service: Service) -> None:
    task = await service.create()
    for _ in range(3):
        await service.client("lemondata", query("lemondata", spelled(task["id"])))
    await service.ask("GET", "/lemondata/v1/tasks/x")
    await service.ask("GET", "/nowhere")
    await service.ask("GET", "/healthz")
    found = await figures(service)
    read = {"contract": "lemondata", "method": "GET", "route": "/lemondata/v1/tasks/{id}"}
    assert figure(found, "requests_total", **read, status="200") == 3
    assert figure(found, "requests_total", **read, status="401") == 1
    assert figure(found, "requests_total", contract="ledger", method="", route="", status="404") == 1
    assert figure(found, "requests_total", contract="ledger", method="GET", route="/healthz", status="200") == 1
    again = await figures(service)
    metrics = {"contract": "ledger", "method": "GET", "route": "/metrics", "status": "200"}
    assert figure(again, "requests_total", **metrics) == 1, "each is counted once it is answered"


async def test_a_name_that_a_client_makes_up_is_no_label(service: Service) -> None:
    for number in range(20):
        await service.ask("GET", f"/made-up-{number}")
        await service.ask("POST", f"/lemondata/made-up-{number}")
    names = {labels for name, labels in await figures(service) if name == "task_ledger_requests_total"}
    assert len(names) < 10
    assert not any("made-up" in value for labels in names for _, value in labels)


async def test_commits_are_counted_with_what_they_took_and_for_how_many_commands(service: Service) -> None:
    before = await figures(service)
    for _ in range(5):
        await service.create()
    after = await figures(service)
    for name in ("commit_seconds", "commit_commands"):
        counted = (figure(after, f"{name}_count") or 0) - (figure(before, f"{name}_count") or 0)
        assert counted == 5
        buckets = [
            (float(dict(labels)["le"]), value)
            for (sample, labels), value in after.items()
            if sample == f"task_ledger_{name}_bucket"
        ]
        assert [value for _, value in sorted(buckets)] == sorted(value for _, value in buckets), "they cumulate"
    assert (figure(after, "commit_commands_sum") or 0) - (figure(before, "commit_commands_sum") or 0) == 5
    assert (figure(after, "commit_seconds_sum") or 0) > 0


async def test_commands_that_wait_are_the_depth_of_the_queue(service: Service, watched: Watched) -> None:
    watched.commit_gate.shut()
    first = asyncio.create_task(service.native("POST", "/tasks", _order(), key=service.worker))
    await watched.commit_gate.someone_waits()
    waiting = [asyncio.create_task(service.native("POST", "/tasks", _order(), key=service.worker)) for _ in range(3)]
    try:
        await queued(service, 3)
        depth = figure(await figures(service), "queue_depth")
    finally:
        watched.commit_gate.open()
    await asyncio.gather(first, *waiting)
    assert (depth, figure(await figures(service), "queue_depth")) == (3, 0)


def _order() -> dict[str, Any]:
    return {"account": "acme", "contract": "lemondata", "model": "seedance-2.0"}


async def test_what_is_held_what_differs_and_who_is_silent_is_told_as_of_the_last_page(service: Service) -> None:
    for _ in range(3):
        await service.bring(Status.RUNNING)
    ended = (await service.bring(Status.FAILED))["id"]
    await service.reported(ended, "completed")
    service.clock.advance(SECONDS)
    await service.sweeper.sweep()
    assert (await service.native("GET", "/billing/breaks")).status == 200  # brings the books to the end of the log
    found = await figures(service)
    assert (figure(found, "open_holds"), figure(found, "held_credits")) == (3, 4.5)
    assert figure(found, "stalled_tasks") == 3
    assert {kind: figure(found, "open_breaks", kind=kind) for kind in BreakKind} == {
        kind: float(kind is BreakKind.STATUS_CONFLICT) for kind in BreakKind
    }


async def test_reports_of_which_no_break_will_tell_are_counted(service: Service) -> None:
    for number in range(UNREAD_MAX + 3):
        service.ledger.unread.note(ident(number), "unreadable", at_us=number)
    assert figure(await figures(service), "unread_reports_let_go_total") == 3


async def test_callbacks_are_counted_by_their_outcome(service: Service) -> None:
    task = await service.bring(Status.COMPLETED, callback_url="https://example.com/hook")
    for attempt, delivered in enumerate((False, False, True), start=1):
        command = RecordCallback(
            task_id=spelled(task["id"]), at_us=service.clock(), actor="test", attempt=attempt, delivered=delivered
        )
        await service.ledger.handle(command)
    found = await figures(service)
    assert figure(found, "callbacks_total", outcome="delivered") == 1
    assert figure(found, "callbacks_total", outcome="failed") == 2


async def test_followers_tell_how_far_behind_they_are_and_that_they_skip_nothing(watched: Watched) -> None:
    async with serving(watched, is_followed=True) as service:
        await service.create()
        found = await figures(service)
        for name in ("books", "sweep"):
            assert figure(found, "follower_lag_events", follower=name) is not None
            assert figure(found, "follower_failing", follower=name) == 0
            assert figure(found, "follower_skipped_events_total", follower=name) == 0


async def test_a_figure_that_cannot_be_read_is_left_out_and_the_others_are_told(service: Service) -> None:
    await service.create()
    await service.native("GET", "/billing/breaks")
    with closing(sqlite3.connect(service.books_path)) as db:
        db.execute("ALTER TABLE tasks RENAME TO mislaid")
    found = await figures(service)
    assert figure(found, "open_holds") is None
    assert figure(found, "queue_depth") == 0
    assert figure(found, "stalled_tasks") == 0, "which lies in another file"


async def test_streams_are_counted_once_each_and_while_they_are_open(service: Service) -> None:
    task = (await service.create("bytespike"))["public_id"]
    key = await service.key("bytespike")
    assert figure(await figures(service), "staying") == 0
    async with (
        stream(service.port, "/ledger/v1/events", key=service.operator, headers=SSE) as feed,
        stream(service.port, f"/bytespike/v1/tasks/stream/{task}", key=key) as states,
    ):
        await states.next()
        await feed.next()
        found = await figures(service)
        assert figure(found, "staying") == 2
        feeds = {"contract": "ledger", "method": "GET", "route": "/ledger/v1/events", "status": "200"}
        assert figure(found, "requests_total", **feeds) == 1
        assert sum(count for (name, labels), count in found.items() if ("contract", "bytespike") in labels) == 1
    async with asyncio.timeout(20):
        while figure(await figures(service), "staying"):  # noqa: ASYNC110 - they tell nobody
            await asyncio.sleep(0.01)
    assert figure(await figures(service), "requests_total", **feeds) == 1


async def test_each_try_of_a_callback_is_counted_once_as_what_it_came_to() -> None:
    async with receiving() as receiver, serving(MemoryEngine(), calls=TO_LOOPBACK) as running:
        receiver.answer = lambda _: BROKEN if len(receiver.told) < 3 else FINE
        task = await ended(running, receiver.url)
        for attempt in (1, 2, 3):
            await over(running, task, attempt)
            await retry(running)
        found = await figures(running)
        assert figure(found, "callbacks_total", outcome="failed") == 2
        assert figure(found, "callbacks_total", outcome="delivered") == 1
        assert len(receiver.told) == 3


async def test_connections_are_counted(service: Service) -> None:
    async with Wire("127.0.0.1", service.port) as wire:
        await wire.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        service.connections.cut["body"] += 2
        found = await figures(service)
    assert (figure(found, "connections") or 0) >= 2
    assert figure(found, "connections_cut_off_total", reason="body") == 2


@pytest.mark.parametrize("path", ["/metrics", "/ledger/metrics"])
async def test_only_an_operator_sees_them(path: str) -> None:
    async with serving(MemoryEngine()) as service:
        client = await service.key("lemondata", role=Role.CLIENT)
        statuses = [
            (await service.ask("GET", path, key=key)).status
            for key in (None, "nonsense", client, service.worker, service.operator)
        ]
        assert statuses[0] == statuses[1] == 401
        assert statuses[2] in {401, 403}
        assert statuses[3:] == [403, 200]
        assert (await service.ask("POST", path, key=service.operator)).status == 405


def test_a_spread_counts_each_value_once_and_up_to_its_bound() -> None:
    spread = Histogram((1, 2, 4))
    for value in (0, 1, 2, 3, 4, 5, 100):
        spread.add(value)
    assert (spread.cumulated, spread.total) == ([2, 3, 5, 7], 115)
