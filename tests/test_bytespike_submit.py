"""ByteSpike's submit over HTTP: what it takes, what it answers, and the key that a customer's own id is.

Source: ByteSpike docs, "Submit task" and the tasks API (docs.bytespike.ai).
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from api.contracts import bytespike, parse_any
from api.contracts.shape import Asked, Refused
from api.refusals import Invalid, RateLimited, Standing
from ledger.errors import InsufficientCredits, Refusal
from ledger.keys import Role
from tests.http import (
    ACCOUNT,
    CATALOGUE,
    COMPLETED,
    DAY_SECONDS,
    FAILED,
    STARTED,
    STRANGER,
    Call,
    CancelAsked,
    History,
    Reply,
    Service,
    compact,
    progressed,
    reported,
)
from tests.processes import Server, keys_in
from tests.test_bytespike import (
    BODY_LINE,
    DOCUMENTED_CANCELLED,
    DOCUMENTED_ID,
    DOCUMENTED_OUT_ID,
    PATH_LINE,
    documented,
)
from tests.wire import request

BODY: dict[str, Any] = {"model": "wan-2.6", "params": {"prompt": "a cat", "seconds": 4}}
KEYED = {**BODY, "out_task_id": "order-4711"}
SUBMIT, QUERY, CANCEL = "/v1/tasks/submit", "/v1/tasks/query", "/v1/tasks/cancel"


async def ask(service: Service, path: str, body: object, *, account: str = ACCOUNT) -> Reply:
    sent = body if isinstance(body, bytes) else compact(body).encode()
    return await service.ask("bytespike", Call("POST", path, sent), account=account)


async def listed(service: Service) -> list[dict[str, Any]]:
    tasks: list[dict[str, Any]] = (await service.native("GET", "/tasks")).json()["tasks"]
    return tasks


def error(status: int, message: str, kind: str, code: str, param: str | None) -> tuple[int, str]:
    body = {"error": {"message": message, "type": kind, "code": code, "param": param}}
    return status, compact(body)


DUPLICATE = error(
    409,
    "This out_task_id was used for another request.",
    "invalid_request_error",
    "duplicate_out_task_id",
    "out_task_id",
)


async def test_a_submit_answers_at_once_with_the_pending_task(service: Service) -> None:
    reply = await ask(service, SUBMIT, KEYED)
    name = reply.json()["task_id"]
    wanted = (
        f'{{"task_id":"{name}","out_task_id":"order-4711","status":"pending",'
        '"estimated_credits":1.5,"estimated_seconds":35}'
    )
    assert (reply.status, reply.body) == (200, wanted)
    assert (await ask(service, QUERY, {"task_id": name})).body == wanted
    assert (await ask(service, QUERY, {"out_task_id": "order-4711"})).body == wanted
    (task,) = await listed(service)
    assert (task["input"], task["model"], task["billing"]["held_credits"]) == (BODY["params"], "wan-2.6", "1.5")


async def test_a_key_in_a_header_of_its_own_submits_too(service: Service) -> None:
    headers = {"x-api-key": await service.key("bytespike")}
    reply = await service.send("POST", f"/bytespike{SUBMIT}", headers=headers, body=compact(BODY).encode())
    assert (reply.status, reply.json()["status"]) == (200, "pending")


async def test_without_an_id_of_the_customers_every_submit_is_a_task(service: Service) -> None:
    replies = [await ask(service, SUBMIT, {**BODY, "out_task_id": None}) for _ in range(2)]
    assert [list(one.json()) for one in replies] == [
        ["task_id", "status", "estimated_credits", "estimated_seconds"]
    ] * 2
    assert len(await listed(service)) == 2


REFUSED: dict[str, tuple[object, str | None]] = {
    "no model": ({"params": {}}, "model"),
    "no params": ({"model": "wan-2.6"}, "params"),
    "params are no object": ({**BODY, "params": []}, "params"),
    "an empty id": ({**BODY, "out_task_id": ""}, "out_task_id"),
    "a long id": ({**BODY, "out_task_id": "x" * 129}, "out_task_id"),
    "an id that is not printable": ({**BODY, "out_task_id": "a\nb"}, "out_task_id"),
    "no address": ({**BODY, "callback_url": "ftp://example.com/"}, "callback_url"),
    "stream is no boolean": ({**BODY, "stream": "yes"}, "stream"),
    "an unknown field": ({**BODY, "webhook": "https://example.com/"}, None),
    "no body": (b"", None),
}


@pytest.mark.parametrize(("body", "param"), REFUSED.values(), ids=REFUSED)
async def test_a_body_of_another_shape_is_a_400(service: Service, body: object, param: str | None) -> None:
    reply = await ask(service, SUBMIT, body)
    told = reply.json()["error"]
    assert (reply.status, told["type"], told["code"]) == (400, "invalid_request_error", "invalid_param")
    assert told["param"] == param
    assert await listed(service) == []


async def test_an_unknown_model_is_a_400_of_its_own(service: Service) -> None:
    reply = await ask(service, SUBMIT, {**BODY, "model": "seedance-2.0"})
    wanted = error(400, "Unknown model.", "invalid_request_error", "model_not_found", "model")
    assert (reply.status, reply.body) == wanted


async def test_a_body_over_a_mebibyte_is_a_413(service: Service) -> None:
    body = compact(BODY).encode()
    assert (await ask(service, SUBMIT, body.ljust(2**20))).status == 200
    reply = await ask(service, SUBMIT, body.ljust(2**20 + 1))
    wanted = error(413, "Task bodies are capped at 1 MiB.", "request_too_large", "request_too_large", None)
    assert (reply.status, reply.body) == wanted


def test_a_model_that_makes_neither_image_nor_video_is_refused() -> None:
    known = CATALOGUE.models["bytespike", "wan-2.6"]
    models = {("bytespike", "wan-2.6"): replace(known, capability="text-generation")}
    asked = Asked({}, {}, {}, compact(BODY).encode(), "", "req_1", ACCOUNT, "key", 0, "log")
    with pytest.raises(Invalid) as caught:
        bytespike.order(CATALOGUE._replace(models=models), asked)
    answer = bytespike.refuse(caught.value, Refused("POST", "req_1"))
    wanted = error(400, "Only image and video models take tasks.", "invalid_request_error", "invalid_param", "model")
    assert (answer.status, answer.body.decode()) == wanted


@pytest.mark.parametrize(
    ("refusal", "wanted"),
    [
        (
            InsufficientCredits(asked_micros=2, limit_micros=1, granted_micros=None, exposure_micros=0),
            error(402, "Insufficient balance.", "insufficient_quota", "insufficient_balance", None),
        ),
        (
            RateLimited(Standing(1, 0, 1), retry_after_seconds=1),
            error(429, "Rate limit exceeded.", "rate_limit_error", "rate_limit_exceeded", None),
        ),
    ],
)
def test_short_of_money_or_patience_is_worded(refusal: Refusal, wanted: tuple[int, str]) -> None:
    answer = bytespike.refuse(refusal, Refused("POST", "req_1"))
    assert (answer.status, answer.body.decode()) == wanted


# The customer's own id as a key

SAME = {
    "as it was": KEYED,
    "in another order": {
        "params": {"seconds": 4, "prompt": "a cat"},
        "out_task_id": "order-4711",
        "model": "wan-2.6",
    },
    "with another callback": {**KEYED, "callback_url": "https://example.com/hook"},
    "with stream": {**KEYED, "stream": True},
}


@pytest.mark.parametrize("body", SAME.values(), ids=SAME)
@pytest.mark.parametrize("history", [(), (STARTED,), (STARTED, FAILED), (CancelAsked(),)])
async def test_the_same_again_gets_the_first_answer_for_ever(service: Service, body: object, history: History) -> None:
    first = await ask(service, SUBMIT, KEYED)
    task = parse_any(first.json()["task_id"])
    assert task is not None
    await service.go_on(task, *history)
    service.clock.advance(400 * DAY_SECONDS)
    again = await ask(service, SUBMIT, body)
    assert (again.status, again.body) == (200, first.body)
    assert len(await listed(service)) == 1


@pytest.mark.parametrize("other", [{"model": "veo-3.1"}, {"params": {}}, {"params": {"prompt": "a dog"}}])
@pytest.mark.parametrize("history", [(), (STARTED, FAILED), (CancelAsked(),)])
async def test_another_request_under_the_same_id_is_a_conflict(
    service: Service, other: dict[str, Any], history: History
) -> None:
    task = parse_any((await ask(service, SUBMIT, KEYED)).json()["task_id"])
    assert task is not None
    await service.go_on(task, *history)
    service.clock.advance(400 * DAY_SECONDS)
    reply = await ask(service, SUBMIT, KEYED | other)
    assert (reply.status, reply.body) == DUPLICATE
    assert len(await listed(service)) == 1


async def test_another_account_has_ids_of_its_own(service: Service) -> None:
    mine = await ask(service, SUBMIT, KEYED)
    theirs = await ask(service, SUBMIT, {**KEYED, "params": {}}, account=STRANGER)
    assert (theirs.status, theirs.json()["task_id"] == mine.json()["task_id"]) == (200, False)


async def test_a_task_that_was_made_natively_and_a_submit_agree_on_the_key(service: Service) -> None:
    await service.make("bytespike", (STARTED,), input=BODY["params"], out_task_id="order-4711")
    again = await ask(service, SUBMIT, KEYED)
    assert (again.status, again.json()["status"]) == (200, "pending")
    assert len(await listed(service)) == 1
    reply = await ask(service, SUBMIT, {**KEYED, "params": {}})
    assert (reply.status, reply.body) == DUPLICATE


async def test_fifty_submits_at_once_are_one_task(service: Service) -> None:
    await service.key("bytespike")
    replies = await asyncio.gather(*(ask(service, SUBMIT, KEYED) for _ in range(50)))
    assert {reply.status for reply in replies} == {200}
    assert len({reply.body for reply in replies}) == 1
    (task,) = await listed(service)
    found = parse_any(task["id"])
    assert found is not None
    assert await service.types(found) == ["created", "held"]


async def test_past_the_point_of_no_return_a_cancel_charges_what_is_rendered(service: Service) -> None:
    first = await ask(service, SUBMIT, {**KEYED, "model": "veo-3.1"})
    name = first.json()["task_id"]
    task = parse_any(name)
    assert task is not None
    await service.go_on(task, STARTED, progressed(50))
    wanted = (
        f'{{"task_id":"{name}","out_task_id":"order-4711","status":"cancelled",'
        '"estimated_credits":3.2,"estimated_seconds":60,"credits_used":1.6}'
    )
    for path, body in ((CANCEL, {"out_task_id": "order-4711"}), (f"{CANCEL}/{name}", {}), (QUERY, {"task_id": name})):
        reply = await ask(service, path, body)
        assert (reply.status, reply.body) == (200, wanted)
    await service.go_on(task, reported("completed"))
    assert (await ask(service, QUERY, {"task_id": name})).body == wanted


ENDS: dict[str, tuple[History, str, str]] = {
    "pending": ((), "pending", "cancelled"),
    "running": ((STARTED, progressed(9)), "running", "cancelled"),
    "completed": ((STARTED, COMPLETED), "completed", "completed"),
    "failed": ((STARTED, FAILED), "failed", "failed"),
    "cancelled": ((CancelAsked(),), "cancelled", "cancelled"),
}


@pytest.mark.parametrize(("history", "reads", "after"), ENDS.values(), ids=ENDS)
async def test_a_submitted_task_is_queried_and_cancelled_in_every_state(
    service: Service, history: History, reads: str, after: str
) -> None:
    name = (await ask(service, SUBMIT, KEYED)).json()["task_id"]
    task = parse_any(name)
    assert task is not None
    await service.go_on(task, *history)
    for named in ({"task_id": name}, {"out_task_id": "order-4711"}):
        assert (await ask(service, QUERY, named)).json()["status"] == reads
    first = await ask(service, CANCEL, {"out_task_id": "order-4711"})
    assert (first.status, first.json()["status"]) == (200, after)
    assert (await ask(service, f"{CANCEL}/{name}", b"")).body == first.body
    assert (await service.seen(task))["billing"]["held_credits"] == "0"


# The real server


async def test_submit_query_and_cancel_over_a_restart_of_the_real_server(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    (key,) = await keys_in(path, ("bytespike", Role.CLIENT))
    headers = [("Authorization", f"Bearer {key}"), ("Content-Type", "application/json")]

    async def post(server: Server, route: str, body: object = None) -> tuple[int, bytes]:
        raw = b"" if body is None else msgspec.json.encode(body)
        async with server.wire() as wire:
            reply = await wire.send(request("POST", route, headers=headers, body=raw), method="POST")
        return reply.status, reply.body

    async with Server(path) as server:
        await server.start()
        first = await post(server, SUBMIT, KEYED)
        assert first[0] == 200
        await server.kill()
        await server.start()
        assert set(await asyncio.gather(*(post(server, SUBMIT, KEYED) for _ in range(50)))) == {first}
        assert await post(server, QUERY, {"out_task_id": "order-4711"}) == first
        cancelled = (200, first[1].replace(b"pending", b"cancelled"))
        assert await post(server, CANCEL, {"out_task_id": "order-4711"}) == cancelled
        name = msgspec.json.decode(first[1])["task_id"]
        assert await post(server, f"{CANCEL}/{name}") == cancelled
        assert await post(server, SUBMIT, KEYED) == first
        assert await server.stop() == 0


class RealService(Service):
    """The documented command lines, sent to the server in its own process."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def send(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Reply:
        async with self._server.wire() as wire:
            sent = request(method, path, headers=[*(headers or {}).items()], body=body or b"")
            reply = await wire.send(sent, method=method)
        return Reply(reply.status, reply.body.decode(), reply.headers)


