"""Reports that cannot be read: noted, told as breaks by the sweep, and never in the way of anything."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from ledger.errors import StorageError
from ledger.task import NO_TASK, TERMINAL, Status
from ledger.unread import REASON_MAX_CHARS, UNREAD_MAX, Unread, UnreadReports, unread_truth
from tests.builders import CREATED_US, Watched, ident
from tests.invariants import common_invariant
from tests.rules_dsl import HOLD
from tests.serving import Service, serving


@pytest.fixture
async def service(watched: Watched) -> AsyncIterator[Service]:
    async with serving(watched) as running:
        yield running
        await common_invariant(watched.engine)


async def breaks(service: Service) -> list[dict[str, Any]]:
    await service.sweeper.sweep()
    found: list[dict[str, Any]] = (await service.native("GET", "/billing/breaks")).json()["breaks"]
    return found


def test_the_last_of_each_task_is_kept_and_no_more_tasks_than_the_bound() -> None:
    noted = UnreadReports()
    for number in range(UNREAD_MAX + 5):
        noted.note(ident(number), "x" * 1000, at_us=number)
    noted.note(ident(10), "again", at_us=1)
    kept = noted.all()
    assert (len(kept), kept[0][0], kept[-1]) == (UNREAD_MAX, ident(5), (ident(10), Unread("again", 1)))
    assert {len(one.reason) for _, one in kept[:-1]} == {REASON_MAX_CHARS}


def test_what_came_while_it_was_told_is_not_forgotten() -> None:
    noted = UnreadReports()
    noted.note(ident(1), "first", at_us=1)
    ((task, first),) = noted.all()
    noted.note(ident(1), "second", at_us=2)
    noted.done(task, first)
    assert noted.all() == [(ident(1), Unread("second", 2))]
    noted.done(*noted.all()[0])
    assert noted.all() == []


@pytest.mark.parametrize("status", sorted(TERMINAL))
def test_of_a_task_that_is_over_nothing_is_unknown(status: Status) -> None:
    assert unread_truth(replace(NO_TASK, status=status), Unread("r", 1)) is None


def test_at_stake_is_what_is_held_and_paid_or_else_the_price() -> None:
    task = replace(NO_TASK, status=Status.RUNNING, terms=HOLD)
    found = [unread_truth(one, Unread("r", 7)) for one in (task, replace(task, held_micros=3, charged_micros=2))]
    assert [one and (one.at_stake_micros, one.since_us) for one in found] == [(10_000_000, 7), (5, 7)]


async def test_a_line_of_many_that_cannot_be_read_is_told_as_well(service: Service) -> None:
    task = (await service.bring(Status.RUNNING))["id"]
    line = msgspec.json.encode({"task": task, "type": "FAILURE"})
    told = (("Content-Type", "application/x-ndjson"),)
    await service.ask("POST", "/ledger/v1/events", key=service.worker, body=line, headers=told)
    assert [(one["task"], "FAILURE" in one["detail"]) for one in await breaks(service)] == [(task, True)]


async def test_a_report_that_can_be_read_is_not_unread_for_a_header_of_its_request(service: Service) -> None:
    task = (await service.bring(Status.RUNNING))["id"]
    report = {"type": "completed", "actual_credits": "1.2"}
    for version, status in (("three", 422), ('"99"', 412)):
        reply = await service.native("POST", f"/tasks/{task}/events", report, If_Match=version)
        assert reply.status == status
    assert await breaks(service) == []


async def test_of_many_that_cannot_be_read_the_breaks_share_commits_and_hold_up_no_sweep(
    service: Service, watched: Watched
) -> None:
    tasks = [(await service.create())["id"] for _ in range(50)]
    for task in tasks:
        await service.report(task, "FAILURE")
    watched.commits.clear()
    assert {one["task"] for one in await breaks(service)} == {*tasks}
    assert len(watched.commits) < 10


async def test_what_names_no_task_or_one_that_is_over_opens_nothing(service: Service) -> None:
    over = (await service.bring(Status.FAILED))["id"]
    for task in (over, "019b4e5a-7000-8000-8000-000000000001"):
        await service.report(task, "FAILURE")
    assert await breaks(service) == []
    assert service.ledger.unread.all() == []


async def test_a_break_that_could_not_be_written_is_opened_by_the_next_sweep(
    service: Service, watched: Watched
) -> None:
    task = (await service.bring(Status.RUNNING))["id"]
    await service.report(task, "FAILURE")
    watched.commit_faults.append(StorageError("the disk is full"))
    with pytest.raises(StorageError):
        await service.sweeper.sweep()
    assert [one["task"] for one in await breaks(service)] == [task]
    service.clock.now_us = CREATED_US + 1
    await service.report(task, "FAILURE")
    assert len(await breaks(service)) == 1
