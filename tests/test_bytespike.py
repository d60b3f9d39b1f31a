"""ByteSpike over HTTP: a row per status, a row per way to name a task, and the vendor's own examples.

Source: ByteSpike docs, "Cancel task" and the tasks API (docs.bytespike.ai).
"""

import json
from typing import NamedTuple

import pytest

from ledger.errors import StorageError
from ledger.ids import TaskId
from ledger.keys import Role
from tests.http import (
    COMPLETED,
    CONFIRMED,
    DAY_SECONDS,
    FAILED,
    STARTED,
    STRANGER,
    Call,
    CancelAsked,
    DeadlinePassed,
    DeleteAsked,
    History,
    Later,
    Service,
    Way,
    both_ways,
    cancel,
    compact,
    one_line,
    progressed,
    query,
    reported,
    spell,
)

at_both_mounts = pytest.mark.parametrize("prefix", ["/bytespike", ""], ids=["prefix", "root"])


# A row per status

DOCUMENTED_CANCELLED = """{
  "task_id": "task_01HQX9F2P6Y8VEX3CRZ8GXJVD9",
  "out_task_id": "my-render-2026-05-25-001",
  "status": "cancelled",
  "estimated_credits": 1.50,
  "estimated_seconds": 35
}"""
DOCUMENTED_COMPLETED = """{
  "task_id": "task_01HQX9F2P6Y8VEX3CRZ8GXJVD9",
  "status": "completed",
  "credits_used": 1.47,
  "output": [{ "type": "video", "url": "https://cdn.bytespike.ai/..." }]
}"""


def documented(example: str) -> str:
    return compact(json.loads(example)).replace("task_01HQX9F2P6Y8VEX3CRZ8GXJVD9", "{id}")


class Row(NamedTuple):
    """How a task with this history reads, and what its cancel answers with: always 200."""

    history: History
    query: str
    cancel: str


RUNNING: History = (STARTED,)
DONE = reported(
    "completed",
    output={"assets": [{"kind": "video", "url": "https://cdn.bytespike.ai/..."}]},
    actual_credits="1.47",
)
PENDING = '{"task_id":"{id}","status":"pending","estimated_credits":1.5,"estimated_seconds":35}'
IS_RUNNING = PENDING.replace("pending", "running")
CANCELLED = PENDING.replace("pending", "cancelled")
ENDED: dict[str, tuple[History, str]] = {
    "completed": ((STARTED, DONE), documented(DOCUMENTED_COMPLETED)),
    "failed": (
        (STARTED, FAILED),
        '{"task_id":"{id}","status":"failed","error":{"code":"broke","message":"It broke."}}',
    ),
    "failed, for a part of the price": (
        (STARTED, reported("failed", code="broke", actual_credits="0.25")),
        '{"task_id":"{id}","status":"failed","credits_used":0.25,"error":{"code":"broke","message":""}}',
    ),
    "cancelled": ((CancelAsked(),), CANCELLED),
    "cancelled while it ran": ((STARTED, CancelAsked(), CONFIRMED), CANCELLED),
    "expired": (
        (DeadlinePassed(),),
        one_line("""
            {"task_id":"{id}","status":"failed",
            "error":{"code":"task_expired","message":"The task expired before it finished."}}
        """),
    ),
}
ROWS = {
    "pending": Row((), PENDING, CANCELLED),
    "running": Row(RUNNING, IS_RUNNING, CANCELLED),
    "running, with progress": Row((STARTED, progressed(99)), IS_RUNNING, CANCELLED),
    "running, asked to cancel": Row((STARTED, CancelAsked()), IS_RUNNING, CANCELLED),
    **{name: Row(history, shown, shown) for name, (history, shown) in ENDED.items()},
}
every_row = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)


@at_both_mounts
@every_row
async def test_a_task_reads_as_its_status_wants(service: Service, row: Row, prefix: str) -> None:
    task = await service.make("bytespike", row.history)
    reply = await service.query("bytespike", task, prefix=prefix)
    assert (reply.status, reply.body) == (200, row.query.replace("{id}", spell("bytespike", task)))
    assert reply.headers["Content-Type"] == "application/json"
    assert reply.headers["Cache-Control"] == "no-store"