def line(route: str, body: object) -> str:
    """A command line in the form of the documented ones."""
    return f"""
        curl -X POST https://llm.bytespike.ai{route} -H "Authorization: Bearer $BYTESPIKE_API_KEY"
        -H "content-type: application/json" -d '{compact(body)}'
    """


@pytest.mark.parametrize("by", ["path", "body"])
async def test_the_documented_lines_submit_query_and_cancel_on_the_real_server(tmp_path: Path, by: str) -> None:
    path = tmp_path / "ledger.db"
    (key,) = await keys_in(path, ("bytespike", Role.CLIENT))
    place = {"$BYTESPIKE_API_KEY": key}
    async with Server(path) as server:
        await server.start()
        real = RealService(server)
        made = await real.curl(line(SUBMIT, {**BODY, "out_task_id": DOCUMENTED_OUT_ID}), place)
        name = made.json()["task_id"]
        wanted = documented(DOCUMENTED_CANCELLED).replace("{id}", name)
        assert (made.status, made.body) == (200, wanted.replace("cancelled", "pending"))
        assert (await real.curl(line(QUERY, {"task_id": name}), place)).body == made.body
        if by == "path":
            cancelled = await real.curl(PATH_LINE, place | {DOCUMENTED_ID: name})
        else:
            cancelled = await real.curl(BODY_LINE, place)
        assert (cancelled.status, cancelled.body) == (200, wanted)
        assert (await real.curl(line(QUERY, {"out_task_id": DOCUMENTED_OUT_ID}), place)).body == wanted
        assert await server.stop() == 0
