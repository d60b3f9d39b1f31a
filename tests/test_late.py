"""Late truth: what is reported after an outcome that it contradicts is kept, becomes one break, and changes nothing."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from ledger.engine import Engine
from ledger.events import BreakKind
from ledger.sqlite import open_to_serve
from ledger.task import Status
from projections.deadlines.late_reports import Late, late_truth
from scripts.cli import app, run
from tests.builders import Watched
from tests.invariants import common_invariant
from tests.rules_dsl import cancel, complete, create, expire, fail, given, start
from tests.serving import Service, serving

CREDIT = 1_000_000
DONE, BROKEN, STOPPED = "completed", "failed", "cancelled"
CONFLICT, AMOUNT = BreakKind.STATUS_CONFLICT, BreakKind.AMOUNT

HISTORIES: dict[str, Sequence[Any]] = {
    "completed": (create(), start(), complete(7)),
    "failed": (create(), start(), fail()),
    "cancelled": (create(), cancel()),
    "expired": (create(), start(), expire()),
}
"""Completed at seven credits of the ten that were estimated; the others cost nothing."""

CASES: list[tuple[str, list[tuple[str, int | None]], tuple[BreakKind, int] | None]] = [
    ("completed", [(DONE, None)], None),  # said again, without an amount
    ("completed", [(DONE, 7)], None),
    ("completed", [(DONE, 9)], (AMOUNT, 2)),
    ("completed", [(BROKEN, None)], (CONFLICT, 7)),  # all that was charged would have to be given back
    ("completed", [(BROKEN, 3)], (CONFLICT, 4)),
    ("completed", [(STOPPED, None)], (CONFLICT, 7)),
    ("completed", [("charged", 2)], (AMOUNT, 2)),
    ("completed", [(DONE, 9), (BROKEN, None)], (CONFLICT, 7)),  # another status before another amount
    ("failed", [(DONE, None)], (CONFLICT, 10)),  # the estimate, as of a completion that names no amount
    ("failed", [(DONE, 4)], (CONFLICT, 4)),
    ("failed", [(STOPPED, None)], None),  # in which way it did not complete moves no money
    ("failed", [(BROKEN, 1)], (AMOUNT, 1)),
    ("cancelled", [(DONE, None)], (CONFLICT, 10)),
    ("cancelled", [(BROKEN, 0)], None),
    ("expired", [(DONE, 8)], (CONFLICT, 8)),
    ("expired", [(BROKEN, None)], None),
    ("expired", [("charged", 1)], (AMOUNT, 1)),
]


@pytest.mark.parametrize(("status", "said", "wanted"), CASES)
def test_what_differs_is_told_once_with_what_is_at_stake(
    status: str, said: list[tuple[str, int | None]], wanted: tuple[BreakKind, int] | None
) -> None:
    task = given(*HISTORIES[status]).task
    found = late_truth(task, [Late(one, None if claim is None else claim * CREDIT) for one, claim in said])
    told = None if found is None else (found.kind, found.at_stake_micros // CREDIT)
    assert (task.status, told) == (status, wanted)


def test_a_task_that_is_run_once_more_has_no_outcome_to_contradict() -> None:
    task = replace(given(*HISTORIES["failed"]).task, status=Status.RUNNING)
    assert late_truth(task, [Late(DONE, CREDIT)]) is None


def test_it_is_the_break_that_a_statement_would_open_whoever_finds_it_first() -> None:
    task = given(*HISTORIES["failed"]).task
    one, other = late_truth(task, [Late(DONE, CREDIT)]), late_truth(task, [Late(DONE, 2 * CREDIT)])
    assert one is not None
    assert other is not None
    assert one.break_id == other.break_id
    assert "completed and 1 credits" in one.detail


# The service


@pytest.fixture
async def service(watched: Watched) -> AsyncIterator[Service]:
    async with serving(watched) as running:
        yield running
        await common_invariant(watched.engine)


async def breaks(service: Service) -> list[dict[str, Any]]:
    reply = await service.native("GET", "/billing/breaks?life=all")
    assert reply.status == 200, reply
    found: list[dict[str, Any]] = reply.json()["breaks"]
    return found


async def test_a_result_after_the_end_opens_one_break_however_often_it_comes(service: Service) -> None:
    task = (await service.bring(Status.FAILED))["id"]
    before = await service.task(task)
    for number in range(3):
        await service.reported(task, "completed", actual_credits="1.5", event_id=f"e{number}")
        await service.sweeper.sweep()
    (opened,) = await breaks(service)
    assert (opened["kind"], opened["task"], opened["at_stake_credits"]) == ("status-conflict", task, "1.5")
    after = await service.task(task)
    assert (after["status"], after["billing"]) == (before["status"], before["billing"])
    assert after["late_reports"] == 3


async def test_a_report_that_agrees_or_says_nothing_of_the_end_opens_none(service: Service) -> None:
    task = (await service.bring(Status.COMPLETED))["id"]
    for kind, fields in (("completed", {}), ("progressed", {"percent": 50}), ("started", {"worker": "w"})):
        assert (await service.reported(task, kind, **fields))["late"]
    await service.sweeper.sweep()
    assert await breaks(service) == []


async def test_a_break_that_was_put_right_is_not_opened_again(service: Service) -> None:
    task = (await service.bring(Status.COMPLETED))["id"]
    await service.reported(task, "failed", code="broke")
    await service.sweeper.sweep()
    (opened,) = await breaks(service)
    refunded = await service.reported(task, "refunded", amount_credits="1.5", key="r1")
    assert refunded["billing"]["net_credits"] == "0"
    resolve = {"type": "resolve", "reason": "given back", "position": await service.position()}
    assert (await service.native("POST", f"/billing/breaks/{opened['id']}", resolve)).status == 200
    await service.reported(task, "failed", code="broke", event_id="again")
    await service.sweeper.sweep()
    assert [(one["id"], one["life"]) for one in await breaks(service)] == [(opened["id"], "corrected")]


async def test_many_late_reports_are_seen_to_in_one_sweep(service: Service) -> None:
    tasks = [(await service.bring(Status.FAILED))["id"] for _ in range(45)]
    for task in tasks:
        await service.reported(task, "completed")
    await service.sweeper.sweep()
    assert sorted(one["task"] for one in await breaks(service)) == sorted(tasks)


async def test_the_self_check_over_http_finds_it_and_writes_nothing(service: Service) -> None:
    task = (await service.bring(Status.FAILED))["id"]
    await service.reported(task, "completed")
    before = await service.position()
    told = (await service.native("GET", "/billing/reconciliation")).json()
    assert (told["found"]["status-conflict"]["breaks"], told["new"]["status-conflict"]["breaks"]) == (1, 1)
    assert await service.position() == before
    await service.sweeper.sweep()
    told = (await service.native("GET", "/billing/reconciliation")).json()
    assert (told["open"]["status-conflict"]["breaks"], "status-conflict" in told["new"]) == (1, False)


def test_the_self_check_on_the_command_line_opens_it_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "ledger.db"

    async def contradicted() -> None:
        async with serving(await open_to_serve(path)) as service:
            task = (await service.bring(Status.COMPLETED))["id"]
            await service.reported(task, "failed", code="broke")

    asyncio.run(contradicted())
    store = ["--store", f"sqlite:{path}"]
    for mode, new in ((["--dry-run"], "1"), ([], "1"), ([], "0")):
        assert run(app, ["reconcile", *mode, *store]) == 1
        (row,) = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("total")]
        assert (row[1], row[2]) == ("1", new)
    assert run(app, ["breaks", "list", *store]) == 0
    assert "failed was reported after it was completed" in capsys.readouterr().out


async def test_what_was_reported_while_nobody_followed_is_found_later(engine: Engine) -> None:
    async with serving(engine) as service:
        task = (await service.bring(Status.FAILED))["id"]
        await service.reported(task, "completed")
        await service.sweeper.close()
        service.sweeper.path.unlink(missing_ok=True)  # thrown away
        await service.sweeper.sweep()
        assert [one["task"] for one in await breaks(service)] == [task]