@at_both_mounts
@every_row
async def test_a_cancel_answers_200_with_the_task_as_it_stands_then(service: Service, row: Row, prefix: str) -> None:
    task = await service.make("bytespike", row.history)
    reply = await service.cancel("bytespike", task, prefix=prefix)
    assert (reply.status, reply.body) == (200, row.cancel.replace("{id}", spell("bytespike", task)))
    assert (await service.query("bytespike", task)).body == reply.body


@every_row
async def test_a_cancel_again_answers_with_the_same_bytes(service: Service, row: Row) -> None:
    task = await service.make("bytespike", row.history)
    first = await service.cancel("bytespike", task)
    version = (await service.seen(task))["version"]
    service.clock.advance(DAY_SECONDS)
    again = await service.cancel("bytespike", task)
    assert (again.status, again.body) == (200, first.body)
    assert (await service.seen(task))["version"] == version


async def test_the_customers_own_id_is_shown_whenever_there_is_one(service: Service) -> None:
    task = await service.make("bytespike", (STARTED, DONE), out_task_id="order-4711")
    wanted = one_line("""
        {"task_id":"{id}","out_task_id":"order-4711","status":"completed","credits_used":1.47,
        "output":[{"type":"video","url":"https://cdn.bytespike.ai/..."}]}
    """).replace("{id}", spell("bytespike", task))
    assert (await service.query("bytespike", task)).body == wanted
    assert (await service.cancel("bytespike", task)).body == wanted


async def test_a_task_without_an_estimated_time_shows_none(service: Service) -> None:
    task = await service.make("bytespike", model="a-model-of-its-own", estimated_credits="2")
    assert set((await service.query("bytespike", task)).json()) == {"task_id", "status", "estimated_credits"}


async def test_every_asset_is_shown_under_its_type_with_all_it_has(service: Service) -> None:
    assets = [
        {"kind": "video", "url": "https://cdn.example.test/1.mp4", "duration_seconds": 8},
        {"kind": "image", "url": "https://cdn.example.test/1.png", "width": 640, "seed": 7},
    ]
    task = await service.make("bytespike", (reported("completed", output={"assets": assets}),))
    assert (await service.query("bytespike", task)).json()["output"] == [
        {"type": "video", "url": "https://cdn.example.test/1.mp4", "duration_seconds": 8},
        {"type": "image", "url": "https://cdn.example.test/1.png", "width": 640, "seed": 7},
    ]


async def test_a_completed_task_that_made_nothing_shows_an_empty_output(service: Service) -> None:
    task = await service.make("bytespike", (COMPLETED,))
    assert (await service.query("bytespike", task)).json()["output"] == []


# Naming the task

ID, OTHER, OUT = "{id}", "{other}", "order-4711"
UNKNOWN = "task_01HQX9F2P6Y8VEX3CRZ8GXJVD9"
TOO_LONG = "x" * 129

BY_PATH: dict[str, bytes | None] = {
    "no body": None,
    "an empty body": b"",
    "a blank body": b" \r\n ",
    "an empty object": b"{}",
    "nulls": b'{"task_id":null,"out_task_id":null}',
    "the same id": b'{"task_id":"{id}"}',
    "another task's id": b'{"task_id":"{other}"}',
    "an unknown id": b'{"task_id":"task_01HQX9F2P6Y8VEX3CRZ8GXJVD9"}',
    "no id at all": b'{"task_id":"nonsense"}',
    "an empty id": b'{"task_id":""}',
}
BY_BODY = {
    "the id": b'{"task_id":"{id}"}',
    "the customer's id": b'{"out_task_id":"order-4711"}',
    "the id beside a null": b'{"task_id":"{id}","out_task_id":null}',
    "the customer's id beside a null": b'{"out_task_id":"order-4711","task_id":null}',
}
NO_OBJECT = {
    "an array": b"[]",
    "an array with an object": b'[{"task_id":"{id}"}]',
    "a text": b'"{id}"',
    "a number": b"1",
    "null": b"null",
    "true": b"true",
    "half an object": b'{"task_id":"{id}"',
    "two objects": b'{"task_id":"{id}"}{}',
    "single quotes": b"{'task_id':'{id}'}",
    "bytes that are no text": b"\xff\xfe",
    "half a character": b'{"task_id":"\\ud800"}',
}
WRONG_FIELDS = {
    "an unknown field": b'{"task_id":"{id}","reason":"r"}',
    "a number as the id": b'{"task_id":1}',
    "an array as the id": b'{"task_id":["{id}"]}',
    "a number as the customer's id": b'{"out_task_id":1}',
    "an empty customer's id": b'{"out_task_id":""}',
    "a customer's id that is too long": compact({"out_task_id": TOO_LONG}).encode(),
    "a customer's id with a line feed": b'{"out_task_id":"a\\nb"}',
    "a customer's id with a NUL": b'{"out_task_id":"a\\u0000b"}',
}
BOTH = {
    "both": b'{"task_id":"{id}","out_task_id":"order-4711"}',
    "both, of two tasks": b'{"task_id":"{other}","out_task_id":"order-4711"}',
    "both, and one is unknown": b'{"task_id":"{id}","out_task_id":"nonsense"}',
}
NEITHER: dict[str, bytes | None] = {
    "no body": None,
    "an empty body": b"",
    "a blank body": b"\n",
    "an empty object": b"{}",
    "nulls": b'{"task_id":null,"out_task_id":null}',
}
ONE_IS_REQUIRED = one_line("""
    {"error":{"message":"Exactly one of task_id and out_task_id is required.","type":"invalid_request_error",
    "code":"invalid_param","param":"task_id"}}
""")
NOT_FOUND = one_line("""
    {"error":{"message":"No task matches.","type":"not_found_error","code":"task_not_found","param":null}}
""")

