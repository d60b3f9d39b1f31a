"""Failures that users of other gateways have met, by their numbers: those of silence, deadlines and late truth.

After each scenario the common invariant is checked, by the fixture.
"""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from ledger.silence import SECONDS
from ledger.task import Status
from ledger.times import rfc3339
from tests.builders import CREATED_US, Watched
from tests.http import query
from tests.invariants import books_agree, common_invariant
from tests.serving import ACCOUNT, VENDORS, Service, serving, spelled
from tests.test_scenarios import moved, outcomes, types
from tests.worded import code_of

HOUR = 3600
ENDS: list[dict[str, Any]] = [{"code": "no_channel"}, {"output": {"assets": []}}]
"""What a failure and a completion say."""
DAY = 24 * HOUR
DEADLINE = rfc3339(CREATED_US + HOUR * 1_000_000)


@pytest.fixture
async def service(watched: Watched) -> AsyncIterator[Service]:
    async with serving(watched) as running:
        assert running.books is not None
        await running.books.consult(lambda books: books_agree(watched, books))  # kept from here on
        yield running
        await common_invariant(watched.engine)
        await running.books.consult(lambda books: books_agree(watched, books))


async def later(service: Service, seconds: int) -> None:
    service.clock.advance(seconds)
    await service.sweeper.sweep()


async def breaks(service: Service) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await service.native("GET", "/billing/breaks")).json()["breaks"]
    return found


async def test_s10_when_a_provider_is_gone_its_fifty_jobs_are_of_unknown_fate_and_none_is_failed(
    service: Service,
) -> None:
    tasks = [(await service.bring(Status.RUNNING))["id"] for _ in range(50)]
    await later(service, SECONDS)  # nobody can be asked any more, so nobody reports
    page = (await service.native("GET", "/tasks?stalled=true&limit=200")).json()["tasks"]
    assert sorted(task["id"] for task in page) == sorted(tasks)
    assert {(task["status"], task["billing"]["held_credits"]) for task in page} == {("running", "1.5")}
    for task in tasks:
        events = await service.history(task)
        assert (outcomes(events), moved(events), events[-1]["type"]) == ([], [], "stalled")
    await later(service, 2 * DAY)
    position, held = await service.position(), {"breaks": 50, "at_stake_credits": "75"}
    told = (await service.native("GET", "/billing/reconciliation")).json()
    assert told["found"]["unsettled"] == held, "held for longer than a day"
    assert await service.position() == position, "to look changes nothing"
    opened = (await service.native("POST", "/billing/reconciliation")).json()
    assert (opened["new"]["unsettled"], opened["open"]["unsettled"]) == (held, held)
    again = (await service.native("POST", "/billing/reconciliation")).json()
    assert (again["new"], again["open"]) == ({}, opened["open"]), "each of them once"
    listed = (await service.native("GET", "/billing/breaks?kind=unsettled&limit=200")).json()["breaks"]
    assert sorted(one["task"] for one in listed) == sorted(tasks)
    for number, task in enumerate(tasks):  # and what became of them, once that is known, is decided one by one
        told = await service.reported(task, *(("completed",) if number % 2 else ("failed",)), **ENDS[number % 2])
        assert told["billing"]["net_credits"] == ("1.5" if number % 2 else "0")


async def test_s12_what_was_settled_and_is_then_proven_failed_is_given_back_by_an_event_or_not_said_to_be(
    service: Service,
) -> None:
    task = (await service.bring(Status.COMPLETED))["id"]
    await later(service, HOUR)
    late = await service.reported(task, "failed", code="upstream")
    assert (late["late"], late["billing"]["refunded_credits"], late["billing"]["net_credits"]) == (True, "0", "1.5")
    await service.sweeper.sweep()
    (opened,) = await breaks(service)
    assert (opened["kind"], opened["at_stake_credits"], opened["task"]) == ("status-conflict", "1.5", task)
    assert types(await service.history(task))["refunded"] == 0
    assert await told_as_refunded(service, task) == ("0", "0")
    await service.reported(task, "refunded", amount_credits="1.5", key=f"break-{opened['id']}")
    said = {"type": "resolve", "reason": "given back", "position": await service.position()}
    resolved = (await service.native("POST", f"/billing/breaks/{opened['id']}", said)).json()
    assert (resolved["life"], resolved["corrected_by"]) == ("corrected", said["position"]), "by that very event"
    assert types(await service.history(task))["refunded"] == 1
    assert await told_as_refunded(service, task) == ("1.5", "1.5")
    assert (await service.task(task))["billing"]["net_credits"] == "0"
    again = await service.report(task, "refunded", amount_credits="1.5", key="once more")
    assert (again.status, code_of("ledger", again)) == (422, "amount_exceeds")
    await service.sweeper.sweep()
    assert await breaks(service) == []


