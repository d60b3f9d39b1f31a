"""A webhook that is changed while it is being posted to: what waits is told at its new address, and nothing is lost."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from ledger.memory import MemoryEngine
from ledger.task import Status
from tests.receiving import BROKEN, FINE, GONE, HANGS, TO_LOOPBACK, Receiver, receiving
from tests.serving import Service, serving
from tests.test_bytespike_webhooks import added, ask
from tests.test_callbacks import over, retry


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as one:
        yield one


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with serving(MemoryEngine(), calls=TO_LOOPBACK) as running:
        yield running


def held_back(receiver: Receiver, status: int) -> None:
    """It answers with *status*, but not before it is let go."""
    receiver.answer = lambda _: HANGS
    receiver.late = status


async def test_a_try_that_fails_at_the_old_address_comes_again_at_the_new_one(
    service: Service, receiver: Receiver
) -> None:
    held_back(receiver, BROKEN)
    hook = await added(service, receiver)
    made = await service.bring(Status.COMPLETED, "bytespike")
    await receiver.until(1)
    async with receiving() as other:
        await ask(service, "PUT", f"/{hook['id']}", {"url": other.url})
        await asyncio.sleep(0.1)  # the queue has seen it
        receiver.hung.set()
        await over(service, made["id"])
        await retry(service)
        await over(service, made["id"], 2)
        assert other.ids == receiver.ids


async def test_what_waits_behind_those_that_are_under_way_at_the_old_address_is_told_at_the_new_one(
    service: Service, receiver: Receiver
) -> None:
    held_back(receiver, FINE)
    hook = await added(service, receiver)
    made = [await service.bring(Status.COMPLETED, "bytespike") for _ in range(40)]
    await receiver.until(1)
    first, receiver.hung = receiver.hung, asyncio.Event()
    receiver.answer = lambda _: FINE if len(receiver.told) < 6 else HANGS
    first.set()  # each answer widens the line
    await receiver.until(10)
    async with receiving() as other:
        await ask(service, "PUT", f"/{hook['id']}", {"url": other.url})
        await asyncio.sleep(0.1)
        receiver.hung.set()
        for one in made:
            await over(service, one["id"])
        assert len(other.told) > 10
        assert len({*receiver.ids, *other.ids}) == 40


async def test_a_receiver_that_is_gone_ends_nothing_at_the_address_that_came_after_it(
    service: Service, receiver: Receiver
) -> None:
    held_back(receiver, GONE)
    hook = await added(service, receiver)
    made = await service.bring(Status.COMPLETED, "bytespike")
    await receiver.until(1)
    async with receiving() as other:
        await ask(service, "PUT", f"/{hook['id']}", {"url": other.url})
        receiver.hung.set()
        await over(service, made["id"])
        await retry(service)
        await over(service, made["id"], 2)
        assert other.ids == receiver.ids
    (shown,) = (await ask(service, "GET")).json()["data"]
    assert shown["enabled"] is True