CANCEL_PATH, QUERY_PATH = "/v1/tasks/cancel", "/v1/tasks/query"
takes_a_body = pytest.mark.parametrize("path", [CANCEL_PATH, QUERY_PATH], ids=["cancel", "query"])


class Pair(NamedTuple):
    """Two tasks of one account; the first has a customer's id, `OUT`."""

    task: TaskId
    other: TaskId

    def named_in(self, body: bytes | None) -> bytes | None:
        if body is None:
            return None
        spelled, other = (spell("bytespike", task).encode() for task in self)
        return body.replace(b"{id}", spelled).replace(b"{other}", other)


async def pair(service: Service) -> Pair:
    return Pair(await service.make("bytespike", out_task_id=OUT), await service.make("bytespike"))


async def statuses(service: Service, tasks: Pair) -> list[str]:
    return [(await service.seen(task))["status"] for task in tasks]


@pytest.mark.parametrize("body", BY_PATH.values(), ids=BY_PATH)
async def test_the_id_in_the_path_names_the_task_whatever_task_id_the_body_has(
    service: Service, body: bytes | None
) -> None:
    tasks = await pair(service)
    call = cancel("bytespike", tasks.task)._replace(body=tasks.named_in(body))
    reply = await service.ask("bytespike", call, Content_Type="application/json")
    assert (reply.status, reply.json()["task_id"]) == (200, spell("bytespike", tasks.task))
    assert await statuses(service, tasks) == ["cancelled", "queued"]


@pytest.mark.parametrize(
    "body",
    [b'{"out_task_id":"order-4711"}', b'{"out_task_id":"nonsense"}', *BOTH.values()],
)
async def test_an_id_in_the_path_and_a_customers_id_in_the_body_are_two(service: Service, body: bytes) -> None:
    tasks = await pair(service)
    reply = await service.ask("bytespike", cancel("bytespike", tasks.task)._replace(body=tasks.named_in(body)))
    assert (reply.status, reply.body) == (400, ONE_IS_REQUIRED)
    assert await statuses(service, tasks) == ["queued", "queued"]


@at_both_mounts
@pytest.mark.parametrize("body", BY_BODY.values(), ids=BY_BODY)
@takes_a_body
async def test_a_body_names_the_task_by_either_id(service: Service, path: str, body: bytes, prefix: str) -> None:
    tasks = await pair(service)
    reply = await service.ask("bytespike", Call("POST", path, tasks.named_in(body)), prefix=prefix)
    assert (reply.status, reply.json()["task_id"]) == (200, spell("bytespike", tasks.task))
    assert await statuses(service, tasks) == ["cancelled" if path == CANCEL_PATH else "queued", "queued"]


