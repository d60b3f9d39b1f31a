"""LemonData over HTTP: a row per status, a row per refusal, and the vendor's own examples.

Source: LemonData API reference, "Get task status" and "Cancel task" (docs.lemondata.cc).
"""

import json
from typing import NamedTuple

import pytest

from ledger.errors import StorageError
from ledger.ids import TaskId
from ledger.keys import Role
from tests.http import (
    ACCOUNT,
    COMPLETED,
    CONFIRMED,
    DAY_SECONDS,
    FAILED,
    MODELS,
    STARTED,
    STRANGER,
    CancelAsked,
    DeadlinePassed,
    DeleteAsked,
    History,
    Later,
    Service,
    cancel,
    compact,
    one_line,
    progressed,
    query,
    reported,
    spell,
)

CANCELLABLE = ("seedance-1.5-pro", "seedance-2.0", "seedance-2.0-fast")
NOT_CANCELLABLE = ("sora-2", "gpt-image-1", "suno-5.5", "tripo3d-v2.5")
OLDER_ROUTES = (
    "/v1/videos/generations",
    "/v1/images/generations",
    "/v1/images",
    "/v1/music/generations",
    "/v1/3d/generations",
)

at_both_mounts = pytest.mark.parametrize("prefix", ["/lemondata", ""], ids=["prefix", "root"])


# A row per status

DOCUMENTED_CANCEL = """{
  "id": "ldtask_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
  "task_id": "ldtask_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
  "poll_url": "/v1/tasks/ldtask_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
  "status": "failed",
  "cancelled": true,
  "cancellation_status": "cancelled",
  "error": "Task cancelled before execution"
}"""
CANCELLED = compact(json.loads(DOCUMENTED_CANCEL)).replace("ldtask_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "{id}")
CONFLICT = one_line("""
    {"error":{"message":"Task can no longer be cancelled.","type":"invalid_request_error",
    "code":"task_not_cancellable"}}
""")
UNSUPPORTED = one_line("""
    {"error":{"message":"This task does not support cancellation.","type":"invalid_request_error",
    "code":"unsupported_task_cancel"}}
""")


class Row(NamedTuple):
    """How a task with this history reads, and how its DELETE is answered. The task is created at 1767323045."""

    history: History
    query: str
    status: int
    cancel: str


def shown(state: str, *, updated: int) -> str:
    return one_line(f"""
        {{"id":"{{id}}","task_id":"{{id}}","poll_url":"/v1/tasks/{{id}}",{state},
        "created":1767323045,"updated":{updated},"model":"seedance-2.0"}}
    """)


RUNNING: History = (Later(5), STARTED)
VIDEO = {"kind": "video", "url": "https://cdn.example.test/v/0f3c.mp4", "width": 1280, "height": 720}
DONE = reported("completed", output={"assets": [{**VIDEO, "duration_seconds": 5}]}, actual_credits="1.25")

ROWS = {
    "queued": Row((), shown('"status":"pending"', updated=1767323045), 200, CANCELLED),
    "running": Row(RUNNING, shown('"status":"processing"', updated=1767323050), 409, CONFLICT),
    "running, with progress": Row(
        (*RUNNING, Later(5), progressed(40)),
        shown('"status":"processing","progress":40', updated=1767323055),
        409,
        CONFLICT,
    ),
    "running, asked to cancel": Row(
        (*RUNNING, CancelAsked()), shown('"status":"processing"', updated=1767323050), 409, CONFLICT
    ),
    "completed": Row(
        (*RUNNING, Later(51), DONE),
        one_line("""
            {"id":"{id}","task_id":"{id}","poll_url":"/v1/tasks/{id}","status":"completed","progress":100,
            "video_url":"https://cdn.example.test/v/0f3c.mp4",
            "video":{"url":"https://cdn.example.test/v/0f3c.mp4","duration":5,"width":1280,"height":720},
            "billing_transaction_id":"{transaction}","created":1767323045,"updated":1767323101,
            "model":"seedance-2.0"}
        """),
        409,
        CONFLICT,
    ),
    "failed": Row(
        (*RUNNING, FAILED), shown('"status":"failed","error":"It broke."', updated=1767323050), 409, CONFLICT
    ),
    "cancelled": Row(
        (Later(9), CancelAsked()),
        shown(
            '"status":"failed","cancelled":true,"cancellation_status":"cancelled",'
            '"error":"Task cancelled before execution"',
            updated=1767323054,
        ),
        409,
        CONFLICT,
    ),
    "cancelled while it ran": Row(
        (*RUNNING, CancelAsked(), CONFIRMED),
        shown(
            '"status":"failed","cancelled":true,"cancellation_status":"cancelled",'
            '"error":"Task cancelled before execution"',
            updated=1767323050,
        ),
        409,
        CONFLICT,
    ),
    "expired": Row(
        (DeadlinePassed(),), shown('"status":"failed","error":"Task expired"', updated=1767326645), 409, CONFLICT
    ),
}
every_row = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)


