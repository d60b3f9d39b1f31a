"""Failures that others have had with following their tasks, by number and in full: here they cannot happen."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from api.native_batch import LINES_MAX
from ledger.ids import Spelling
from ledger.memory import MemoryEngine
from ledger.task import Status
from projections.audit.audit import audit
from tests.builders import create, ident
from tests.http import query
from tests.receiving import BROKEN, FINE, HANGS, TO_LOOPBACK, Receiver, receiving
from tests.serving import VENDORS, Service, serving, spelled
from tests.streams import stream
from tests.test_callbacks import ended, over, retry
from tests.test_feed import opened, page, pages
from tests.test_native_batch import line, results

LIVE, STUCK = 5000, 50
WORDS = {
    "lemondata": ("processing", "completed"),
    "bytespike": ("running", "completed"),
    "chunkr": ("Processing", "Succeeded"),
    "beatra": ("running", "succeeded"),
}


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as one:
        yield one


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with serving(MemoryEngine(), calls=TO_LOOPBACK) as running:
        yield running
        assert (await audit(running.ledger.engine)).findings == ()


async def test_s32_what_a_receiver_that_is_down_misses_is_retried_given_up_in_sight_sent_again_and_in_the_feed(
    service: Service, receiver: Receiver
) -> None:
    """A day down: one id, in order; work and cancels go on; whoever reads by cursor has had it all along."""
    receiver.answer = lambda _: BROKEN
    task = await ended(service, receiver.url)
    await over(service, task)
    running = (await service.bring(Status.RUNNING, "bytespike", callback_url=receiver.url))["id"]
    assert (await service.reported(running, "progressed", percent=50))["progress"]["percent"] == 50
    queued = (await service.create("bytespike", callback_url=receiver.url))["id"]
    assert (await service.native("POST", f"/tasks/{queued}/cancel", {})).json()["status"] == "cancelled"

    facts = [event for event in await pages(service, "type=completed,cancelled") if event["task"] in {task, queued}]
    assert [(event["task"], event["type"]) for event in facts] == [(task, "completed"), (queued, "cancelled")]
    for attempt in range(2, 7):  # as many as this contract makes
        await over(service, queued, attempt - 1)
        await retry(service)
        shown = await over(service, task, attempt)
    assert (shown["status"], shown["callback"]["gave_up"], shown["callback"]["attempts"]) == ("completed", True, 6)
    await over(service, queued, 6)
    dead = (await service.native("GET", "/callbacks")).json()["callbacks"]
    assert {one["task"] for one in dead} == {task, queued}

    receiver.answer = lambda _: FINE
    receiver.told.clear()
    for one in dead:
        assert (await service.native("POST", f"/callbacks/{one['id']}/resend", {})).status == 202
    for one in dead:
        assert (await over(service, one["task"], 7))["callback"]["delivered_at"] is not None
    assert sorted(receiver.ids) == sorted(one["id"] for one in dead), "under the ids that they have always had"
    again = [event for event in await pages(service, "type=completed,cancelled") if event["task"] in {task, queued}]
    assert again == facts


@pytest.mark.parametrize("contract", VENDORS)
async def test_s34_query_stream_feed_and_history_tell_one_state_whatever_the_provider_says_within(
    service: Service, contract: str
) -> None:
    going, done = WORDS[contract]
    task = (await service.bring(Status.RUNNING, contract))["id"]
    asked = query(contract, spelled(task))
    assert (await service.client(contract, asked)).json()["status"] == going
    raw = {"status": "IN_PROGRESS", "progress": 40, "assets": []}
    async with opened(service, "?after=end") as feed:
        shown = await service.reported(task, "completed", output=raw)
        told = (await feed.next()).json()
    reply = (await service.client(contract, asked)).json()
    (kept,) = [event for event in await service.history(task) if event["type"] == "completed"]
    assert (shown["status"], reply["status"], told["type"]) == ("completed", done, "completed")
    assert {name: told[name] for name in kept} == kept, "the feed shows the event that the history shows"
    assert shown["output"] == raw, "the provider's own words stay within, as of the event that brought them"
    assert (told["task"], told["version"] <= shown["version"]) == (task, True)
    if contract == "bytespike":
        key = await service.key(contract)
        async with stream(service.port, f"/bytespike/v1/tasks/stream/{shown['public_id']}", key=key) as states:
            assert (await states.next()).json() == reply


async def test_s41_five_thousand_tasks_are_each_known_at_once_and_fifty_stuck_ones_slow_nobody(
    service: Service,
) -> None:
    """Nothing is polled: what is reported is in the log when its report is answered, and a follower reads it there.

    The stuck ones have someone who waits for each, and a callback under way that is not answered.
    """
    async with receiving() as hanging:
        hanging.answer = lambda _: HANGS
        for _ in range(STUCK):
            await ended(service, hanging.url)
        stuck = [(await service.create())["id"] for _ in range(STUCK)]
        waiting = [asyncio.create_task(service.native("GET", f"/tasks/{task}?wait=60")) for task in stuck]
        live = [ident(1000 + number) for number in range(LIVE)]
        for start in range(0, LIVE, 500):
            await asyncio.gather(*map(service.ledger.handle, map(create, live[start : start + 500])))
        cursor = (await page(service, "?after=end"))["next_cursor"]
        seen: list[dict[str, Any]] = []
        for start in range(0, LIVE, LINES_MAX):
            some = live[start : start + LINES_MAX]
            came_to = await results(service, *(line(Spelling.UUID.spell(task), "completed") for task in some))
            assert {one["task_status"] for one in came_to} == {"completed"}
            known = await pages(service, "type=completed&limit=200", after=cursor)
            seen += known
            assert len(seen) == start + LINES_MAX, "whoever reads on by then has all of them"
            cursor = known[-1]["cursor"]
        assert len({event["task"] for event in seen}) == LIVE
        assert not any(one.done() for one in waiting)
        for task in stuck:
            await service.reported(task, "failed", code="stuck")
        assert {reply.json()["status"] for reply in await asyncio.gather(*waiting)} == {"failed"}