@pytest.mark.parametrize("body", [*BOTH.values(), *NEITHER.values()], ids=[*BOTH, *NEITHER])
@takes_a_body
async def test_a_body_with_both_ids_or_neither_is_a_400(service: Service, path: str, body: bytes | None) -> None:
    tasks = await pair(service)
    reply = await service.ask("bytespike", Call("POST", path, tasks.named_in(body)))
    assert (reply.status, reply.body) == (400, ONE_IS_REQUIRED)
    assert await statuses(service, tasks) == ["queued", "queued"]


@pytest.mark.parametrize("path", [CANCEL_PATH, QUERY_PATH, CANCEL_PATH + "/{id}"], ids=["cancel", "query", "by path"])
@pytest.mark.parametrize("body", (NO_OBJECT | WRONG_FIELDS).values(), ids=NO_OBJECT | WRONG_FIELDS)
async def test_a_body_of_another_shape_is_a_400(service: Service, path: str, body: bytes) -> None:
    tasks = await pair(service)
    path = path.replace("{id}", spell("bytespike", tasks.task))
    reply = await service.ask("bytespike", Call("POST", path, tasks.named_in(body)))
    error = reply.json()["error"]
    assert (reply.status, error["type"], error["code"]) == (400, "invalid_request_error", "invalid_param")
    assert list(error) == ["message", "type", "code", "param"]
    assert await statuses(service, tasks) == ["queued", "queued"]


@pytest.mark.parametrize(
    ("body", "param"),
    [(b'{"task_id":1}', "task_id"), (b'{"out_task_id":""}', "out_task_id"), (b"[]", None)],
)
async def test_a_field_at_fault_is_named(service: Service, body: bytes, param: str | None) -> None:
    reply = await service.ask("bytespike", Call("POST", QUERY_PATH, body))
    assert reply.json()["error"]["param"] == param


@pytest.mark.parametrize(
    "body",
    [
        b'{"task_id":"task_01HQX9F2P6Y8VEX3CRZ8GXJVD9"}',
        b'{"task_id":"task_01hqx9f2p6y8vex3crz8gxjvd9"}',
        b'{"task_id":"task_81HQX9F2P6Y8VEX3CRZ8GXJVD9"}',
        b'{"task_id":"01HQX9F2P6Y8VEX3CRZ8GXJVD9"}',
        b'{"task_id":"cancel"}',
        b'{"task_id":""}',
        b'{"out_task_id":"nonsense"}',
        b'{"out_task_id":"Order-4711"}',
        b'{"out_task_id":"{id}"}',
        compact({"out_task_id": "x" * 128}).encode(),
    ],
)
@takes_a_body
async def test_an_id_that_nothing_has_is_not_found(service: Service, path: str, body: bytes) -> None:
    tasks = await pair(service)
    reply = await service.ask("bytespike", Call("POST", path, tasks.named_in(body)))
    assert (reply.status, reply.body) == (404, NOT_FOUND)
    assert await statuses(service, tasks) == ["queued", "queued"]


async def test_a_customers_id_may_have_any_printable_characters(service: Service) -> None:
    name = "Bestellung Nr. 4711 \N{EURO SIGN} \N{SNOWMAN}"
    task = await service.make("bytespike", out_task_id=name)
    reply = await service.ask("bytespike", Call("POST", CANCEL_PATH, compact({"out_task_id": name}).encode()))
    assert (reply.status, reply.json()["task_id"]) == (200, spell("bytespike", task))
    assert reply.json()["out_task_id"] == name


async def test_two_accounts_may_use_one_customers_id_and_each_finds_its_own_task(service: Service) -> None:
    mine = await service.make("bytespike", out_task_id=OUT)
    theirs = await service.make("bytespike", out_task_id=OUT, account=STRANGER)
    call = Call("POST", CANCEL_PATH, BY_BODY["the customer's id"])
    for account, task in (("acme", mine), (STRANGER, theirs)):
        reply = await service.ask("bytespike", call, account=account)
        assert reply.json()["task_id"] == spell("bytespike", task)


async def test_a_cancelled_task_still_owns_the_customers_id(service: Service) -> None:
    task = await service.make("bytespike", (CancelAsked(),), out_task_id=OUT)
    reply = await service.ask("bytespike", Call("POST", QUERY_PATH, BY_BODY["the customer's id"]))
    assert reply.json()["task_id"] == spell("bytespike", task)


# What it costs