@at_both_mounts
@every_row
async def test_a_task_reads_as_its_status_wants(service: Service, row: Row, prefix: str) -> None:
    task = await service.make("lemondata", row.history)
    reply = await service.query("lemondata", task, prefix=prefix)
    transaction = reply.json().get("billing_transaction_id", "")
    wanted = row.query.replace("{id}", spell("lemondata", task)).replace("{transaction}", transaction)
    assert (reply.status, reply.body) == (200, wanted)
    assert reply.headers["Content-Type"] == "application/json"
    assert reply.headers["Cache-Control"] == "no-store"


@at_both_mounts
@every_row
async def test_a_delete_is_answered_as_the_status_wants(service: Service, row: Row, prefix: str) -> None:
    task = await service.make("lemondata", row.history)
    reply = await service.cancel("lemondata", task, prefix=prefix)
    assert (reply.status, reply.body) == (row.status, row.cancel.replace("{id}", spell("lemondata", task)))
    assert reply.headers["Content-Type"] == "application/json"
    assert reply.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("row", [row for row in ROWS.values() if row.status != 200])
async def test_a_refused_delete_leaves_the_task_as_it_reads(service: Service, row: Row) -> None:
    task = await service.make("lemondata", row.history)
    before = await service.query("lemondata", task)
    await service.cancel("lemondata", task)
    after = await service.query("lemondata", task)
    assert after.body == before.body


async def test_after_a_cancel_the_task_reads_as_its_answer_and_three_fields_more(service: Service) -> None:
    task = await service.make("lemondata", (Later(9),))
    answer = (await service.cancel("lemondata", task)).json()
    assert len(answer) == 7
    read = (await service.query("lemondata", task)).json()
    assert read == answer | {"created": 1767323045, "updated": 1767323054, "model": "seedance-2.0"}


async def test_a_delete_deletes_nothing(service: Service) -> None:
    task = await service.make("lemondata")
    assert (await service.cancel("lemondata", task)).status == 200
    assert (await service.query("lemondata", task)).status == 200
    assert await service.types(task) == ["created", "held", "cancel-requested", "cancelled", "released"]


async def test_a_second_delete_is_a_conflict(service: Service) -> None:
    task = await service.make("lemondata")
    replies = [await service.cancel("lemondata", task) for _ in range(3)]
    assert [reply.status for reply in replies] == [200, 409, 409]


async def test_a_cancel_gives_the_whole_estimate_back_before_it_answers(service: Service) -> None:
    task = await service.make("lemondata", estimated_credits="1.5")
    await service.cancel("lemondata", task)
    billing = (await service.seen(task))["billing"]
    assert (billing["held_credits"], billing["released_credits"], billing["charged_credits"]) == ("0", "1.5", "0")


