"""Sixty-four at once on one task: one wins, everybody is told the same, and the money moves once."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest

from ledger.ids import TaskId
from ledger.sqlite import open_to_serve
from ledger.task import Status
from tests.http import cancel, query, spell
from tests.invariants import OUTCOMES, common_invariant
from tests.serving import VENDORS, Service, serving, spelled
from tests.wire import Reply

AT_ONCE = 64
SEEDS = range(4)

WORDS = {  # how each contract calls how a race may end, and what was before
    "lemondata": {"queued": "pending", "running": "processing", "completed": "completed", "cancelled": "failed"},
    "bytespike": {"queued": "pending", "running": "running", "completed": "completed", "cancelled": "cancelled"},
    "chunkr": {"queued": "Starting", "running": "Processing", "completed": "Succeeded", "cancelled": "Cancelled"},
    "beatra": {"queued": "queued", "running": "running", "completed": "succeeded", "cancelled": "canceled"},
    "ledger": {"queued": "queued", "running": "running", "completed": "completed", "cancelled": "cancelled"},
}
NET = {"lemondata": "1.5", "bytespike": "1.5", "chunkr": "0.01", "beatra": "80"}
"""What a completed task has cost in the end; a cancelled one costs nothing."""


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with serving(await open_to_serve(tmp_path / "ledger.db")) as running:
        yield running


class Race(NamedTuple):
    """One task and all who ask about it."""

    service: Service
    contract: str
    task: TaskId

    async def run(self, seed: int, *actors: str) -> dict[str, list[Reply]]:
        """Equally many of each actor and of the readers of every contract, at once, in an order of the seed's."""
        kinds = [*actors, "read"]
        order = [kinds[number % len(kinds)] for number in range(AT_ONCE)]
        Random(f"{self.contract}/{seed}").shuffle(order)
        ask: dict[str, Callable[[int], Awaitable[Reply]]] = {
            "cancel": lambda _: self.cancel(),
            "complete": lambda _: self.report("completed"),
            "start": lambda number: self.report("started", worker=f"w{number}"),
            "read": lambda number: self.read(VENDORS[number % len(VENDORS)]),
        }
        replies = await asyncio.gather(*(ask[actor](number) for number, actor in enumerate(order)))
        told: dict[str, list[Reply]] = {kind: [] for kind in kinds}
        for actor, reply in zip(order, replies, strict=True):
            told[actor].append(reply)
        assert all(reply.status < 500 for reply in replies)
        return told

    async def cancel(self) -> Reply:
        return await self.service.client(self.contract, cancel(self.contract, self.task))

    async def read(self, contract: str) -> Reply:
        return await self.service.client(contract, query(contract, self.task))

    async def report(self, kind: str, **fields: str) -> Reply:
        return await self.service.report(spell("lemondata", self.task), kind, **fields)

    async def end(self) -> tuple[str, Counter[str]]:
        """How it ended, which every reader in every contract is told alike, and what has happened, how often."""
        seen = await self.service.task(spell("lemondata", self.task))
        status = str(seen["status"])
        for contract in VENDORS:
            assert (await self.read(contract)).json()["status"] == WORDS[contract][status]
        history = (await common_invariant(self.service.ledger.engine))[self.task]
        types = Counter(row.entry.type for row in history)
        assert sum(types[name] for name in OUTCOMES) == (status in OUTCOMES)
        if status in OUTCOMES:
            assert seen["billing"]["held_credits"] == "0"
            assert seen["billing"]["net_credits"] == (NET[self.contract] if status == "completed" else "0")
        return status, types


async def race(service: Service, contract: str, status: Status = Status.QUEUED) -> Race:
    task = spelled((await service.bring(status, contract))["id"])
    for vendor in VENDORS:
        await service.key(vendor)  # issued now, not while they race
    return Race(service, contract, task)


def statuses(replies: list[Reply]) -> Counter[int]:
    return Counter(reply.status for reply in replies)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("contract", VENDORS)
