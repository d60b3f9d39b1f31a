"""Failures that others have had with their notices to customers, by number: here they cannot happen."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from ledger.memory import MemoryEngine
from ledger.task import Status
from projections.audit.audit import audit
from tests.receiving import BROKEN, FINE, HANGS, TO_LOOPBACK, Receiver, receiving
from tests.serving import Service, serving
from tests.test_callbacks import ended, over, retry


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as one:
        yield one


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with serving(MemoryEngine(), calls=TO_LOOPBACK) as running:
        yield running
        assert (await audit(running.ledger.engine)).findings == ()


async def test_s05_two_operators_who_press_resend_at_once_cause_no_second_fact(
    service: Service, receiver: Receiver
) -> None:
    task = await ended(service, receiver.url, "beatra")
    before = await over(service, task)
    name = receiver.ids[0]
    replies = await asyncio.gather(*(service.native("POST", f"/callbacks/{name}/resend", {}) for _ in range(2)))
    assert [reply.status for reply in replies] == [202, 202]
    after = await over(service, task, 2)
    assert set(receiver.ids) == {name}
    assert after["billing"] == before["billing"]


async def test_s06_a_refund_and_its_echo_are_one_and_are_no_news_of_the_outcome(
    service: Service, receiver: Receiver
) -> None:
    task = await ended(service, receiver.url)
    await over(service, task)
    for _ in range(2):
        await service.reported(task, "refunded", amount_credits="0.5", key="r1")
    assert (await service.task(task))["billing"]["refunded_credits"] == "0.5"
    listed = (await service.native("GET", "/callbacks?state=all")).json()["callbacks"]
    assert [(one["event"], one["state"]) for one in listed] == [("completed", "delivered")]
    assert len(receiver.told) == 1


async def test_s30_an_answer_that_comes_too_late_is_no_verdict(
    service: Service, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    from api.contracts import CONTRACTS  # noqa: PLC0415

    contract = CONTRACTS["bytespike"]
    assert contract.telling is not None
    hasty = contract._replace(telling=contract.telling._replace(timeout_seconds=1))
    monkeypatch.setitem(CONTRACTS, "bytespike", hasty)
    receiver.answer = lambda _: HANGS
    task = await ended(service, receiver.url)
    shown = await over(service, task)
    assert shown["callback"]["last_error"] == "timeout"
    assert (shown["status"], shown["callback"]["gave_up"]) == ("completed", False)
    receiver.answer = lambda _: FINE
    receiver.hung.set()
    await retry(service)
    shown = await over(service, task, 2)
    assert shown["callback"]["delivered_at"] is not None
    assert len(set(receiver.ids)) == 1, "the receiver sees that it has had this one"


@pytest.mark.parametrize("status", [300, 304, 399, 400, 404, 418, 429, 500, 503, 599])
async def test_s31_an_answer_that_nobody_knows_is_no_success_and_is_kept_as_it_was(
    service: Service, receiver: Receiver, status: int
) -> None:
    receiver.answer = lambda _: status
    shown = await over(service, await ended(service, receiver.url))
    assert shown["callback"]["delivered_at"] is None
    assert shown["callback"]["last_error"] == str(status)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_s31_any_answer_of_success_is_one(service: Service, receiver: Receiver, status: int) -> None:
    receiver.answer = lambda _: status
    assert (await over(service, await ended(service, receiver.url)))["callback"]["delivered_at"] is not None


async def test_s32_a_receiver_that_is_down_blocks_neither_work_nor_cancel(service: Service, receiver: Receiver) -> None:
    receiver.answer = lambda _: BROKEN
    tasks = [await ended(service, receiver.url) for _ in range(5)]
    for task in tasks:
        await over(service, task)
    running = await service.bring(Status.RUNNING, "bytespike", callback_url=receiver.url)
    assert (await service.reported(running["id"], "progressed", percent=50))["progress"]["percent"] == 50
    queued = await service.bring(Status.QUEUED, "bytespike", callback_url=receiver.url)
    assert (await service.native("POST", f"/tasks/{queued['id']}/cancel")).status == 200
    for task in tasks:
        history = await service.history(task)
        assert [event["type"] for event in history].count("completed") == 1, "the same fact is there to be read"
    for attempt in range(2, 7):
        await retry(service)
        for task in tasks:
            shown = await over(service, task, attempt)
            assert shown["callback"]["gave_up"] is (attempt == 6)
    listed = (await service.native("GET", "/callbacks")).json()["callbacks"]
    assert {one["task"] for one in listed} >= set(tasks), "given up, and seen"


async def test_s33_a_late_notice_of_failure_is_not_told(service: Service, receiver: Receiver) -> None:
    task = await ended(service, receiver.url)
    await over(service, task)
    late = await service.report(task, "failed", code="broke", effective_at="2026-01-02T03:04:05Z")
    assert late.json()["late"] is True
    assert (await service.task(task))["status"] == "completed"
    listed = (await service.native("GET", "/callbacks?state=all")).json()["callbacks"]
    assert [one["event"] for one in listed] == ["completed"]
    assert [told.json()["status"] for told in receiver.told] == ["completed"]


async def test_s34_what_is_outside_and_what_is_inside_agree_whenever_it_is_told(
    service: Service, receiver: Receiver
) -> None:
    receiver.answer = lambda _: BROKEN
    key = await service.key("bytespike")
    await service.ask("POST", "/bytespike/api/v1/me/webhooks", key=key, json={"url": receiver.url})
    made = await service.bring(Status.FAILED, "bytespike")
    await over(service, made["id"])
    await service.report(made["id"], "completed", output={"assets": []})  # too late
    receiver.answer = lambda _: FINE
    await retry(service)
    await over(service, made["id"], 2)
    for told in receiver.told:
        body = told.json()
        assert (body["event"], body["data"]["status"]) == ("task.failed", "failed")
    assert receiver.told[0].body == receiver.told[1].body


async def test_s41_fifty_receivers_that_hang_slow_nobody(service: Service, receiver: Receiver) -> None:
    async with receiving() as stuck:
        stuck.answer = lambda _: HANGS
        urls = [f"http://127.0.1.{number}:{stuck.port}{stuck.path}" for number in range(1, 51)]
        for url in urls:
            await ended(service, url)
        tasks = [await ended(service, receiver.url) for _ in range(20)]
        for task in tasks:
            assert (await over(service, task))["callback"]["delivered_at"] is not None
        assert service.callbacks is not None
        assert service.callbacks._lines.busy <= 64