@pytest.mark.parametrize("model", CANCELLABLE)
async def test_three_models_cancel(service: Service, model: str) -> None:
    task = await service.make("lemondata", model=model)
    assert (await service.cancel("lemondata", task)).status == 200


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
async def test_a_model_that_cannot_be_cancelled_is_a_400_in_every_status(service: Service, row: Row) -> None:
    task = await service.make("lemondata", row.history, model="sora-2")
    before = await service.query("lemondata", task)
    reply = await service.cancel("lemondata", task)
    assert (reply.status, reply.body) == (400, UNSUPPORTED)
    assert (await service.query("lemondata", task)).body == before.body


@pytest.mark.parametrize("model", NOT_CANCELLABLE)
async def test_no_other_model_cancels(service: Service, model: str) -> None:
    task = await service.make("lemondata", model=model)
    reply = await service.cancel("lemondata", task)
    assert (reply.status, reply.body) == (400, UNSUPPORTED)
    assert (await service.query("lemondata", task)).json()["status"] == "pending"


async def test_a_cancel_that_is_not_supported_is_put_on_record_once(service: Service) -> None:
    task = await service.make("lemondata", model="sora-2")
    for _ in range(2):
        await service.cancel("lemondata", task)
    assert await service.types(task) == ["created", "held", "cancel-requested"]


# What was made, by type

IMAGES = [
    {"kind": "image", "url": "https://cdn.example.test/1.png", "revised_prompt": "a cat"},
    {"kind": "image", "url": "https://cdn.example.test/2.png"},
]
SONG = {"kind": "audio", "url": "https://cdn.example.test/1.mp3"}
SHORT = {"kind": "video", "url": "https://cdn.example.test/2.mp4"}

OUTPUTS = {
    "no asset": ("seedance-2.0", {}, {}),
    "two videos": (
        "seedance-2.0",
        {"assets": [VIDEO, SHORT]},
        {
            "video_url": VIDEO["url"],
            "video": {"url": VIDEO["url"], "width": 1280, "height": 720},
            "videos": [{"url": VIDEO["url"], "width": 1280, "height": 720}, {"url": SHORT["url"]}],
        },
    ),
    "images": (
        "gpt-image-1",
        {"assets": IMAGES},
        {"data": [{"url": IMAGES[0]["url"], "revised_prompt": "a cat"}, {"url": IMAGES[1]["url"]}]},
    ),
    "music": (
        "suno-5.5",
        {"assets": [SONG], "title": "Rain", "lyrics": "It rains"},
        {"audio_url": SONG["url"], "title": "Rain", "lyrics": "It rains"},
    ),
    "music with a video": (
        "suno-5.5",
        {"assets": [SONG, SHORT]},
        {"video_url": SHORT["url"], "video": {"url": SHORT["url"]}, "audio_url": SONG["url"]},
    ),
    "3D in two formats": (
        "tripo3d-v2.5",
        {
            "assets": [
                {"kind": "model3d", "url": "https://cdn.example.test/1.glb?sig=1"},
                {"kind": "model3d", "url": "https://cdn.example.test/one", "format": "fbx"},
            ]
        },
        {
            "model_url": "https://cdn.example.test/1.glb?sig=1",
            "glb_url": "https://cdn.example.test/1.glb?sig=1",
            "fbx_url": "https://cdn.example.test/one",
        },
    ),
    "an asset without an address": ("suno-5.5", {"assets": [{"kind": "audio"}, {"kind": "model3d"}]}, {}),
}
ALWAYS = {
    "id",
    "task_id",
    "poll_url",
    "status",
    "progress",
    "billing_transaction_id",
    "created",
    "updated",
    "model",
}


@pytest.mark.parametrize(("model", "output", "wanted"), OUTPUTS.values(), ids=OUTPUTS)
async def test_a_completed_task_shows_what_was_made_in_the_fields_of_its_type(
    service: Service, model: str, output: dict[str, object], wanted: dict[str, object]
) -> None:
    task = await service.make("lemondata", (reported("completed", output=output),), model=model)
    read = (await service.query("lemondata", task)).json()
    assert {name: value for name, value in read.items() if name not in ALWAYS} == wanted