async def test_of_cancel_and_complete_on_a_queued_task_one_wins(service: Service, contract: str, seed: int) -> None:
    it = await race(service, contract)
    told = await it.run(seed, "cancel", "complete")
    winner, types = await it.end()
    assert winner in {"cancelled", "completed"}
    in_time = [reply for reply in told["complete"] if not reply.json().get("late")]
    assert len(in_time) == (winner == "completed")
    assert {reply.json()["status"] for reply in told["complete"]} == {winner}
    assert types["late-reported"] == len(told["complete"]) - len(in_time)
    cancels = statuses(told["cancel"])
    if contract in {"lemondata", "chunkr"}:
        assert cancels[200] == (winner == "cancelled")
        assert cancels[200] + cancels[409 if contract == "lemondata" else 400] == len(told["cancel"])
    else:
        assert {reply.json()["status"] for reply in told["cancel"]} == {WORDS[contract][winner]}
        assert cancels[202] == (winner == "cancelled" and contract == "beatra")
        assert cancels[200] + cancels[202] == len(told["cancel"])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("contract", VENDORS)
async def test_of_cancel_and_start_on_a_queued_task_the_first_decides(
    service: Service, contract: str, seed: int
) -> None:
    it = await race(service, contract)
    told = await it.run(seed, "cancel", "start")
    status, types = await it.end()
    starts, cancels = statuses(told["start"]), statuses(told["cancel"])
    started = [reply for reply in told["start"] if reply.status == 200 and not reply.json().get("late")]
    assert len(started) == types["started"] <= 1
    assert starts[200] + starts[409] == len(told["start"])
    match contract, status:
        case "lemondata" | "chunkr", "running":
            assert (types["started"], types["cancelled"], cancels[200]) == (1, 0, 0)
        case "lemondata" | "chunkr", "cancelled":
            assert (types["started"], types["cancelled"], cancels[200]) == (0, 1, 1)
        case "beatra", "running":
            assert (types["started"], types["cancel-requested"], types["cancelled"]) == (1, 1, 0)
            assert cancels == {202: len(told["cancel"])}
        case "beatra", "cancelled":
            assert (types["started"], cancels[202]) == (0, 1)
        case "bytespike", "cancelled":
            assert cancels == {200: len(told["cancel"])}
        case _:
            raise AssertionError(status)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("contract", VENDORS)
async def test_of_cancel_and_complete_on_a_running_task_the_contract_says_who_can_win(
    service: Service, contract: str, seed: int
) -> None:
    it = await race(service, contract, Status.RUNNING)
    told = await it.run(seed, "cancel", "complete")
    winner, types = await it.end()
    assert winner == "completed" or contract == "bytespike"
    in_time = [reply for reply in told["complete"] if not reply.json().get("late")]
    assert len(in_time) == (winner == "completed")
    cancels = statuses(told["cancel"])
    match contract:
        case "lemondata":
            assert cancels == {409: len(told["cancel"])}
        case "chunkr":
            assert cancels == {400: len(told["cancel"])}
        case "bytespike":
            assert {reply.json()["status"] for reply in told["cancel"]} == {winner}
        case _:
            assert cancels[200] + cancels[202] == len(told["cancel"])
            assert types["cancel-requested"] == (cancels[202] > 0)


@pytest.mark.parametrize("seed", SEEDS)
async def test_of_cancels_through_every_contract_and_every_outcome_at_once_one_wins(
    service: Service, seed: int
) -> None:
    task = (await race(service, "bytespike")).task
    through = [Race(service, vendor, task) for vendor in VENDORS]
    asks: list[Awaitable[Reply]] = [it.cancel() for it in through for _ in range(8)]
    asks += [it.report("completed") for it in through for _ in range(4)]
    asks += [it.report("failed", code="broke") for it in through for _ in range(4)]
    Random(seed).shuffle(asks)
    assert len(asks) == AT_ONCE
    assert all(reply.status < 500 for reply in await asyncio.gather(*asks))
    history = (await common_invariant(service.ledger.engine))[task]
    types = Counter(row.entry.type for row in history)
    assert sum(types[name] for name in OUTCOMES) == 1
    assert types["charged"] + types["released"] == 1
