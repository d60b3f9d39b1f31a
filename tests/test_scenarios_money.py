"""More failures that users of other gateways have met, by their numbers: those of money, on every engine.

After each scenario the common invariant is checked, by the fixture.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace as struct_replace

from api.native_shapes import task_view
from ledger.catalogue import Catalogue
from ledger.errors import StorageError
from ledger.keys import Role
from ledger.silence import SECONDS
from ledger.task import Status
from ledger.times import rfc3339
from projections.books.books import open_books
from projections.explain.explain import Explanation, Show, explanations
from projections.explain.fields import MONEY
from projections.explain.steps import Step, steps_of
from projections.reports.report import By, Line, Wanted, draw
from tests import serving as serving_of_tests
from tests.builders import CREATED_US, Gate, Store, Watched
from tests.http import MODELS, cancel, query, spell
from tests.invariants import books_agree, common_invariant
from tests.serving import ACCOUNT, CATALOGUE, VENDORS, Service, serving, spelled
from tests.test_scenarios import moved, outcomes, types
from tests.wire import Reply
from tests.worded import code_of

MINUTE, HOUR = 60, 3600
LOST = [False, True]
"""Whether a commit that fails has been written all the same."""


def deadline(seconds: int) -> str:
    return rfc3339(CREATED_US + seconds * 1_000_000)


@pytest.fixture
async def service(watched: Watched) -> AsyncIterator[Service]:
    async with serving(watched) as running:
        assert running.books is not None
        await running.books.consult(lambda books: books_agree(watched, books))  # kept from here on
        yield running
        await common_invariant(watched.engine)
        await running.books.consult(lambda books: books_agree(watched, books))


async def restarted(store: Store, watched: Watched) -> Watched:
    """The log after a restart of the service; one in memory is handed over, since it would be gone."""
    return Watched(await store.open()) if store.kind.persists else watched


async def booked(watched: Watched, folder: Path, by: By = By.ACCOUNT) -> Line:
    """All of the books, which have one line by whatever they are told apart."""
    books = await open_books(folder / "books", watched)
    try:
        drawn = await draw(watched, books, Wanted(by=by))
    finally:
        await books.close()
    (line,) = drawn.lines
    assert struct_replace(line, key="total") == drawn.total
    return line


async def steps(watched: Watched, task: str) -> list[Step]:
    return [*steps_of(spelled(task), await watched.streams([spelled(task)]))]


def shows(watched: Watched) -> Show:
    return lambda after, position: task_view(after, position=position, log_id=watched.log_id)


async def explained(watched: Watched, task: str) -> dict[str, Explanation]:
    told = explanations(await steps(watched, task), [*MONEY], shows(watched))
    return {one.field.removeprefix("billing."): one for one in told}


# S02


@pytest.mark.parametrize("written", LOST, ids=["not written", "written, not told"])
async def test_s02_a_refund_whose_write_failed_is_retried_and_given_once(
    service: Service, watched: Watched, *, written: bool
) -> None:
    task = (await service.bring(Status.RUNNING, "beatra", estimated_credits="100"))["id"]
    watched.faults_come_late = written
    watched.commit_faults.append(StorageError("no row was touched"))
    replies = [await service.report(task, "failed", code="upstream", event_id="f1") for _ in range(4)]
    assert [reply.status for reply in replies] == [503, 200, 200, 200]
    shown = await service.task(task)
    assert (shown["status"], shown["billing"]["net_credits"]) == ("failed", "0")
    assert moved(await service.history(task)) == [("refunded", "100")]


# S03


@pytest.mark.parametrize("sweep_first", [True, False])
async def test_s03_a_sweep_and_a_request_that_still_runs_settle_a_hold_once(
    service: Service, *, sweep_first: bool
) -> None:
    task = (await service.bring(Status.RUNNING, expires_at=deadline(20 * MINUTE)))["id"]
    service.clock.advance(20 * MINUTE)
    if sweep_first:
        await service.sweeper.sweep()
        service.clock.advance(20 * MINUTE)
    reply = await service.report(task, "completed", actual_credits="1.2")
    service.clock.advance(20 * MINUTE)
    await service.sweeper.sweep()
    assert (reply.status, reply.json().get("late", False)) == (200, sweep_first)
    events = await service.history(task)
    assert outcomes(events) == (["expired"] if sweep_first else ["completed"])
    assert moved(events) == ([("released", "1.5")] if sweep_first else [("charged", "1.2"), ("released", "0.3")])
    late = [event["data"]["claimed_micros"] for event in events if event["type"] == "late-reported"]
    assert late == ([1_200_000] if sweep_first else [])
    opened = (await service.native("GET", "/billing/breaks")).json()["breaks"]
    assert [(one["kind"], one["task"]) for one in opened] == ([("status-conflict", task)] if sweep_first else [])


# S05


async def test_s05_two_operators_who_press_refund_at_once_give_it_back_once_and_the_second_sees_by_whom(
    service: Service,
) -> None:
    task = (await service.bring(Status.COMPLETED))["id"]
    tabs = [await service.key("ledger", account=f"operator-{number}", role=Role.OPERATOR) for number in range(2)]
    body = {"type": "refunded", "amount_credits": "1.5"}
    presses = [
        service.native("POST", f"/tasks/{task}/events", {**body, "key": f"press-{number}"}, key=tabs[number])
        for number in (0, 0, 1)
    ]
    looks = [service.native("GET", f"/tasks/{task}", key=key) for key in tabs]
    replies = (await asyncio.gather(*presses, *looks))[:3]
    refused = [reply for reply in replies if reply.status != 200]
    (back,) = [event for event in await service.history(task) if event["type"] == "refunded"]
    winner = back["data"]["key"]
    assert len(refused) == (1 if winner == "refunded:press-0" else 2)
    for reply in refused:
        assert (reply.status, code_of("ledger", reply)) == (422, "amount_exceeds")
        assert winner in reply.json()["settled_by"]
    assert back["actor"] == tabs[0 if winner == "refunded:press-0" else 1].split("_")[1]
    assert (await service.task(task))["billing"]["net_credits"] == "0"


class PaymentProvider:
    """Pays money back out, which takes its time and may be declined; it counts what it is asked."""

    def __init__(self) -> None:
        self.gate, self.calls = Gate(), list[str]()
        self.declines = False

    async def pay_back(self, key: str) -> bool:
        assert key not in self.calls, "it would pay twice"
        self.calls.append(key)
        await self.gate.pass_through()
        return not self.declines


@pytest.mark.parametrize("declines", [False, True], ids=["paid", "declined"])
async def test_s05_while_a_refund_is_in_flight_at_the_payment_provider_nobody_starts_it_again_and_all_see_who_did(
    *, service: Service, declines: bool
) -> None:
    provider, path = PaymentProvider(), f"/accounts/{ACCOUNT}"
    operators = [await service.key("ledger", account=f"operator-{number}", role=Role.OPERATOR) for number in range(2)]
    for change, body in (  # of another operator, and over
        ("grants", {"amount_credits": "5", "key": "order-6"}),
        ("revocations", {"amount_credits": "5", "key": "payout-6", "grant": "order-6"}),
    ):
        assert (await service.native("POST", f"{path}/{change}", body)).status == 200
    given = await service.native("POST", f"{path}/grants", {"amount_credits": "5", "key": "order-7"})
    assert given.json()["granted_credits"] == "5"

    async def press(operator: str) -> Reply:
        """Take the credit first; whoever was first with it asks the payment provider, under the same key."""
        body = {"grant": "order-7", "amount_credits": "5", "key": "payout-7"}
        reply = await service.native("POST", f"{path}/revocations", body, key=operator)
        if "idempotent-replayed" not in reply.headers and not await provider.pay_back("payout-7"):
            back = {"amount_credits": "5", "key": "payout-7 declined"}
            assert (await service.native("POST", f"{path}/grants", back, key=operator)).status == 200
        return reply

    provider.declines = declines
    provider.gate.shut()
    pressed = [asyncio.create_task(press(operator)) for operator in (*operators, operators[0])]
    await provider.gate.someone_waits()
    looks = await asyncio.gather(*(service.native("GET", path, key=operator) for operator in operators * 2))
    assert {(look.json()["granted_credits"], look.json()["available_credits"]) for look in looks} == {("0", "0")}
    late = await press(operators[1])
    provider.gate.open()
    replies = [*await asyncio.gather(*pressed), late]
    assert provider.calls == ["payout-7"]
    assert {(reply.status, reply.json()["granted_credits"]) for reply in replies} == {(200, "0")}
    (holder,) = {reply.json()["moved_by"] for reply in replies}
    assert holder in {operator.split("_")[1] for operator in operators}, "each of them sees whose press it was"
    (first,) = [reply for reply in replies if "idempotent-replayed" not in reply.headers]
    assert {reply.json()["moved_at"] for reply in replies} == {first.json()["moved_at"]}
    after = (await service.native("GET", path)).json()
    assert after["granted_credits"] == ("5" if declines else "0"), "and what was declined is given back once"
    other = {"grant": "order-7", "amount_credits": "5", "key": "payout-8"}
    again = await service.native("POST", f"{path}/revocations", other, key=operators[1])
    assert (again.status, again.json()["settled_by"]) == (422, ["payout-7"]), "another key takes nothing more of it"


# S06


async def test_s06_the_provider_s_notice_of_our_own_refund_is_matched_and_not_added(service: Service) -> None:
    task = (await service.bring(Status.COMPLETED, "beatra"))["id"]
    ours = await service.reported(task, "refunded", amount_credits="30", key="re_1", event_id="ours")
    service.clock.advance(1)
    notice = await service.reported(task, "refunded", amount_credits="30", key="re_1", event_id="webhook-1")
    assert notice == ours
    assert moved(await service.history(task)) == [("refunded", "30")]


# S09


@pytest.mark.parametrize("contract", ["lemondata", "beatra"])
async def test_s09_a_failure_at_a_hundred_percent_is_a_failure(service: Service, contract: str) -> None:
    task = (await service.bring(Status.RUNNING, contract))["id"]
    await service.reported(task, "progressed", percent=100, stage="FAILURE")
    shown = await service.reported(task, "failed", code="FAILURE")
    assert (shown["status"], shown["error"]["code"], shown["billing"]["net_credits"]) == ("failed", "FAILURE", "0")
    assert shown["billing"]["held_credits"] == "0"


async def test_s09_a_report_of_an_unknown_shape_is_refused_and_read_as_nothing(service: Service) -> None:
    task = (await service.bring(Status.RUNNING))["id"]
    before = await service.task(task)
    for kind, fields in (("FAILURE", {}), ("progressed", {"percent": 100, "status": "FAILURE"}), ("failed", {})):
        reply = await service.report(task, kind, **fields)
        assert (reply.status, code_of("ledger", reply)) == (422, "invalid_request")
        assert (service.logged()[-1]["refusal"], service.logged()[-1]["request_id"]) == (
            "Invalid",
            reply.json()["request_id"],
        ), "it is in the log line of its request"
    assert await service.task(task) == before
    await service.sweeper.sweep()
    (opened,) = (await service.native("GET", "/billing/breaks")).json()["breaks"]
    assert (opened["kind"], opened["task"], opened["at_stake_credits"]) == ("status-conflict", task, "1.5")
    assert opened["detail"].startswith("it is running here, and what was reported cannot be read: ")
    service.clock.advance(SECONDS)
    await service.sweeper.sweep()
    assert len((await service.native("GET", "/billing/breaks")).json()["breaks"]) == 1, "told once, however often sent"
    page = (await service.native("GET", "/tasks?stalled=true")).json()["tasks"]
    assert [one["id"] for one in page] == [task], "it was not heard of: it is among the silent, and not merely running"
    assert page[0]["billing"]["held_credits"] == "1.5"


# S10

TASKS = 10


async def test_s10_tasks_whose_model_has_left_the_catalogue_go_on_with_their_money(
    store: Store, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(watched) as service:
        made = [(await service.bring(Status.RUNNING, "bytespike"))["id"] for _ in range(TASKS)]
        before = [await service.task(task) for task in made]
    monkeypatch.setattr(serving_of_tests, "CATALOGUE", Catalogue("none", {}, {}))
    again = await restarted(store, watched)
    async with serving(again) as service:
        assert [await service.task(task) for task in made] == before
        assert {one["status"] for one in before} == {"running"}
        assert {one["billing"]["held_credits"] for one in before} == {"1.5"}
        done = await service.reported(made[0], "completed", actual_credits="1.2")
        failed = await service.reported(made[1], "failed", code="no_channel")
        assert (done["billing"]["net_credits"], failed["billing"]["net_credits"]) == ("1.2", "0")
        assert moved(await service.history(made[1])) == [("released", "1.5")]
        await common_invariant(again.engine)


# S12


async def test_s12_no_view_says_refunded_before_a_refund_event_does(service: Service, watched: Watched) -> None:
    task = (await service.bring(Status.COMPLETED, "beatra"))["id"]

    async def refunded() -> tuple[str, str, str]:
        theirs = (await service.client("beatra", query("beatra", spelled(task)))).json()["billing"]["refunded_credits"]
        ours = (await service.task(task))["billing"]["refunded_credits"]
        return theirs, ours, (await explained(watched, task))["refunded_credits"].value

    service.clock.advance(2 * HOUR)
    late = await service.report(task, "failed", code="proven-failed", actual_credits="0")
    assert (late.status, late.json()["late"]) == (200, True)
    assert await refunded() == ("0.0000", "0", "0")
    await service.reported(task, "refunded", amount_credits="80", key="proven-failed")
    assert await refunded() == ("80.0000", "80", "80")
    figure = (await explained(watched, task))["refunded_credits"].figure
    assert figure is not None
    assert [(line.credits, line.rule) for line in figure.sum] == [("80", "prepaid.reported.worker-refunded")]


# S13


async def test_s13_a_stranded_hold_is_seen_blocks_no_other_refund_and_ends_by_its_deadline(
    service: Service, watched: Watched, tmp_path: Path
) -> None:
    stranded = (await service.bring(Status.RUNNING, expires_at=deadline(HOUR)))["id"]
    other = (await service.bring(Status.COMPLETED))["id"]
    service.clock.advance(HOUR - 1)
    shown = await service.task(stranded)
    assert (shown["billing"]["held_credits"], shown["started_at"]) == ("1.5", rfc3339(CREATED_US))
    assert (await booked(watched, tmp_path)).open_credits == "1.5"
    await service.reported(other, "refunded", amount_credits="1.5", key="r")
    await service.sweeper.sweep()
    assert (await service.task(stranded))["status"] == "running"
    service.clock.advance(1)
    await service.sweeper.sweep()
    ended = await service.task(stranded)
    assert (ended["status"], ended["billing"]["held_credits"]) == ("expired", "0")
    assert (await booked(watched, tmp_path)).open_credits == "0"


# S14


@pytest.mark.parametrize(
    ("contract", "charged"), [("lemondata", "0"), ("beatra", "2.26")], ids=["out of a hold", "prepaid"]
)
async def test_s14_a_refund_leaves_nothing_used_and_adds_nothing_to_what_was_had(
    service: Service, watched: Watched, tmp_path: Path, contract: str, charged: str
) -> None:
    task = (await service.bring(Status.RUNNING, contract, estimated_credits="2.26"))["id"]
    await service.reported(task, "failed", code="upstream")
    line = await booked(watched, tmp_path)
    assert (line.charged_credits, line.refunded_credits) == (charged, charged)
    assert (line.net_credits, line.open_credits) == ("0", "0")
    used = (await service.ask("GET", "/bytespike/v1/usage", key=await service.key("bytespike"))).json()
    assert used["data"] == []


# S15


async def test_s15_a_task_is_charged_once_however_often_it_is_polled(service: Service, watched: Watched) -> None:
    task = (await service.bring(Status.RUNNING, "chunkr"))["id"]
    for contract in VENDORS:
        await service.key(contract)
    position = await service.position()

    async def poll(times: int) -> None:
        polls = [service.client(contract, query(contract, spelled(task))) for contract in VENDORS * times]
        assert {reply.status for reply in await asyncio.gather(*polls)} == {200}

    await poll(5)
    assert await service.position() == position
    assert (await service.task(task))["billing"]["charged_credits"] == "0"
    reports = [service.report(task, "completed", actual_credits="0.07") for _ in range(3)]
    assert {reply.status for reply in await asyncio.gather(*reports)} == {200}
    await poll(20)
    charges = [row for row in await watched.streams([spelled(task)]) if row.entry.type == "charged"]
    assert [row.entry.amount_micros for row in charges] == [70_000]


# S16


@pytest.mark.parametrize("written", LOST, ids=["not written", "written, not told"])
async def test_s16_two_pollers_and_a_write_that_times_out_move_every_total_once(
    *, service: Service, watched: Watched, tmp_path: Path, written: bool
) -> None:
    limit = await service.native("PUT", f"/accounts/{ACCOUNT}/limit", {"limit_credits": "0.07"})
    assert limit.status == 200
    task = (await service.bring(Status.RUNNING, "chunkr"))["id"]
    watched.faults_come_late = written
    watched.commit_faults.append(StorageError("timed out"))
    for _ in range(2):
        reports = [
            service.report(task, "completed", actual_credits="0.07", event_id=f"poller-{number}") for number in range(2)
        ]
        await asyncio.gather(*reports)
    assert (await service.task(task))["status"] == "completed"
    for by in By:
        line = await booked(watched, tmp_path, by)
        assert (line.movements, line.charged_credits, line.net_credits) == (1, "0.07", "0.07")
    (row,) = (await watched.accounts(None)).values()
    assert (row.charged_micros, row.held_micros, row.expected_micros) == (70_000, 0, 0)
    order = {"account": ACCOUNT, "contract": "chunkr", "model": MODELS["chunkr"]}
    refused = await service.native("POST", "/tasks", order)
    assert (refused.status, refused.json()["exposure_credits"]) == (402, "0.07"), "what admits new work as well"


# S17


async def test_s17_what_nobody_asks_about_is_charged_once_over_two_restarts(store: Store, watched: Watched) -> None:
    async with serving(watched) as service:
        task = (await service.bring(Status.RUNNING, "chunkr"))["id"]
    again = await restarted(store, watched)
    async with serving(again) as service:
        await service.reported(task, "completed", event_id="done")
    last = await restarted(store, again)
    async with serving(last) as service:
        await service.reported(task, "completed", event_id="done")
        assert types(await service.history(task))["charged"] == 1
        assert (await service.task(task))["billing"]["net_credits"] == "0.01"
        await common_invariant(last.engine)


# S18


async def test_s18_when_two_layers_report_usage_one_is_charged_and_the_other_is_kept_with_its_claim(
    service: Service,
) -> None:
    task = (await service.bring(Status.RUNNING))["id"]
    await service.reported(task, "completed", actual_credits="1.2", usage={"seconds": 5})
    second = await service.report(task, "completed", actual_credits="1.3", usage={"seconds": 6})
    assert (second.status, second.json()["late"]) == (200, True)
    events = await service.history(task)
    assert moved(events) == [("charged", "1.2"), ("released", "0.3")]
    ignored = events[-1]["data"]
    assert (ignored["type"], ignored["reported"]) == ("late-reported", "completed")
    assert (ignored["claimed_micros"], ignored["usage"]) == (1_300_000, {"seconds": 6, "lines": []})
    assert (await service.task(task))["usage"]["seconds"] == 5


# S19


async def test_s19_a_price_that_changes_in_flight_changes_nothing_that_is_in_flight(
    store: Store, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(watched) as service:
        before = await service.bring(Status.RUNNING, "bytespike")
    dearer = {
        name: struct_replace(terms, estimated_micros=terms.estimated_micros * 3, rate_version="dearer")
        for name, terms in CATALOGUE.terms.items()
    }
    monkeypatch.setattr(serving_of_tests, "CATALOGUE", CATALOGUE._replace(version="dearer", terms=dearer))
    again = await restarted(store, watched)
    async with serving(again) as service:
        old = await service.reported(before["id"], "completed", usage={"seconds": 5})
        new = await service.bring(Status.COMPLETED, "bytespike")
        assert (old["billing"]["charged_credits"], old["billing"]["rate_version"]) == ("1.5", CATALOGUE.version)
        assert (new["billing"]["charged_credits"], new["billing"]["rate_version"]) == ("4.5", "dearer")
        events = await service.history(before["id"])
        facts = {event["type"]: event["data"] for event in events}
        assert facts["completed"]["usage"]["seconds"] == 5, "the log has quantities, rate version and result"
        assert facts["created"]["terms"]["rate_version"] == CATALOGUE.version
        assert moved(events) == [("charged", "1.5")]
        for task, price, version in ((old, "1.5", CATALOGUE.version), (new, "4.5", "dearer")):
            charged = (await explained(again, task["id"]))["charged_credits"]
            assert charged.figure is not None
            assert [(line.credits, line.rule) for line in charged.figure.sum] == [
                (price, "hold.completed.charged-actual")
            ]
            assert (charged.figure.rate.price_credits, charged.figure.rate.rate_version) == (price, version)
        await common_invariant(again.engine)


# S26


async def test_s26_of_four_units_of_which_one_was_delivered_three_are_given_back_and_the_rule_has_a_name(
    service: Service, watched: Watched
) -> None:
    task = (await service.bring(Status.RUNNING, "beatra", estimated_credits="4"))["id"]
    assert (await service.client("beatra", cancel("beatra", spelled(task)))).status == 202
    answer = await service.reported(task, "cancelled", actual_credits="1")
    told = answer["billing"]
    assert (answer["status"], told["net_credits"], told["refunded_credits"]) == ("cancelled", "1", "3")
    assert told["rule"] == "prepaid.cancelled", "the reply names the rule"
    theirs = (await service.client("beatra", query("beatra", spelled(task)))).json()["billing"]
    assert theirs["refunded_credits"] == "3.0000"
    net = (await explained(watched, task))["net_credits"]
    assert net.figure is not None
    assert [(line.credits, line.rule) for line in net.figure.sum] == [
        ("4", "prepaid.created.charged-estimate"),
        ("-3", "prepaid.cancelled.refunded-undelivered"),
    ]
    assert net.figure.sum[-1].rule.startswith(f"{told['rule']}."), "and each act of it, when it is explained"


SETTLED: list[tuple[str, str, dict[str, Any], str]] = [
    ("lemondata", "completed", {"output": {"assets": []}}, "hold.completed"),
    ("bytespike", "failed", {"code": "broke"}, "hold.failed"),
    ("chunkr", "completed", {"output": {"assets": []}}, "on-success.completed"),
    ("beatra", "failed", {"code": "broke"}, "prepaid.failed"),
]


@pytest.mark.parametrize(("contract", "kind", "fields", "rule"), SETTLED)
async def test_s26_every_reply_names_the_rule_that_settled_the_task_as_its_explanation_does(
    *, service: Service, watched: Watched, contract: str, kind: str, fields: dict[str, Any], rule: str
) -> None:
    task = await service.bring(Status.RUNNING, contract)
    assert task["billing"]["rule"] is None, "nothing has settled it yet"
    assert (await service.reported(task["id"], kind, **fields))["billing"]["rule"] == rule
    told = await explained(watched, task["id"])
    acts = [line.rule for one in told.values() if one.figure is not None for line in one.figure.sum]
    assert any(act.startswith(f"{rule}.") for act in acts)


# S28 and S29

ENDS: list[tuple[str, dict[str, Any]]] = [("failed", {"code": "broke"}), ("completed", {"actual_credits": "0"})]


@pytest.mark.parametrize(("kind", "fields"), ENDS)
async def test_s28_what_is_held_no_more_can_be_charged_by_no_id_and_nothing_looks_as_if_it_were_in_flight(
    service: Service, kind: str, fields: dict[str, Any]
) -> None:
    task = (await service.bring(Status.RUNNING))["id"]
    before = (await service.reported(task, kind, **fields))["billing"]
    for key in ("hold:1", "release:settle:1", "anything"):
        reply = await service.report(task, "charged", amount_credits="1", key=key)
        assert (reply.status, reply.json()["late"]) == (200, True)
    shown = await service.task(task)
    assert shown["billing"] == before
    assert (before["held_credits"], before["charged_credits"]) == ("0", "0")
    assert (shown["status"], shown["stalled_since"], shown["cancel_requested"]) == (kind, None, False)
    assert shown["finished_at"] is not None


async def test_s29_a_voided_hold_is_never_revived_whatever_turns_out_to_be_delivered(service: Service) -> None:
    task = (await service.bring(Status.RUNNING, expires_at=deadline(HOUR)))["id"]
    service.clock.advance(HOUR)
    await service.sweeper.sweep()
    voided = (await service.task(task))["billing"]
    await service.reported(task, "completed", output={"assets": []}, actual_credits="1.5")
    shown = await service.task(task)
    assert (shown["status"], shown["billing"], shown["late_reports"]) == ("expired", voided, 1)
    assert moved(await service.history(task)) == [("released", "1.5")]
    for kind, fields in (
        ("charged", {"amount_credits": "1.5", "key": "after-all"}),
        ("refunded", {"amount_credits": "1.5", "key": "after-all"}),
        ("completed", {"actual_credits": "1.5"}),
    ):
        await service.report(task, kind, **fields)
    assert (await service.task(task))["billing"] == voided
    assert moved(await service.history(task)) == [("released", "1.5")]


async def test_s29_what_is_delivered_after_a_void_is_paid_by_a_new_authorisation_that_is_linked_to_the_old_one(
    service: Service, watched: Watched, tmp_path: Path
) -> None:
    old = (await service.bring(Status.RUNNING, expires_at=deadline(HOUR)))["id"]
    early = await service.native("POST", "/tasks", instead_of(old))
    assert (early.status, code_of("ledger", early)) == (409, "not_ended"), "it may be paid by its own hold yet"
    service.clock.advance(HOUR)
    await service.sweeper.sweep()
    voided = await service.task(old)
    assert (voided["status"], voided["billing"]["held_credits"]) == ("expired", "0")
    late = await service.reported(old, "completed", output={"assets": []}, actual_credits="1.2")
    assert (late["late"], late["billing"]) == (True, voided["billing"])
    await service.sweeper.sweep()
    (conflict,) = (await service.native("GET", "/billing/breaks")).json()["breaks"]
    assert (conflict["kind"], conflict["task"]) == ("status-conflict", old)

    new = (await service.native("POST", "/tasks", instead_of(old))).json()
    assert (new["follows"], new["billing"]["held_credits"]) == (old, "1.5"), "held anew, and linked"
    paid = await service.reported(new["id"], "completed", output={"assets": []}, actual_credits="1.2")
    assert (paid["billing"]["net_credits"], paid["billing"]["released_credits"]) == ("1.2", "0.3")
    said = {"type": "resolve", "reason": "paid by the task that follows", "position": await service.position()}
    resolved = await service.native("POST", f"/billing/breaks/{conflict['id']}", said)
    assert (resolved.status, resolved.json()["life"]) == (200, "corrected")

    found = (await service.native("GET", f"/tasks?follows={old}")).json()["tasks"]
    assert [(one["id"], one["follows"]) for one in found] == [(new["id"], old)]
    line = await booked(watched, tmp_path)
    assert (line.held_credits, line.released_credits, line.charged_credits) == ("3", "1.8", "1.2")
    assert (line.net_credits, line.open_credits) == ("1.2", "0")
    told = (await service.native("GET", "/billing/reconciliation")).json()
    assert {kind: one for kind, one in told["open"].items() if one["breaks"]} == {}
    assert await sums(watched, old, "net_credits") == []
    assert await sums(watched, old, "released_credits") == [("1.5", "hold.expired.released-all")]
    assert await sums(watched, new["id"], "net_credits") == [("1.2", "hold.completed.charged-actual")]
    (link,) = explanations(await steps(watched, new["id"]), ["follows"], shows(watched))
    assert (link.value, [one.type for one in link.events]) == (old, ["created"])

    charged = await service.reported(old, "charged", amount_credits="1.5", key="after-all")
    assert (charged["late"], charged["billing"]) == (True, voided["billing"]), "the old one's money never moves again"
    refunded = await service.report(old, "refunded", amount_credits="1.5", key="after-all")
    assert (refunded.status, code_of("ledger", refunded)) == (422, "amount_exceeds")
    assert refunded.json()["settled_by"] == ["hold:1", "release:settle:1"], "who asks is told what became of it"
    assert moved(await service.history(old)) == [("released", "1.5")]


def instead_of(task: str) -> dict[str, Any]:
    """A create that follows *task*."""
    return {"account": ACCOUNT, "contract": "lemondata", "model": MODELS["lemondata"], "follows": task}


async def sums(watched: Watched, task: str, figure: str) -> list[tuple[str, str]]:
    """What makes up a figure of the task, and by which rules."""
    found = (await explained(watched, task))[figure].figure
    assert found is not None
    return [(line.credits, line.rule) for line in found.sum]


# S34


async def test_s34_every_contract_tells_the_outcome_whatever_the_provider_s_own_words_within_it_say(
    service: Service,
) -> None:
    task = (await service.bring(Status.RUNNING))["id"]
    raw = {"status": "IN_PROGRESS", "progress": 40, "assets": []}
    shown = await service.reported(task, "completed", output=raw)
    assert (shown["status"], shown["progress"]["percent"], shown["output"]) == ("completed", 100, raw)
    words = {"lemondata": "completed", "bytespike": "completed", "chunkr": "Succeeded", "beatra": "succeeded"}
    for contract, word in words.items():
        reply = await service.client(contract, query(contract, spelled(task)))
        assert (reply.json()["task_id"], reply.json()["status"]) == (spell(contract, spelled(task)), word)


# S35


async def test_s35_a_task_whose_id_was_lost_is_found_by_the_key_of_its_submit_and_no_new_work_begins(
    service: Service,
) -> None:
    key = await service.key("bytespike")
    order = {"model": "wan-2.6", "params": {"prompt": "a cat"}, "out_task_id": "order-7"}
    await service.ask("POST", "/bytespike/v1/tasks/submit", key=key, json=order)  # the answer is lost
    position = await service.position()
    found = (await service.ask("POST", "/bytespike/v1/tasks/query", key=key, json={"out_task_id": "order-7"})).json()
    again = (await service.ask("POST", "/bytespike/v1/tasks/submit", key=key, json=order)).json()
    assert found["task_id"] == again["task_id"]
    assert await service.position() == position
    assert len((await service.native("GET", f"/tasks?account={ACCOUNT}")).json()["tasks"]) == 1


# S38


async def test_s38_a_notice_that_is_delivered_again_is_the_same_event(service: Service) -> None:
    task = (await service.bring(Status.RUNNING, "chunkr"))["id"]
    notice = {"actual_credits": "0.07", "event_id": "delivery-1"}
    replies = await asyncio.gather(*(service.report(task, "completed", **notice) for _ in range(5)))
    assert {reply.status for reply in replies} == {200}
    assert sum("idempotent-replayed" not in reply.headers for reply in replies) == 1
    events = await service.history(task)
    assert types(events)["charged"] == types(events)["completed"] == 1
    assert types(events)["late-reported"] == 0
    (claims,) = [event["data"]["claims"] for event in events if event["type"] == "completed"]
    assert [claim["key"] for claim in claims] == ["delivery-1"]