async def test_the_transaction_id_appears_with_the_settlement_and_is_no_task_id(service: Service) -> None:
    task = await service.make("lemondata", (STARTED,))
    assert "billing_transaction_id" not in (await service.query("lemondata", task)).json()
    await service.go_on(task, COMPLETED)
    first, second = [(await service.query("lemondata", task)).json() for _ in range(2)]
    assert first["billing_transaction_id"] == second["billing_transaction_id"]
    assert first["billing_transaction_id"] not in {first["id"], ""}


async def test_a_transaction_stays_when_its_money_is_given_back_later(service: Service) -> None:
    task = await service.make("lemondata", (STARTED, COMPLETED), estimated_credits="1.5")
    before = (await service.query("lemondata", task)).json()
    await service.go_on(task, reported("refunded", amount_credits="1.5", key="sorry"))
    assert (await service.query("lemondata", task)).json() == before


@pytest.mark.parametrize("history", [(), (STARTED,), (STARTED, FAILED)], ids=["pending", "processing", "failed"])
async def test_there_is_no_data_before_an_image_is_completed(service: Service, history: History) -> None:
    task = await service.make("lemondata", history, model="gpt-image-1")
    assert "data" not in (await service.query("lemondata", task)).json()


async def test_a_task_that_cost_nothing_has_no_transaction(service: Service) -> None:
    task = await service.make("lemondata", (reported("completed", actual_credits="0"),))
    assert "billing_transaction_id" not in (await service.query("lemondata", task)).json()


@pytest.mark.parametrize(
    ("message", "wanted"),
    [("It broke.", "It broke."), ("x" * 501, "x" * 500), ("", "broke")],
    ids=["a reason", "a long one", "only a code"],
)
async def test_the_error_is_a_text_of_at_most_500_characters(service: Service, message: str, wanted: str) -> None:
    task = await service.make("lemondata", (reported("failed", code="broke", message=message),))
    assert (await service.query("lemondata", task)).json()["error"] == wanted


# Routes


@pytest.mark.parametrize("route", OLDER_ROUTES)
async def test_the_older_routes_show_the_same(service: Service, route: str) -> None:
    task = await service.make("lemondata", ROWS["completed"].history)
    wanted = await service.query("lemondata", task)
    call = query("lemondata", task)._replace(path=f"{route}/{spell('lemondata', task)}")
    reply = await service.ask("lemondata", call)
    assert (reply.status, reply.body) == (200, wanted.body)


@at_both_mounts
@pytest.mark.parametrize("route", OLDER_ROUTES)
async def test_the_older_routes_refuse_the_same(service: Service, route: str, prefix: str) -> None:
    task, gone = await service.make("lemondata"), await service.make("lemondata", LONG_OVER)
    for found, account in ((task, STRANGER), (gone, ACCOUNT), (TaskId(bytes(16)), ACCOUNT)):
        call = query("lemondata", found)._replace(path=f"{route}/{spell('lemondata', found)}")
        reply = await service.ask("lemondata", call, prefix=prefix, account=account)
        assert (reply.status, reply.body) == (404, NOT_FOUND)
    for headers, body in (({}, MISSING_KEY), ({"Authorization": "Bearer sk-1"}, WRONG_KEY)):
        reply = await service.send("GET", f"{prefix}{route}/{spell('lemondata', task)}", headers=headers)
        assert (reply.status, reply.body) == (401, body)


@at_both_mounts
async def test_the_poll_url_never_has_the_prefix_and_stays_valid_after_a_cancel(
    service: Service,
    prefix: str,
) -> None:
    task = await service.make("lemondata")
    poll_url = (await service.cancel("lemondata", task, prefix=prefix)).json()["poll_url"]
    assert poll_url == f"/v1/tasks/{spell('lemondata', task)}"
    reply = await service.ask("lemondata", query("lemondata", task)._replace(path=poll_url), prefix=prefix)
    assert reply.json()["poll_url"] == poll_url