VEO = "veo-3.1"
COSTS: dict[str, tuple[str, History, float | None]] = {
    # nothing has begun, or the model refunds
    "pending": (VEO, (), None),
    "refunds, running": ("wan-2.6", (STARTED,), None),
    "refunds, nearly done": ("wan-2.6", (progressed(99),), None),
    # eight seconds of output at 0.4 credits each, from ten per cent on
    "before the point of no return": (VEO, (progressed(9),), None),
    "at the point of no return": (VEO, (progressed(10),), 0.32),
    "half way": (VEO, (progressed(50),), 1.6),
    "all rendered": (VEO, (progressed(100),), 3.2),
    "running, without progress": (VEO, (STARTED,), None),
    # what a worker has charged is kept
    "charged": ("wan-2.6", (STARTED, reported("charged", amount_credits="0.5", key="gpu")), 0.5),
    "charged, all of it": ("wan-2.6", (reported("charged", amount_credits="1.5", key="gpu"),), 1.5),
    "charged more than is rendered": (VEO, (progressed(10), reported("charged", amount_credits="2", key="gpu")), 2),
    "charged less than is rendered": (VEO, (progressed(50), reported("charged", amount_credits="1", key="gpu")), 1.6),
    "charged, then given back": (
        "wan-2.6",
        (
            reported("charged", amount_credits="0.5", key="gpu"),
            reported("refunded", amount_credits="0.5", key="sorry"),
        ),
        None,
    ),
}


@pytest.mark.parametrize(("model", "history", "used"), COSTS.values(), ids=COSTS)
async def test_credits_used_after_a_cancel_is_the_final_amount_or_absent(
    service: Service, model: str, history: History, used: float | None
) -> None:
    task = await service.make("bytespike", history, model=model)
    reply = await service.cancel("bytespike", task)
    assert (reply.status, reply.json()["status"], reply.json().get("credits_used")) == (200, "cancelled", used)
    billing = (await service.seen(task))["billing"]
    assert float(billing["net_credits"]) == (used or 0)
    assert billing["held_credits"] == "0"


async def test_a_cancel_never_costs_more_than_was_held(service: Service) -> None:
    task = await service.make("bytespike", (progressed(50),), model=VEO, estimated_credits="1")
    assert (await service.cancel("bytespike", task)).json()["credits_used"] == 1


async def test_the_rest_of_a_hold_is_released_before_the_cancel_answers(service: Service) -> None:
    task = await service.make("bytespike", (progressed(50),), model=VEO)
    await service.cancel("bytespike", task)
    billing = (await service.seen(task))["billing"]
    assert (billing["charged_credits"], billing["released_credits"]) == ("1.6", "1.6")


async def test_a_task_that_completed_for_nothing_shows_no_credits(service: Service) -> None:
    task = await service.make("bytespike", (reported("completed", actual_credits="0"),))
    assert "credits_used" not in (await service.query("bytespike", task)).json()


async def test_a_worker_that_finishes_too_late_changes_nothing(service: Service) -> None:
    task = await service.make("bytespike", (STARTED,))
    first = await service.cancel("bytespike", task)
    await service.go_on(task, DONE)
    assert (await service.query("bytespike", task)).body == first.body
    assert (await service.cancel("bytespike", task)).body == first.body


@pytest.mark.parametrize(
    "amount",
    [
        "0",
        "0.1",
        "0.3",
        "1.1",
        "1.5",
        "2",
        "0.000001",
        "4.35",
        "1234567.654321",
        "999999999999.999999",
        "1000000000000",
    ],
)
async def test_amounts_are_numbers_digit_by_digit(service: Service, amount: str) -> None:
    task = await service.make("bytespike", (STARTED,), estimated_credits=amount)
    assert f'"estimated_credits":{amount},' in (await service.query("bytespike", task)).body
    await service.go_on(task, COMPLETED)
    used = f'"credits_used":{amount},' if amount != "0" else '"completed","output"'
    assert used in (await service.query("bytespike", task)).body


# The vendor's own examples

DOCUMENTED_ID, DOCUMENTED_OUT_ID = "task_01HQX9F2P6Y8VEX3CRZ8GXJVD9", "my-render-2026-05-25-001"
PATH_LINE = """
curl -X POST https://llm.bytespike.ai/v1/tasks/cancel/task_01HQX9F2P6Y8VEX3CRZ8GXJVD9 \
  -H "Authorization: Bearer $BYTESPIKE_API_KEY"
"""
BODY_LINE = """
curl -X POST https://llm.bytespike.ai/v1/tasks/cancel \
  -H "Authorization: Bearer $BYTESPIKE_API_KEY" \
  -H "content-type: application/json" \
  -d '{"out_task_id": "my-render-2026-05-25-001"}'
"""