async def told_as_refunded(service: Service, task: str) -> tuple[str, str]:
    """By the task, and by the books."""
    books = (await service.native("GET", "/billing/summary")).json()["total"]
    return (await service.task(task))["billing"]["refunded_credits"], books["refunded_credits"]


async def test_s13_a_stranded_hold_ages_in_sight_ends_by_its_deadline_and_blocks_no_refund(service: Service) -> None:
    limit = await service.native("PUT", f"/accounts/{ACCOUNT}/limit", {"limit_credits": "5"})
    assert limit.status == 200
    stranded = (await service.bring(Status.RUNNING, estimated_credits="3", expires_at=DEADLINE))["id"]
    other = (await service.bring(Status.COMPLETED, estimated_credits="2"))["id"]
    await later(service, SECONDS)
    shown = await service.task(stranded)
    assert (shown["stalled_since"], shown["billing"]["held_credits"]) == (rfc3339(CREATED_US), "3")
    assert (await service.report(other, "refunded", amount_credits="2", key="r")).status == 200
    await later(service, HOUR - SECONDS)  # the same process goes on
    assert (await service.task(stranded))["status"] == "expired"
    account = (await service.native("GET", f"/accounts/{ACCOUNT}")).json()
    assert (account["held_credits"], account["available_credits"]) == ("0", "5")


@pytest.mark.parametrize("contract", VENDORS)
async def test_s30_a_timeout_is_no_verdict_the_result_still_comes_and_is_charged_once(
    service: Service, contract: str
) -> None:
    created = await service.bring(Status.RUNNING, contract)
    task = created["id"]
    await later(service, SECONDS)
    shown = await service.client(contract, query(contract, spelled(task)))
    assert "failed" not in shown.body.decode().lower(), "the customer is told of no failure"
    assert (await service.task(task))["billing"] == created["billing"], "nothing was given back"
    output = {"assets": [{"kind": "video", "url": "https://example.com/v.mp4"}]}
    done = await service.reported(task, "completed", output=output)
    assert (done["status"], done["output"], done["stalled_since"]) == ("completed", output, None)
    await later(service, DAY)
    events = await service.history(task)
    assert (types(events)["charged"], types(events)["refunded"]) == (1, 0)
    assert done["billing"]["net_credits"] == done["billing"]["estimated_credits"]


async def test_s31_an_unknown_word_is_told_at_once_costs_nobody_the_job_and_the_right_word_repairs_it(
    service: Service,
) -> None:
    task = (await service.bring(Status.RUNNING))["id"]
    before = await service.history(task)
    unknown = await service.report(task, "succeeded")
    assert (unknown.status, code_of("ledger", unknown)) == (422, "invalid_request")
    assert "succeeded" in unknown.json()["detail"], "the word itself"
    assert service.logged()[-1]["refusal"] == "Invalid"
    assert await service.history(task) == before
    await service.sweeper.sweep()
    (opened,) = await breaks(service)
    assert (opened["kind"], opened["task"]) == ("status-conflict", task)
    assert "succeeded" in opened["detail"]
    raw = await service.reported(task, "progressed", stage="SUCCEEDED_WITH_WARNINGS")
    assert (raw["status"], raw["progress"]["stage"]) == ("running", "SUCCEEDED_WITH_WARNINGS")
    await later(service, SECONDS)
    assert (await service.task(task))["status"] == "running", "an unknown word is no failure, however long it is polled"
    assert (await service.reported(task, "completed"))["status"] == "completed"
    assert outcomes(await service.history(task)) == ["completed"]
