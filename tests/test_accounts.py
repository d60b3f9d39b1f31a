"""Accounts over HTTP: what they may spend is shown, set, granted and taken back, and too little of it is told."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ledger.engine import Engine
from ledger.errors import StorageError
from ledger.keys import Role
from ledger.records import Outcome
from tests.http import MODELS, Call, one_line
from tests.invariants import common_invariant
from tests.serving import ACCOUNT, STRANGER, Service, serving
from tests.wire import Reply

FREE = {
    "account": ACCOUNT,
    "unlimited": True,
    "limit_credits": None,
    "granted_credits": None,
    "held_credits": "0",
    "charged_credits": "0",
    "refunded_credits": "0",
    "net_credits": "0",
    "expected_credits": "0",
    "exposure_credits": "0",
    "available_credits": None,
    "live_tasks": 0,
    "tasks_max": None,
    "position": 0,
}


@pytest.fixture
async def service(engine: Engine) -> AsyncIterator[Service]:
    async with serving(engine) as running:
        yield running
        await common_invariant(engine)


async def shown(service: Service, account: str = ACCOUNT) -> dict[str, Any]:
    reply = await service.native("GET", f"/accounts/{account}", key=service.worker)
    assert reply.status == 200, reply
    view: dict[str, Any] = reply.json()
    return view


async def told(service: Service, method: str, path: str, body: object) -> dict[str, Any]:
    """What the operator is shown who changes `ACCOUNT`."""
    reply = await service.native(method, f"/accounts/{ACCOUNT}{path}", body)
    assert reply.status == 200, reply
    view: dict[str, Any] = reply.json()
    return view


async def limit(service: Service, amount: str | None) -> dict[str, Any]:
    return await told(service, "PUT", "/limit", {"limit_credits": amount})


async def grant(service: Service, amount: str, key: str = "g") -> dict[str, Any]:
    return await told(service, "POST", "/grants", {"amount_credits": amount, "key": key, "reason": "welcome"})


async def ordered(service: Service, contract: str = "bytespike", **fields: Any) -> Reply:  # noqa: ANN401
    body = {"account": ACCOUNT, "contract": contract, "model": MODELS[contract]} | fields
    return await service.native("POST", "/tasks", body, key=service.worker)


# What is shown


async def test_an_account_that_nothing_is_known_of_is_unlimited_and_has_spent_nothing(service: Service) -> None:
    assert await shown(service) == FREE


async def test_an_account_shows_what_it_was_given_what_its_tasks_cost_and_where_in_the_log_that_was(
    service: Service,
) -> None:
    await limit(service, "10")
    await grant(service, "2.5")
    await service.create("bytespike", estimated_credits="1.5")
    await service.create("chunkr", estimated_credits="0.25")
    charged = (await service.create("beatra", estimated_credits="4"))["id"]
    await service.reported(charged, "refunded", amount_credits="1", key="r")
    assert await shown(service) == FREE | {
        "unlimited": False,
        "limit_credits": "10",
        "granted_credits": "2.5",
        "held_credits": "1.5",
        "charged_credits": "4",
        "refunded_credits": "1",
        "net_credits": "3",
        "expected_credits": "0.25",
        "exposure_credits": "4.75",
        "available_credits": "7.75",
        "live_tasks": 3,
        "position": await service.position(),
    }
    assert (await shown(service, STRANGER))["exposure_credits"] == "0"


async def test_a_limit_is_set_and_taken_away_and_a_grant_is_given_once_and_taken_back(service: Service) -> None:
    assert (await limit(service, "10"))["available_credits"] == "10"
    position = await service.position()
    assert (await limit(service, "10"))["position"] == position
    assert await service.position() == position
    assert (await grant(service, "5"))["available_credits"] == "15"
    assert (await grant(service, "5"))["available_credits"] == "15"
    assert (await limit(service, None))["available_credits"] == "5"
    taken = {"grant": "g", "amount_credits": "2", "key": "r"}
    assert (await told(service, "POST", "/revocations", taken))["granted_credits"] == "3"
    assert (await told(service, "POST", "/revocations", taken))["granted_credits"] == "3"
    assert await service.position() == position + 3


@pytest.mark.parametrize(
    ("path", "body", "code", "facts"),
    [
        ("/grants", {"amount_credits": "6", "key": "g"}, "idempotency_key_reused", {"amount_credits": "5"}),
        ("/revocations", {"grant": "g", "amount_credits": "6", "key": "r"}, "amount_exceeds", {"left_credits": "5"}),
        ("/revocations", {"grant": "h", "amount_credits": "1", "key": "r"}, "amount_exceeds", {"left_credits": "0"}),
        ("/grants", {"amount_credits": "0", "key": "h"}, "invalid_request", {"param": "amount_credits"}),
        ("/grants", {"amount_credits": "-1", "key": "h"}, "invalid_request", {"param": "amount_credits"}),
        ("/grants", {"amount_credits": "999999999999", "key": "h"}, "amount_exceeds", {}),
    ],
)
async def test_what_cannot_be_granted_or_taken_back_is_refused_and_changes_nothing(
    service: Service, path: str, body: object, code: str, facts: dict[str, Any]
) -> None:
    await grant(service, "5")
    await service.native("POST", f"/accounts/{ACCOUNT}/grants", {"amount_credits": "1", "key": "small"})
    position = await service.position()
    reply = await service.native("POST", f"/accounts/{ACCOUNT}{path}", body)
    assert (reply.status, reply.json()["code"]) == (422, code)
    assert facts.items() <= reply.json().items()
    assert await service.position() == position


@pytest.mark.parametrize("body", [{}, {"limit_credits": 5}, {"limit_credits": "-1"}, {"limit_credits": "1e3"}])
async def test_a_limit_that_is_none_is_refused(service: Service, body: object) -> None:
    reply = await service.native("PUT", f"/accounts/{ACCOUNT}/limit", body)
    assert (reply.status, reply.json()["code"]) == (422, "invalid_request")


@pytest.mark.parametrize("name", ["%20", "a%20b", "%C3%BC", "a%00", "x" * 129])
async def test_what_cannot_be_an_account_is_refused(service: Service, name: str) -> None:
    for method, path in (("GET", ""), ("PUT", "/limit"), ("POST", "/grants"), ("POST", "/revocations")):
        reply = await service.native(method, f"/accounts/{name}{path}", {})
        assert (reply.status, reply.json()["param"]) == (422, "account")


async def test_only_the_operator_changes_an_account(service: Service) -> None:
    reply = await service.native("PUT", f"/accounts/{ACCOUNT}/limit", {"limit_credits": "1"}, key=service.worker)
    assert reply.status == 403
    client = await service.key("bytespike", role=Role.CLIENT)
    assert (await service.native("GET", f"/accounts/{ACCOUNT}", key=client)).status == 403


# Admission


async def test_a_refusal_tells_the_figures_that_it_rests_on_and_where_in_the_log_they_stood(service: Service) -> None:
    await limit(service, "3")
    await grant(service, "0.5")
    await service.create("bytespike", estimated_credits="1.5")
    await service.create("bytespike", account=STRANGER)
    position = await service.position()
    reply = await ordered(service, estimated_credits="2.000001")
    assert reply.status == 402
    body = reply.json()
    assert body["code"] == "insufficient_credits"
    at = (await shown(service))["position"]
    assert body["detail"] == f"2.000001 credits asked, 2 available as of position {at}"
    assert {name: body[name] for name in body if name.endswith("_credits")} == {
        "asked_credits": "2.000001",
        "available_credits": "2",
        "limit_credits": "3",
        "granted_credits": "0.5",
        "exposure_credits": "1.5",
    }
    assert body["position"] == at < position
    assert await service.position() == position
    assert (await ordered(service, estimated_credits="2")).status == 201


async def test_a_create_that_was_refused_can_be_sent_again_under_its_key_when_there_is_credit(service: Service) -> None:
    await limit(service, "1")
    body = {"account": ACCOUNT, "contract": "bytespike", "model": MODELS["bytespike"], "estimated_credits": "2"}
    first = await service.native("POST", "/tasks", body, Idempotency_Key="k")
    await limit(service, "2")
    again = await service.native("POST", "/tasks", body, Idempotency_Key="k")
    twin = await service.native("POST", "/tasks", body, Idempotency_Key="k")
    assert [first.status, again.status, twin.status] == [402, 201, 200]
    assert twin.json()["id"] == again.json()["id"]


async def test_a_limit_below_the_exposure_refuses_new_work_and_cancels_nothing(service: Service) -> None:
    tasks = [(await service.create("bytespike", estimated_credits="2"))["id"] for _ in range(3)]
    assert (await limit(service, "1"))["available_credits"] == "-5"
    assert (await ordered(service, estimated_credits="0.000001")).status == 402
    assert (await ordered(service, estimated_credits="0")).status == 201
    assert [(await service.task(task))["status"] for task in tasks] == ["queued"] * 3
    await service.reported(tasks[0], "completed", actual_credits="0.5")
    await service.reported(tasks[1], "charged", amount_credits="2", key="c")
    await service.reported(tasks[2], "failed", code="broke")
    assert (await shown(service))["available_credits"] == "-1.5"


async def test_what_a_worker_reports_is_taken_even_when_it_passes_the_limit(service: Service) -> None:
    await limit(service, "1")
    task = (await service.create("chunkr", estimated_credits="1"))["id"]
    await service.reported(task, "completed", actual_credits="5")
    assert (await shown(service))["available_credits"] == "-4"
    assert (await ordered(service, "chunkr")).status == 402


async def test_an_account_whose_grants_were_taken_back_has_nothing(service: Service) -> None:
    await grant(service, "5")
    await told(service, "POST", "/revocations", {"grant": "g", "amount_credits": "5", "key": "r"})
    assert (await ordered(service, estimated_credits="0.1")).status == 402


async def test_five_chunkr_creates_at_once_do_not_pass_a_budget_for_three(service: Service) -> None:
    await limit(service, "0.45")
    replies = await asyncio.gather(*(ordered(service, "chunkr", estimated_credits="0.15") for _ in range(5)))
    assert sorted(reply.status for reply in replies) == [201, 201, 201, 402, 402]
    made = [reply.json()["id"] for reply in replies if reply.status == 201]
    assert (await shown(service))["expected_credits"] == "0.45"
    await service.reported(made[0], "completed", actual_credits="0.1")
    await service.reported(made[1], "failed", code="broke")
    after = await shown(service)
    assert (after["charged_credits"], after["expected_credits"], after["available_credits"]) == ("0.1", "0.15", "0.2")


async def test_a_chunkr_update_is_a_run_more_and_needs_credit_like_one(service: Service) -> None:
    await limit(service, "2")
    task = (await service.create("chunkr", estimated_credits="1"))["id"]
    await service.reported(task, "completed")
    other = (await service.create("chunkr", estimated_credits="1"))["id"]
    position = await service.position()
    call = Call("PATCH", f"/api/v1/task/{task}/parse", b'{"high_resolution": true}')
    refused = await service.client("chunkr", call)
    position += 1  # its key
    assert (refused.status, refused.body) == (429, b"Usage limit exceeded")
    assert await service.position() == position
    await service.reported(other, "failed", code="broke")
    assert (await service.client("chunkr", call)).status == 200
    assert (await shown(service))["available_credits"] == "0"


# In each contract's words


CREATES = {
    "lemondata": Call("POST", "/v1/videos/generations", b'{"model":"seedance-2.0","prompt":"a cat"}'),
    "bytespike": Call("POST", "/v1/tasks/submit", b'{"model":"wan-2.6","params":{"prompt":"a cat"}}'),
    "chunkr": Call("POST", "/api/v1/task/parse", b'{"file":"https://files.example.test/in.pdf"}'),
    "beatra": Call("POST", "/v1/images/generations", b'{"prompt":"a cat","n":2}'),
}
REFUSED = {
    "lemondata": (
        402,
        one_line(
            """
            {"error":{"message":"Insufficient balance for this task.","type":"insufficient_balance",
            "code":"insufficient_balance","balance_usd":0.001,"estimated_cost_usd":1.5}}
            """
        ),
    ),
    "bytespike": (
        402,
        one_line(
            """
            {"error":{"message":"Insufficient balance.","type":"insufficient_quota",
            "code":"insufficient_balance","param":null}}
            """
        ),
    ),
    "chunkr": (429, "Usage limit exceeded"),
    "beatra": (
        402,
        one_line(
            """
            {"error":{"code":"insufficient_balance","message":"The balance does not cover this task.",
            "retryable":false,"request_id":"r1",
            "details":{"balance_credits":"0.0010","required_credits":"100.0000"}}}
            """
        ),
    ),
}


@pytest.mark.parametrize("contract", CREATES)
async def test_too_little_credit_is_told_in_the_contract_s_words(service: Service, contract: str) -> None:
    await limit(service, "0.001")
    await service.key(contract)
    position = await service.position()
    reply = await service.client(contract, CREATES[contract], ("X-Request-Id", "r1"), ("Idempotency-Key", "k1"))
    assert (reply.status, reply.body.decode()) == REFUSED[contract]
    assert await service.position() == position
    await limit(service, "1000")
    again = await service.client(contract, CREATES[contract], ("X-Request-Id", "r1"), ("Idempotency-Key", "k1"))
    assert again.status in {200, 201, 202}


# ByteSpike tells what is left


async def left(service: Service, call: Call) -> str | None:
    return (await service.client("bytespike", call)).headers.get("x-quota-remaining-credits")


QUERY = Call("POST", "/v1/tasks/query", b'{"out_task_id":"o1"}')


async def test_every_answer_of_bytespike_tells_what_credit_is_left(service: Service) -> None:
    await limit(service, "1.5")
    order = Call("POST", "/v1/tasks/submit", b'{"model":"wan-2.6","params":{},"out_task_id":"o1"}')
    assert await left(service, QUERY) == "1.5"  # not found
    price = (await service.create("bytespike", account=STRANGER))["billing"]["estimated_credits"]
    await limit(service, price)
    assert await left(service, order) == "0"
    assert await left(service, QUERY) == "0"
    assert await left(service, order._replace(body=b'{"model":"wan-2.6","params":{},"out_task_id":"o2"}')) == "0"  # 402
    assert await left(service, order._replace(body=b"{")) == "0"  # 400
    assert await left(service, Call("POST", "/v1/tasks/cancel", b'{"out_task_id":"o1"}')) == price
    assert await left(service, Call("GET", "/v1/balance")) == price


async def test_so_does_the_answer_to_a_create_whose_commit_failed(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    await limit(service, "1.5")
    await service.key("bytespike")

    async def full(_: object) -> list[Outcome]:
        raise StorageError("the disk is full")

    monkeypatch.setattr(service.ledger.engine, "commit", full)
    reply = await service.client("bytespike", CREATES["bytespike"])
    assert (reply.status, reply.headers.get("x-quota-remaining-credits")) == (503, "1.5")


async def test_an_unlimited_account_is_told_of_no_quota_and_neither_is_a_stranger(service: Service) -> None:
    assert await left(service, QUERY) is None
    await limit(service, "1")
    assert await left(service, QUERY) == "1"
    assert await left(service, Call("POST", "/v1/nowhere")) == "1"
    reply = await service.ask("POST", "/bytespike" + QUERY.path, key="tl_wrong", body=QUERY.body or b"")
    assert (reply.status, reply.headers.get("x-quota-remaining-credits")) == (401, None)


async def test_the_other_contracts_tell_of_no_quota(service: Service) -> None:
    await limit(service, "1000")
    for contract in ("lemondata", "chunkr", "beatra"):
        assert "x-quota-remaining-credits" not in (await service.client(contract, CREATES[contract])).headers


async def test_bytespike_shows_the_balance_digit_by_digit(service: Service) -> None:
    balance = Call("GET", "/v1/balance")
    none = b'{"remaining_credits":null,"limit_credits":null,"granted_credits":null,"held_credits":0,"used_credits":0}'
    reply = await service.client("bytespike", balance)
    assert (reply.status, reply.body) == (200, none)
    assert "x-ratelimit-remaining" in reply.headers
    await grant(service, "10.000001")
    done = (await service.create("bytespike", estimated_credits="2"))["id"]
    await service.reported(done, "completed", actual_credits="1.25")
    await service.create("bytespike", estimated_credits="0.5")
    assert (await service.client("bytespike", balance)).body == (
        b'{"remaining_credits":8.250001,"limit_credits":null,"granted_credits":10.000001,'
        b'"held_credits":0.5,"used_credits":1.25}'
    )