@at_both_mounts
async def test_the_documented_requests_get_the_documented_answer(service: Service, prefix: str) -> None:
    task = await service.make("bytespike", out_task_id=DOCUMENTED_OUT_ID)
    spelled = spell("bytespike", task)
    wanted = documented(DOCUMENTED_CANCELLED).replace("{id}", spelled)
    place = {"$BYTESPIKE_API_KEY": await service.key("bytespike")}
    by_body = await service.curl(BODY_LINE, place, prefix=prefix)
    assert (by_body.status, by_body.body) == (200, wanted)
    by_path = await service.curl(PATH_LINE, place | {DOCUMENTED_ID: spelled}, prefix=prefix)
    assert (by_path.status, by_path.body) == (200, wanted)


async def test_the_documented_ids_themselves_are_not_found(service: Service) -> None:
    for line in (PATH_LINE, BODY_LINE):
        reply = await service.curl(line, {"$BYTESPIKE_API_KEY": await service.key("bytespike")})
        assert (reply.status, reply.body) == (404, NOT_FOUND)


# A row per refusal


def error(message: str, kind: str, code: str) -> str:
    return f'{{"error":{{"message":"{message}","type":"{kind}","code":"{code}","param":null}}}}'


MISSING_KEY = error("Missing API key.", "authentication_error", "invalid_api_key")
WRONG_KEY = error("Invalid API key.", "authentication_error", "invalid_api_key")
REVOKED_KEY = error("This API key has been revoked.", "authentication_error", "invalid_api_key")
WRONG_ROLE = error("This API key cannot be used here.", "permission_error", "permission_denied")
DELETED: History = (STARTED, COMPLETED, DeleteAsked())
LONG_OVER: History = (STARTED, COMPLETED, Later(30 * DAY_SECONDS))


@at_both_mounts
@both_ways
async def test_a_key_is_shown_as_a_bearers_or_by_its_own_header(service: Service, way: Way, prefix: str) -> None:
    call = way("bytespike", await service.make("bytespike"))
    key = await service.key("bytespike")
    for headers in ({"Authorization": f"Bearer {key}"}, {"Authorization": f"bearer {key}"}, {"x-api-key": key}):
        assert (await service.send(call.method, prefix + call.path, headers=headers, body=call.body)).status == 200


@at_both_mounts
@both_ways
async def test_without_a_good_key_nothing_is_told(service: Service, way: Way, prefix: str) -> None:
    task = await service.make("bytespike", (STARTED,))
    call = way("bytespike", task)
    key, revoked = await service.key("bytespike"), await service.revoked_key("bytespike")
    refused: list[tuple[dict[str, str], str]] = [
        ({}, MISSING_KEY),
        ({"Authorization": ""}, MISSING_KEY),
        ({"Authorization": "Bearer sk-byts-1"}, WRONG_KEY),
        ({"Authorization": key}, WRONG_KEY),
        ({"Authorization": f"Basic {key}"}, WRONG_KEY),
        ({"x-api-key": "sk-byts-1"}, WRONG_KEY),
        ({"Authorization": f"Bearer {revoked}"}, REVOKED_KEY),
        ({"x-api-key": revoked}, REVOKED_KEY),
    ]
    for headers, body in refused:
        reply = await service.send(call.method, prefix + call.path, headers=headers, body=call.body)
        assert (reply.status, reply.body, reply.headers["WWW-Authenticate"]) == (401, body, "Bearer")
    assert (await service.seen(task))["status"] == "running"


@pytest.mark.parametrize("role", [Role.WORKER, Role.OPERATOR])
async def test_a_key_that_is_no_clients_is_forbidden(service: Service, role: Role) -> None:
    call = cancel("bytespike", await service.make("bytespike"))
    key = await service.key("bytespike", role=role)
    reply = await service.send(call.method, f"/bytespike{call.path}", headers={"Authorization": f"Bearer {key}"})
    assert (reply.status, reply.body) == (403, WRONG_ROLE)