# The vendor's own examples

DOCUMENTED_ID, DOCUMENTED_KEY = "ldtask_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "sk-your-api-key"
DELETE_LINE = """
curl -X DELETE "https://api.lemondata.cc/v1/tasks/ldtask_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" \
  -H "Authorization: Bearer sk-your-api-key"
"""
GET_LINE = """
curl "https://api.lemondata.cc/v1/tasks/ldtask_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" \
  -H "Authorization: Bearer sk-your-api-key"
"""
DOCUMENTED_NOT_FOUND = """{
  "error": {
    "message": "Task not found or no longer available.",
    "type": "invalid_request_error",
    "code": "async_task_not_found"
  }
}"""


@at_both_mounts
async def test_the_documented_requests_get_the_documented_answers(service: Service, prefix: str) -> None:
    task = await service.make("lemondata")
    spelled = spell("lemondata", task)
    place = {DOCUMENTED_ID: spelled, DOCUMENTED_KEY: await service.key("lemondata")}
    assert (await service.curl(GET_LINE, place, prefix=prefix)).json()["status"] == "pending"
    cancelled = await service.curl(DELETE_LINE, place, prefix=prefix)
    assert (cancelled.status, cancelled.body) == (200, CANCELLED.replace("{id}", spelled))
    read = (await service.curl(GET_LINE, place, prefix=prefix)).json()
    assert (read["status"], read["cancelled"]) == ("failed", True)


@pytest.mark.parametrize("line", [GET_LINE, DELETE_LINE], ids=["GET", "DELETE"])
async def test_the_documented_id_itself_is_not_found_in_the_documented_words(service: Service, line: str) -> None:
    reply = await service.curl(line, {DOCUMENTED_KEY: await service.key("lemondata")})
    assert (reply.status, reply.body) == (404, compact(json.loads(DOCUMENTED_NOT_FOUND)))


# A row per refusal


def error(message: str, kind: str, code: str, more: str = "") -> str:
    return f'{{"error":{{"message":"{message}","type":"{kind}","code":"{code}"{more}}}}}'


NOT_FOUND = compact(json.loads(DOCUMENTED_NOT_FOUND))
MISSING_KEY = error("Missing API key.", "invalid_api_key", "invalid_api_key")
WRONG_KEY = error("Invalid API key.", "invalid_api_key", "invalid_api_key")
REVOKED_KEY = error("This API key has been revoked.", "expired_api_key", "expired_api_key")
WRONG_ROLE = error("This API key cannot be used here.", "access_denied", "access_denied")
NOT_YOURS = error("This API key cannot access the task.", "access_denied", "access_denied")

LONG_OVER: History = (STARTED, COMPLETED, Later(30 * DAY_SECONDS))
DELETED: History = (STARTED, COMPLETED, DeleteAsked())
ABSENT = "absent"


class Doubt(NamedTuple):
    """A DELETE against which several things speak at once."""

    asker: str
    history: History | str
    model: str
    status: int
    body: str


