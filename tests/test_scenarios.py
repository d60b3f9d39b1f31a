"""Failures that users of other gateways and ledgers have met, each by its number: here they do not happen.

S11, the crash between an outcome and its money, is in ``test_faults.py``, since it takes a process to kill. After each
scenario the common invariant is checked, by the fixture.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Sequence
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from ledger.catalogue import Model, read
from ledger.errors import StorageError
from ledger.keys import Role
from ledger.money import credits_text, parse_credits
from ledger.sqlite import open_to_read
from ledger.task import Status
from ledger.times import rfc3339
from scripts.cli import app, run
from tests.builders import CREATED_US, Store, Watched
from tests.http import MODELS, Call, cancel, query, spell
from tests.invariants import OUTCOMES, books_agree, common_invariant, exposures
from tests.processes import Server, keys_in
from tests.serving import ACCOUNT, VENDORS, Service, queued, serving, spelled
from tests.wire import Cut, Reply, request
from tests.worded import code_of

DEADLINE = rfc3339(CREATED_US + 3_600_000_000)


@pytest.fixture
async def service(watched: Watched) -> AsyncIterator[Service]:
    async with serving(watched) as running:
        assert running.books is not None
        await running.books.consult(lambda books: books_agree(watched, books))  # kept from here on
        yield running
        await common_invariant(watched.engine)
        await running.books.consult(lambda books: books_agree(watched, books))


def types(events: Sequence[dict[str, Any]]) -> Counter[str]:
    return Counter(event["type"] for event in events)


def outcomes(events: Sequence[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events if event["type"] in OUTCOMES]


def moved(events: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """The money's movements after the creation's."""
    return [(event["type"], event["amount_credits"]) for event in events[2:] if event["amount_credits"] is not None]


# S01


@pytest.mark.parametrize("sweep_first", [True, False])
@pytest.mark.parametrize(("contract", "back"), [("lemondata", ("released", "0.1")), ("beatra", ("refunded", "80"))])
async def test_s01_pollers_and_a_sweep_that_overlap_refund_a_failed_music_task_once(
    *, service: Service, watched: Watched, contract: str, back: tuple[str, str], sweep_first: bool
) -> None:
    """All three have seen the task alive, and are decided in one batch."""
    task = (await service.bring(Status.RUNNING, contract, model="suno-5.5", expires_at=DEADLINE))["id"]
    service.clock.advance(3600)
    pollers = [
        service.report(task, "failed", code="upstream", message=f"poller {number}", event_id=f"poll-{number}")
        for number in range(2)
    ]
    watched.commit_gate.shut()
    blocker = asyncio.create_task(service.create("chunkr", account="somebody-else"))
    await watched.commit_gate.someone_waits()
    polling: list[asyncio.Task[Reply]] = []
    if not sweep_first:
        polling = [asyncio.create_task(poller) for poller in pollers]
        await queued(service, 2)
    sweeping = asyncio.create_task(service.sweeper.sweep())
    await queued(service, 1 + len(polling))
    polling = polling or [asyncio.create_task(poller) for poller in pollers]
    await queued(service, 3)
    watched.commit_gate.open()
    await blocker
    replies = await asyncio.gather(*polling)
    await sweeping
    events = await service.history(task)
    assert outcomes(events) == ["expired" if sweep_first else "failed"]
    assert moved(events) == [back]
    final = await service.task(task)
    assert {(reply.status, reply.json()["status"]) for reply in replies} == {(200, final["status"])}
    assert final["billing"]["net_credits"] == "0"


# S04


@pytest.mark.parametrize("keys", [["r"] * 5, ["r1", "r2", "r3", "r4", "r5"]], ids=["same key", "other keys"])
async def test_s04_a_refund_that_is_asked_for_five_times_is_one_and_every_answer_names_it(
    service: Service, keys: list[str]
) -> None:
    task = (await service.bring(Status.COMPLETED))["id"]
    asks = [service.report(task, "refunded", amount_credits="1.5", key=key) for key in keys]
    replies = await asyncio.gather(*asks)
    assert types(await service.history(task))["refunded"] == 1
    assert (await service.task(task))["billing"]["net_credits"] == "0"
    for reply in replies:
        if reply.status == 200:
            assert reply.json()["billing"]["refunded_credits"] == "1.5"
        else:
            assert (reply.status, code_of("ledger", reply)) == (422, "amount_exceeds")
            assert any(name.startswith("refunded:r") for name in reply.json()["settled_by"])
    assert sum(reply.status == 200 for reply in replies) == (5 if len(set(keys)) == 1 else 1)
    assert sum("idempotent-replayed" not in reply.headers for reply in replies if reply.status == 200) == 1


async def test_s04_a_void_that_is_asked_for_five_times_is_one_and_every_answer_tells_it(service: Service) -> None:
    task = (await service.bring(Status.QUEUED))["id"]
    replies = await asyncio.gather(*(service.native("POST", f"/tasks/{task}/cancel") for _ in range(5)))
    assert {(reply.status, reply.json()["billing"]["released_credits"]) for reply in replies} == {(200, "1.5")}
    assert moved(await service.history(task)) == [("released", "1.5")]


# S05


async def test_s05_a_grant_that_is_pressed_in_many_tabs_is_given_once_and_taken_back_once(service: Service) -> None:
    given = {"amount_credits": "5", "key": "ticket-7"}
    for reply in await asyncio.gather(
        *(service.native("POST", f"/accounts/{ACCOUNT}/grants", given) for _ in range(10))
    ):
        assert (reply.status, reply.json()["granted_credits"]) == (200, "5")
    taken = [{"grant": "ticket-7", "amount_credits": "3", "key": key} for key in ("r1", "r1", "r2", "r1", "r2")]
    path = f"/accounts/{ACCOUNT}/revocations"
    replies = await asyncio.gather(*(service.native("POST", path, body) for body in taken))
    refused = [reply for reply in replies if reply.status != 200]
    assert {code_of("ledger", reply) for reply in refused} == {"amount_exceeds"}
    assert len({tuple(reply.json()["settled_by"]) for reply in refused}) == 1  # the one that was first
    assert (await account(service))["granted_credits"] == "2"


async def account(service: Service, **figures: str) -> dict[str, Any]:
    """`ACCOUNT` as it is shown, once these figures have been found in it."""
    reply = await service.native("GET", f"/accounts/{ACCOUNT}")
    shown: dict[str, Any] = reply.json()
    assert figures.items() <= shown.items(), shown
    return shown


async def limited(service: Service, amount: str) -> None:
    reply = await service.native("PUT", f"/accounts/{ACCOUNT}/limit", {"limit_credits": amount})
    assert reply.status == 200, reply


# S07


async def test_s07_partial_refunds_add_up_by_their_ids_however_often_their_notices_come(service: Service) -> None:
    task = (await service.bring(Status.COMPLETED, "beatra"))["id"]
    for key, amount in (("re_1", "3"), ("re_2", "2"), ("re_1", "3"), ("re_2", "2")):
        shown = await service.reported(task, "refunded", amount_credits=amount, key=key)
    assert shown["billing"]["refunded_credits"] == "5"
    cumulative = await service.report(task, "refunded", amount_credits="5", key="re_2")
    assert (cumulative.status, code_of("ledger", cumulative)) == (422, "idempotency_key_reused")
    assert moved(await service.history(task)) == [("refunded", "3"), ("refunded", "2")]


async def test_s07_a_notice_that_could_not_be_stored_is_answered_so_that_it_is_sent_again(
    service: Service, watched: Watched
) -> None:
    task = (await service.bring(Status.COMPLETED, "beatra"))["id"]
    watched.commit_faults.append(StorageError("the disk is full"))
    replies = [await service.report(task, "refunded", amount_credits="3", key="re_1") for _ in range(3)]
    assert [reply.status for reply in replies] == [503, 200, 200]
    assert "retry-after" in replies[0].headers
    assert moved(await service.history(task)) == [("refunded", "3")]


# S08

EVERY_MODEL = [*read().models.values()]


@pytest.mark.parametrize("model", EVERY_MODEL, ids=lambda model: f"{model.contract} {model.name}")
@pytest.mark.parametrize("status", [Status.QUEUED, Status.RUNNING])
async def test_s08_a_task_of_whatever_kind_that_fails_gives_everything_back_in_the_append_of_the_failure(
    service: Service, watched: Watched, model: Model, status: Status
) -> None:
    task = (await service.bring(status, model.contract, model=model.name))["id"]
    watched.commits.clear()
    shown = await service.reported(task, "failed", code="upstream", message="The provider gave up.")
    ((append,),) = watched.commits
    assert (shown["status"], shown["billing"]["net_credits"], shown["billing"]["held_credits"]) == ("failed", "0", "0")
    back = {"hold": ["released"], "prepaid": ["refunded"], "on-success": []}[model.school]
    implied = ["started"] if status is Status.QUEUED else []
    assert [entry.type for entry in append.entries] == [*implied, "failed", *back]
    if back:
        assert moved(await service.history(task)) == [(*back, model.price_credits)]
    for contract in VENDORS:
        reply = await service.client(contract, query(contract, spelled(task)))
        assert reply.json()["status"] == ("Failed" if contract == "chunkr" else "failed")


# S22

TOO_LATE = [  # contract, the state in which it is cancelled, its answer; then what a reader is told
    ("lemondata", Status.QUEUED, 200, {"status": "failed", "cancelled": True}),
    ("bytespike", Status.QUEUED, 200, {"status": "cancelled"}),
    ("bytespike", Status.RUNNING, 200, {"status": "cancelled"}),
    ("chunkr", Status.QUEUED, 200, {"status": "Cancelled", "output": None}),
    ("beatra", Status.QUEUED, 202, {"status": "canceled", "output": None}),
    ("beatra", Status.RUNNING, 202, {"status": "canceled", "output": None}),
]


@pytest.mark.parametrize(("contract", "status", "answer", "told"), TOO_LATE)
async def test_s22_a_cancelled_task_stays_cancelled_and_free_and_the_late_result_is_kept(
    *, service: Service, contract: str, status: Status, answer: int, told: dict[str, Any]
) -> None:
    task = (await service.bring(status, contract))["id"]
    assert (await service.client(contract, cancel(contract, spelled(task)))).status == answer
    if (await service.task(task))["status"] == "running":
        await service.reported(task, "cancelled")
    before = await service.client(contract, query(contract, spelled(task)))
    service.clock.advance(300)
    output = {"assets": [{"kind": "video", "url": "https://example.com/v.mp4"}]}
    reply = await service.report(task, "completed", output=output, actual_credits="0.01")
    assert (reply.status, reply.json()["late"], reply.json()["status"]) == (200, True, "cancelled")
    after = await service.client(contract, query(contract, spelled(task)))
    assert after.body == before.body
    assert after.json() | told == after.json()
    events = await service.history(task)
    assert outcomes(events) == ["cancelled"]
    assert (events[-1]["type"], events[-1]["data"]["reported"]) == ("late-reported", "completed")
    assert (events[-1]["payload"], events[-1]["data"]["claimed_micros"]) == ({"output": output}, 10_000)
    shown = await service.task(task)
    assert (shown["late_reports"], shown["billing"]["net_credits"], shown["output"]) == (1, "0", None)


# S23

FINISHED = [  # contract; its answer to the cancel of a task that has just completed, and what is in it
    ("lemondata", 409, "task_not_cancellable"),
    ("bytespike", 200, "completed"),
    ("chunkr", 400, "Task cannot be cancelled: status is Succeeded"),
    ("beatra", 200, "succeeded"),
]


@pytest.mark.parametrize(("contract", "status", "word"), FINISHED)
async def test_s23_a_cancel_just_after_the_finish_is_answered_by_contract_and_moves_no_money(
    service: Service, contract: str, status: int, word: str
) -> None:
    before = await service.bring(Status.COMPLETED, contract)
    await service.key(contract)
    position = await service.position()
    service.clock.now_us += 1000
    reply = await service.client(contract, cancel(contract, spelled(before["id"])))
    assert reply.status == status
    assert (reply.json()["status"] if status == 200 else code_of(contract, reply)) == word
    assert await service.task(before["id"]) == before
    assert await service.position() == position


# S24


async def test_s24_a_cancel_that_nobody_confirms_is_only_asked_for_however_long_it_takes(service: Service) -> None:
    task = spelled((await service.bring(Status.RUNNING, "beatra"))["id"])
    asked_at = rfc3339(service.clock())
    for _ in range(3):
        reply = await service.client("beatra", cancel("beatra", task))
        assert (reply.status, reply.json()["status"], reply.json()["cancel_requested_at"]) == (202, "running", asked_at)
        service.clock.advance(86_400)
    shown = (await service.client("beatra", query("beatra", task))).json()
    assert (shown["status"], shown["cancel_requested_at"]) == ("running", asked_at)
    assert shown["billing"]["refunded_credits"] == "0.0000"
    confirmed = await service.reported(spell("beatra", task), "cancelled")
    assert (confirmed["status"], confirmed["billing"]["net_credits"]) == ("cancelled", "0")


async def test_s24_a_deadline_ends_a_task_that_nobody_confirms_as_expired_and_not_as_cancelled(
    service: Service,
) -> None:
    created = await service.bring(Status.RUNNING, "beatra", expires_at=DEADLINE)
    task = spelled(created["id"])
    await service.client("beatra", cancel("beatra", task))
    service.clock.advance(3600)
    await service.sweeper.sweep()
    shown = (await service.client("beatra", query("beatra", task))).json()
    assert (shown["status"], shown["error"]["code"]) == ("failed", "task_expired")
    assert outcomes(await service.history(created["id"])) == ["expired"]
    assert shown["billing"]["refunded_credits"] == "80.0000"


# S27


async def test_s27_a_provider_that_cannot_cancel_is_not_said_to_and_the_wish_is_on_record(service: Service) -> None:
    task = (await service.bring(Status.RUNNING, model="sora-2"))["id"]
    before = await service.client("lemondata", query("lemondata", spelled(task)))
    for _ in range(3):
        reply = await service.client("lemondata", cancel("lemondata", spelled(task)))
        assert (reply.status, code_of("lemondata", reply)) == (400, "unsupported_task_cancel")
    assert (await service.client("lemondata", query("lemondata", spelled(task)))).body == before.body
    shown = await service.task(task)
    assert (shown["status"], shown["cancel_requested"], shown["billing"]["held_credits"]) == ("running", False, "2")
    wishes = [event for event in await service.history(task) if event["type"] == "cancel-requested"]
    assert [event["data"]["unsupported"] for event in wishes] == [True]
    done = await service.reported(task, "completed")
    assert (done["status"], done["billing"]["net_credits"]) == ("completed", "2")


# S33


async def test_s33_a_failure_notice_that_was_overtaken_by_success_is_kept_and_changes_nothing(
    service: Service,
) -> None:
    task = (await service.bring(Status.RUNNING))["id"]
    service.clock.advance(60)
    before = await service.reported(task, "completed", actual_credits="1.2")
    service.clock.advance(60)
    reply = await service.report(task, "failed", code="timeout", effective_at=rfc3339(CREATED_US + 30_000_000))
    assert (reply.status, reply.json()["late"], reply.json()["status"]) == (200, True, "completed")
    after = await service.task(task)
    assert (after["error"], after["billing"], after["finished_at"]) == (None, before["billing"], before["finished_at"])
    notice = (await service.history(task))[-1]
    assert (notice["type"], notice["data"]["code"]) == ("late-reported", "timeout")
    assert notice["effective_at"] == rfc3339(CREATED_US + 30_000_000)
    assert notice["recorded_at"] == rfc3339(CREATED_US + 120_000_000)


# S36


async def test_s36_fifty_identical_creates_across_a_power_cut_are_one_task_and_forty_nine_replays(
    tmp_path: Path,
) -> None:
    path = tmp_path / "ledger.db"
    (key,) = await keys_in(path, ("ledger", Role.WORKER))
    body = msgspec.json.encode({"account": ACCOUNT, "contract": "beatra", "model": MODELS["beatra"]})
    headers = [("Authorization", f"Bearer {key}"), ("Idempotency-Key", "order-7")]
    sent = request("POST", "/ledger/v1/tasks", headers=headers, body=body)
    first, cut_at = asyncio.Event(), 5
    replies: list[Reply] = []

    async def submit(server: Server) -> None:
        async with server.wire() as wire:
            replies.append(await wire.send(sent))
        if len(replies) >= cut_at:
            first.set()

    async with Server(path) as server:
        await server.start()
        tries = [asyncio.create_task(submit(server)) for _ in range(25)]
        await first.wait()
        await server.kill()
        cut = [one for one in await asyncio.gather(*tries, return_exceptions=True) if one is not None]
        assert all(isinstance(one, Cut) for one in cut)
        await server.start()
        await asyncio.gather(*(submit(server) for _ in range(25 + len(cut))))
        assert await server.stop() == 0
    assert len(replies) == 50
    made = [reply for reply in replies if reply.status == 201]
    replayed = [reply for reply in replies if reply.status == 200]
    assert len(made) <= 1  # none, if the one who made it was not told before the cut
    assert {reply.status for reply in replies} <= {200, 201}
    assert {reply.headers["idempotent-replayed"] for reply in replayed} == {"true"}
    assert len({reply.body for reply in replies}) == 1
    engine = await open_to_read(path)
    try:
        (rows,) = (await common_invariant(engine)).values()
    finally:
        await engine.close()
    assert [row.entry.type for row in rows] == ["created", "charged"]


# S13, S14


async def test_s13_a_hold_of_a_client_who_left_is_seen_ends_by_its_deadline_and_blocks_no_refund(
    service: Service,
) -> None:
    await limited(service, "5")
    stranded = (await service.bring(Status.RUNNING, estimated_credits="3", expires_at=DEADLINE))["id"]
    other = (await service.bring(Status.COMPLETED, estimated_credits="2"))["id"]
    await account(service, held_credits="3", available_credits="0")
    await service.reported(other, "refunded", amount_credits="2", key="r")
    await account(service, held_credits="3", available_credits="2")
    service.clock.advance(3600)
    await service.sweeper.sweep()
    assert (await service.task(stranded))["status"] == "expired"
    await account(service, held_credits="0", available_credits="5")


@pytest.mark.parametrize("contract", VENDORS)
async def test_s14_a_task_that_failed_leaves_the_credit_and_what_was_used_as_they_were(
    service: Service, contract: str
) -> None:
    grant = {"amount_credits": "10.00", "key": "top-up"}
    assert (await service.native("POST", f"/accounts/{ACCOUNT}/grants", grant)).status == 200
    task = (await service.create(contract, estimated_credits="2.26"))["id"]
    await account(service, available_credits="7.74")
    await service.reported(task, "failed", code="broke")
    await account(service, available_credits="10", net_credits="0", granted_credits="10", exposure_credits="0")


# S20


@pytest.mark.parametrize("at_once", [False, True], ids=["as they come", "in one batch"])
@pytest.mark.parametrize("contract", VENDORS)
async def test_s20_of_five_submits_at_once_exactly_three_fit_into_the_budget_and_room_comes_back(
    service: Service, watched: Watched, contract: str, *, at_once: bool
) -> None:
    await limited(service, "0.45")
    asks = [service.native("POST", "/tasks", priced(contract, "0.15")) for _ in range(5)]
    replies = await (batched(service, watched, asks) if at_once else asyncio.gather(*asks))
    made = [reply.json()["id"] for reply in replies if reply.status == 201]
    refused = [reply for reply in replies if reply.status == 402]
    assert (len(made), len(refused)) == (3, 2)
    for reply in refused:
        assert (reply.json()["available_credits"], reply.json()["asked_credits"]) == ("0", "0.15")
    await service.reported(made[0], "failed", code="broke")
    assert (await service.native("POST", f"/tasks/{made[1]}/cancel")).status == 200
    again = await asyncio.gather(*(service.native("POST", "/tasks", priced(contract, "0.15")) for _ in range(3)))
    assert sorted(reply.status for reply in again) == [201, 201, 402]
    await account(service, exposure_credits="0.45", available_credits="0")


async def test_s20_what_is_decided_on_top_of_a_commit_that_fails_is_decided_anew(
    service: Service, watched: Watched
) -> None:
    await limited(service, "0.45")
    watched.commit_gate.shut()
    watched.commit_faults.append(StorageError("disk full"))
    lost = [asyncio.create_task(service.native("POST", "/tasks", priced("bytespike", "0.15"))) for _ in range(3)]
    await watched.commit_gate.someone_waits()
    later = [asyncio.create_task(service.native("POST", "/tasks", priced("bytespike", "0.15"))) for _ in range(5)]
    await queued(service, 5)
    watched.commit_gate.open()
    lost_replies, replies = await asyncio.gather(*lost), await asyncio.gather(*later)
    admitted = sum(reply.status == 201 for reply in [*lost_replies, *replies])
    assert admitted == 3
    assert any(reply.status == 503 for reply in lost_replies)
    assert (await service.native("POST", "/tasks", priced("bytespike", "0.15"))).status == 402


def priced(contract: str, amount: str) -> dict[str, Any]:
    """A create at this price."""
    return {"account": ACCOUNT, "contract": contract, "model": MODELS[contract], "estimated_credits": amount}


# S21


async def test_s21_the_value_that_refuses_is_the_log_s_at_its_position_under_load_and_after_a_restart(
    store: Store,
) -> None:
    engine = await store.open()
    async with serving(engine) as service:
        await limited(service, "20")
        refused = [
            reply for replies in await asyncio.gather(*(load(service, n) for n in range(8))) for reply in replies
        ]
        assert len(refused) > 20
        rows = await engine.after(0, 100_000)
        for reply in refused:
            cost = exposures(rows[: reply.json()["position"]])[ACCOUNT]
            assert reply.json()["exposure_credits"] == credits_text(cost.exposure)
        before = await service.native("POST", "/tasks", priced("beatra", "21"))
        await common_invariant(engine)
        told = (await service.native("GET", "/billing/reconciliation")).json()
        assert (told["found"], told["accounts_not_compared"]) == ({}, 0), "the limiter's figures are the books' own"
    again = await store.open() if store.kind.persists else engine  # one in memory would be gone
    async with serving(again) as service:
        after = await service.native("POST", "/tasks", priced("beatra", "21"))
        figures = ("asked", "available", "limit", "granted", "exposure")
        for name in [*(f"{figure}_credits" for figure in figures), "position"]:
            assert after.json()[name] == before.json()[name]
        await common_invariant(again)


async def load(service: Service, seed: int) -> list[Reply]:
    """Forty tasks of any school, some of which end at once, some never; the refusals."""
    random, refused = Random(f"S21/{seed}"), []
    for _ in range(40):
        amount = f"0.{random.randrange(1, 100):02}"
        reply = await service.native("POST", "/tasks", priced(random.choice(VENDORS), amount))
        if reply.status == 402:
            refused.append(reply)
        elif random.random() < 0.6:
            outcome = random.choice(
                [{"type": "failed", "code": "broke"}, {"type": "completed", "actual_credits": "0.01"}]
            )
            task = reply.json()["id"]
            assert (await service.native("POST", f"/tasks/{task}/events", outcome)).status == 200
    return refused


# S28


async def test_s28_of_a_hold_that_was_refused_there_is_nothing_that_could_be_captured(service: Service) -> None:
    await limited(service, "1")
    order = b'{"model":"wan-2.6","params":{"prompt":"a cat"},"out_task_id":"order-7"}'
    submit = Call("POST", "/v1/tasks/submit", order)
    position = await service.position() + 1  # with the client's key
    assert (await service.client("bytespike", submit)).status == 402
    for path in ("query", "cancel"):
        reply = await service.client("bytespike", Call("POST", f"/v1/tasks/{path}", b'{"out_task_id":"order-7"}'))
        assert (reply.status, code_of("bytespike", reply)) == (404, "task_not_found")
    assert (await service.native("GET", f"/tasks?account={ACCOUNT}")).json()["tasks"] == []
    assert await service.position() == position
    await account(service, exposure_credits="0", available_credits="1")


# S37


def order(**fields: Any) -> dict[str, Any]:  # noqa: ANN401 - fields of the create
    return {"account": ACCOUNT, "contract": "beatra", "model": MODELS["beatra"], **fields}


@pytest.mark.parametrize("at_once", [False, True], ids=["one after the other", "in one batch"])
@pytest.mark.parametrize("by", ["Idempotency-Key", "out_task_id"])
async def test_s37_a_key_with_another_body_is_refused_with_the_fingerprint_of_the_first(
    service: Service, watched: Watched, by: str, *, at_once: bool
) -> None:
    bodies = [order(input={"prompt": prompt}) for prompt in ("a cat", "a dog", "a cat", "a cow")]
    headers = {"Idempotency_Key": "k1"} if by == "Idempotency-Key" else {}
    if by == "out_task_id":
        bodies = [{**body, "out_task_id": "order-7"} for body in bodies]
    asks = [service.native("POST", "/tasks", body, **headers) for body in bodies]
    if at_once:
        replies = await batched(service, watched, asks)
    else:
        replies = [await ask for ask in asks]
    (made,) = [reply for reply in replies if reply.status == 201]
    (claim,) = (await service.history(made.json()["id"]))[0]["data"]["claims"]
    refused = [reply for reply in replies if reply.status == 422]
    replayed = [reply for reply in replies if reply.status == 200]
    assert len(refused) + len(replayed) == 3
    assert len(refused) >= 2
    for reply in refused:
        assert code_of("ledger", reply) == "idempotency_key_reused"
        assert reply.json()["fingerprint"] == claim["fingerprint"]
    assert {reply.json()["id"] for reply in replayed} <= {made.json()["id"]}
    assert len((await service.native("GET", f"/tasks?account={ACCOUNT}")).json()["tasks"]) == 1


@pytest.mark.parametrize("at_once", [False, True], ids=["one after the other", "in one batch"])
async def test_s37_a_cancel_key_with_another_body_is_a_conflict_and_with_the_same_the_same_answer(
    service: Service, watched: Watched, *, at_once: bool
) -> None:
    task = spelled((await service.bring(Status.RUNNING, "beatra"))["id"])
    await service.key("beatra")
    call = cancel("beatra", task)
    bodies = [b'{"reason":"a"}', b'{"reason":"b"}', b'{ "reason" : "a" }', b"{}"]
    asks = [service.client("beatra", call._replace(body=body), ("Idempotency-Key", "k1")) for body in bodies]
    if at_once:
        replies = await batched(service, watched, asks)
    else:
        replies = [await ask for ask in asks]
    taken = [reply for reply in replies if reply.status == 202]
    refused = [reply for reply in replies if reply.status == 409]
    assert len(taken) + len(refused) == 4
    assert len({reply.body for reply in taken}) == 1
    assert sum("idempotent-replayed" not in reply.headers for reply in taken) == 1
    assert {code_of("beatra", reply) for reply in refused} == {"idempotency_key_conflict"}
    assert types(await service.history(spell("beatra", task)))["cancel-requested"] == 1


async def batched(service: Service, watched: Watched, asks: Sequence[Coroutine[Any, Any, Reply]]) -> list[Reply]:
    """The answers to *asks*, all of which form one commit: another one is held up until all of them wait for it."""
    watched.commit_gate.shut()
    blocker = asyncio.create_task(service.create("chunkr", account="somebody-else"))
    await watched.commit_gate.someone_waits()
    waiting = [asyncio.create_task(ask) for ask in asks]
    await queued(service, len(waiting))
    watched.commit_gate.open()
    await blocker
    return await asyncio.gather(*waiting)


# S42


async def test_s42_every_screen_has_the_same_total_for_the_same_position_and_says_which(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    requests, other = 129, ("bytespike", "lemondata", "beatra")
    for number in range(requests):
        task = await service.create(other[number % 3], estimated_credits="0.000626")
        await service.reported(task["id"], "completed", actual_credits=f"0.{number % 7:06}", output={"assets": []})
    first = (await service.native("GET", "/billing/summary")).json()
    place = f"at={first['position']}"
    await service.bring(Status.COMPLETED)
    later = (await service.native("GET", "/billing/summary")).json()
    assert later["position"] > first["position"]
    assert later["total"] != first["total"]
    screens = [
        (await service.native("GET", f"/billing/summary?{place}&by={by}")).json()
        for by in ("account", "contract", "model", "provider", "day")
    ]
    if (tmp_path / "ledger.db").exists():  # a log in memory has no other process to look at it
        words = ["--store", f"sqlite:{tmp_path / 'ledger.db'}", "--at", str(first["position"])]
        assert await asyncio.to_thread(run, app, ["report", "--json", *words]) == 0
        screens.append(msgspec.json.decode(capsys.readouterr().out))
    for screen in screens:
        assert [screen[name] for name in ("books", "position", "head", "total")] == [
            first[name] for name in ("books", "position", "head", "total")
        ]
    charged = sum(number % 7 for number in range(requests))
    assert parse_credits(first["total"]["net_credits"]) == charged