@pytest.mark.parametrize(
    ("history", "account"),
    [((), STRANGER), (RUNNING, STRANGER), ((COMPLETED,), STRANGER), (DELETED, "acme"), (LONG_OVER, "acme")],
    ids=["another's, pending", "another's, running", "another's, completed", "deleted", "past retention"],
)
async def test_what_the_account_cannot_see_is_not_found(service: Service, history: History, account: str) -> None:
    task = await service.make("bytespike", history, out_task_id=OUT)
    version = (await service.seen(task))["version"]
    calls = [
        query("bytespike", task),
        cancel("bytespike", task),
        Call("POST", QUERY_PATH, BY_BODY["the customer's id"]),
        Call("POST", CANCEL_PATH, BY_BODY["the customer's id"]),
    ]
    for call in calls:
        reply = await service.ask("bytespike", call, account=account)
        assert (reply.status, reply.body) == (404, NOT_FOUND)
    assert (await service.seen(task))["version"] == version


async def test_a_missing_key_is_the_first_reason_then_a_bad_body_then_an_unseen_task(service: Service) -> None:
    for path in (CANCEL_PATH, QUERY_PATH, f"{CANCEL_PATH}/{UNKNOWN}"):
        body = BY_PATH["an unknown id"]
        assert (await service.send("POST", f"/bytespike{path}", body=b"[]")).status == 401
        assert (await service.ask("bytespike", Call("POST", path, b"[]"))).status == 400
        assert (await service.ask("bytespike", Call("POST", path, body))).status == 404


@pytest.mark.parametrize("path", [CANCEL_PATH, QUERY_PATH, f"{CANCEL_PATH}/{UNKNOWN}"])
async def test_a_body_may_have_a_mebibyte_and_no_more(service: Service, path: str) -> None:
    body = b'{"task_id":"' + UNKNOWN.encode() + b'"}'
    fits = await service.ask("bytespike", Call("POST", path, body.ljust(2**20)))
    assert (fits.status, fits.body) == (404, NOT_FOUND)
    reply = await service.ask("bytespike", Call("POST", path, body.ljust(2**20 + 1)))
    wanted = error("Task bodies are capped at 1 MiB.", "request_too_large", "request_too_large")
    assert (reply.status, reply.body) == (413, wanted)


@at_both_mounts
@pytest.mark.parametrize("path", [CANCEL_PATH, QUERY_PATH, f"{CANCEL_PATH}/{UNKNOWN}"])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_a_method_that_is_not_there_is_a_405(service: Service, method: str, path: str, prefix: str) -> None:
    reply = await service.ask("bytespike", Call(method, path), prefix=prefix)
    wanted = error("Method not allowed.", "invalid_request_error", "method_not_allowed")
    assert (reply.status, reply.body, reply.headers["Allow"]) == (405, wanted, "POST")


async def test_an_unknown_route_is_a_404_of_its_own(service: Service) -> None:
    reply = await service.ask("bytespike", Call("POST", "/v1/tasks/nothing"))
    assert (reply.status, reply.body) == (404, error("No such route.", "not_found_error", "not_found"))


FAULTS: dict[str, tuple[Exception, int, str]] = {
    "storage": (
        StorageError("the disk is full"),
        503,
        error("The service is temporarily unavailable; retry with backoff.", "api_error", "internal_error"),
    ),
    "ours": (ZeroDivisionError("a secret"), 500, error("Internal error.", "api_error", "internal_error")),
}


@pytest.mark.parametrize(("fault", "status", "body"), FAULTS.values(), ids=FAULTS)
async def test_a_fault_changes_nothing_and_tells_nothing(
    service: Service, fault: Exception, status: int, body: str
) -> None:
    task = await service.make("bytespike")
    before = await service.query("bytespike", task)
    service.watched.commit_faults.append(fault)
    reply = await service.cancel("bytespike", task)
    assert (reply.status, reply.body) == (status, body)
    assert (await service.query("bytespike", task)).body == before.body


async def test_a_full_queue_is_a_503_to_be_tried_again(service: Service) -> None:
    task = await service.make("bytespike")
    await service.query("bytespike", task)
    service.ledger.writer._queue_max = 0
    reply = await service.cancel("bytespike", task)
    wanted = error("The service is busy; retry with backoff.", "api_error", "internal_error")
    assert (reply.status, reply.body, reply.headers["Retry-After"]) == (503, wanted, "1")