SORA = "sora-2"
SEEDANCE = MODELS["lemondata"]
PRECEDENCE = {
    # 401 before everything
    "no key, absent": Doubt("nobody", ABSENT, SEEDANCE, 401, MISSING_KEY),
    "no key, past retention": Doubt("nobody", LONG_OVER, SEEDANCE, 401, MISSING_KEY),
    "no key, unsupported": Doubt("nobody", (), SORA, 401, MISSING_KEY),
    "no key, running": Doubt("nobody", RUNNING, SEEDANCE, 401, MISSING_KEY),
    "wrong key, absent": Doubt("wrong", ABSENT, SEEDANCE, 401, WRONG_KEY),
    "wrong key, running": Doubt("wrong", RUNNING, SEEDANCE, 401, WRONG_KEY),
    "revoked key, absent": Doubt("revoked", ABSENT, SEEDANCE, 401, REVOKED_KEY),
    "revoked key, unsupported": Doubt("revoked", (), SORA, 401, REVOKED_KEY),
    "revoked key, running": Doubt("revoked", RUNNING, SEEDANCE, 401, REVOKED_KEY),
    # a key of the wrong role sees no task at all
    "worker, absent": Doubt("worker", ABSENT, SEEDANCE, 403, WRONG_ROLE),
    "worker, running": Doubt("worker", RUNNING, SEEDANCE, 403, WRONG_ROLE),
    "operator, queued": Doubt("operator", (), SEEDANCE, 403, WRONG_ROLE),
    # 404 before 403, 400 and 409
    "stranger, absent": Doubt(STRANGER, ABSENT, SEEDANCE, 404, NOT_FOUND),
    "stranger, deleted": Doubt(STRANGER, DELETED, SEEDANCE, 404, NOT_FOUND),
    "stranger, past retention": Doubt(STRANGER, LONG_OVER, SEEDANCE, 404, NOT_FOUND),
    "deleted, unsupported, over": Doubt("owner", DELETED, SORA, 404, NOT_FOUND),
    "past retention, unsupported": Doubt("owner", LONG_OVER, SORA, 404, NOT_FOUND),
    "past retention, over": Doubt("owner", LONG_OVER, SEEDANCE, 404, NOT_FOUND),
    # 403 before 400 and 409
    "stranger, could be cancelled": Doubt(STRANGER, (), SEEDANCE, 403, NOT_YOURS),
    "stranger, unsupported": Doubt(STRANGER, (), SORA, 403, NOT_YOURS),
    "stranger, running": Doubt(STRANGER, RUNNING, SEEDANCE, 403, NOT_YOURS),
    "stranger, unsupported, over": Doubt(STRANGER, (STARTED, COMPLETED), SORA, 403, NOT_YOURS),
    # 400 before 409
    "unsupported, running": Doubt("owner", RUNNING, SORA, 400, UNSUPPORTED),
    "unsupported, over": Doubt("owner", (STARTED, COMPLETED), SORA, 400, UNSUPPORTED),
}


@pytest.mark.parametrize(
    "doubt",
    [pytest.param(doubt, id=name) for name, doubt in PRECEDENCE.items()],
)
async def test_the_first_reason_that_holds_is_the_answer(service: Service, doubt: Doubt) -> None:
    task = await service.make("lemondata", () if isinstance(doubt.history, str) else doubt.history, model=doubt.model)
    call = cancel("lemondata", task)
    if doubt.history == ABSENT:
        call = call._replace(path="/v1/tasks/ldtask_" + "a" * 32)
    before = await service.types(task)
    key = await key_of(service, doubt.asker)
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    reply = await service.send(call.method, f"/lemondata{call.path}", headers=headers)
    assert (reply.status, reply.body) == (doubt.status, doubt.body)
    if doubt.body != UNSUPPORTED:
        assert await service.types(task) == before


async def key_of(service: Service, asker: str) -> str | None:
    """What *asker* shows as a key."""
    match asker:
        case "nobody":
            return None
        case "wrong":
            return "sk-your-api-key"
        case "revoked":
            return await service.revoked_key("lemondata")
        case "worker" | "operator":
            return await service.key("ledger", role=Role(asker))
        case "owner":
            return await service.key("lemondata")
        case _:
            return await service.key("lemondata", account=asker)


@pytest.mark.parametrize("model", [SEEDANCE, SORA])
@pytest.mark.parametrize("history", [(), RUNNING, (STARTED, COMPLETED)], ids=["queued", "running", "completed"])
async def test_another_accounts_task_is_not_found_when_it_is_read(
    service: Service, history: History, model: str
) -> None:
    task = await service.make("lemondata", history, model=model)
    reply = await service.query("lemondata", task, account=STRANGER)
    assert (reply.status, reply.body) == (404, NOT_FOUND)


@pytest.mark.parametrize(
    "spelled",
    [
        "ldtask_" + "A" * 32,
        "ldtask_" + "a" * 31,
        "ldtask_" + "a" * 33,
        "ldtask_" + "g" * 32,
        "a" * 32,
        "video_abc123",
        "cancel",
        "%00",
        "%FF",
        "ldtask_" + "%E2%82%AC" * 32,
    ],
)
@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_an_id_in_any_other_spelling_is_not_found(service: Service, method: str, spelled: str) -> None:
    call = cancel("lemondata", await service.make("lemondata"))
    reply = await service.ask("lemondata", call._replace(method=method, path=f"/v1/tasks/{spelled}"))
    assert (reply.status, reply.body) == (404, NOT_FOUND)


async def test_a_refused_key_is_answered_alike_on_both_methods(service: Service) -> None:
    task = await service.make("lemondata")
    for call in (query("lemondata", task), cancel("lemondata", task)):
        reply = await service.send(call.method, f"/lemondata{call.path}")
        assert (reply.status, reply.body, reply.headers["WWW-Authenticate"]) == (401, MISSING_KEY, "Bearer")


@at_both_mounts
async def test_a_method_that_is_not_there_is_a_405_that_names_those_that_are(
    service: Service,
    prefix: str,
) -> None:
    call = query("lemondata", await service.make("lemondata"))._replace(method="PUT")
    reply = await service.ask("lemondata", call, prefix=prefix)
    wanted = error("Method not allowed for this URL.", "invalid_request_error", "method_not_allowed")
    assert (reply.status, reply.body, reply.headers["Allow"]) == (405, wanted, "DELETE, GET")


async def test_an_unknown_route_is_a_404_of_its_own(service: Service) -> None:
    call = query("lemondata", await service.make("lemondata"))._replace(path="/v1/nothing")
    reply = await service.ask("lemondata", call)
    assert (reply.status, reply.body) == (404, error("Unknown request URL.", "invalid_request_error", "not_found"))


async def test_a_body_beyond_all_measure_is_a_413(service: Service) -> None:
    call = cancel("lemondata", await service.make("lemondata"))._replace(body=b" " * 2**21)
    reply = await service.ask("lemondata", call)
    assert (reply.status, reply.body) == (
        413,
        error("Request body is too large.", "invalid_request_error", "payload_too_large"),
    )


BUSY = error("The service is busy. Please retry later.", "server_error", "internal_error", ',"retryable":true')
DOWN = error(
    "The service is temporarily unavailable. Please retry later.",
    "server_error",
    "internal_error",
    ',"retryable":true',
)
BROKEN = error("Internal server error.", "server_error", "internal_error", ',"retryable":true')


async def test_a_full_queue_is_a_503_to_be_tried_again(service: Service) -> None:
    task = await service.make("lemondata")
    before = await service.query("lemondata", task)
    service.ledger.writer._queue_max = 0
    reply = await service.cancel("lemondata", task)
    assert (reply.status, reply.body, reply.headers["Retry-After"]) == (503, BUSY, "1")
    assert (await service.query("lemondata", task)).body == before.body


async def test_a_store_that_takes_nothing_is_a_503_and_the_task_is_as_it_was(service: Service) -> None:
    task = await service.make("lemondata")
    before = await service.query("lemondata", task)
    service.watched.commit_faults.append(StorageError("the disk is full"))
    reply = await service.cancel("lemondata", task)
    assert (reply.status, reply.body, reply.headers["Retry-After"]) == (503, DOWN, "2")
    assert (await service.query("lemondata", task)).body == before.body


async def test_a_fault_of_ours_is_a_500_that_tells_nothing(service: Service) -> None:
    task = await service.make("lemondata")
    before = await service.query("lemondata", task)
    service.watched.commit_faults.append(ZeroDivisionError("a secret"))
    reply = await service.cancel("lemondata", task)
    assert (reply.status, reply.body) == (500, BROKEN)
    assert (await service.query("lemondata", task)).body == before.body
