"""beatra over HTTP: a row per status, the envelope to the letter, and idempotency keys.

Source: beatra API reference, "Cancel a task (best-effort)", and the beatra documentation (docs.stratizon.cn).
"""

import asyncio
import json
import re
from typing import Any, NamedTuple

import pytest

from ledger.errors import StorageError
from ledger.ids import TaskId
from ledger.keys import Role
from tests.builders import ENGINES
from tests.http import (
    ACCOUNT,
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
    Reply,
    Service,
    Step,
    UpdateAsked,
    Way,
    both_ways,
    cancel,
    compact,
    progressed,
    query,
    reported,
    spell,
)

at_both_mounts = pytest.mark.parametrize("prefix", ["/beatra", ""], ids=["prefix", "root"])
on_every_engine = pytest.mark.parametrize("service", ENGINES, indirect=True)

GENERATED_ID = re.compile(r"req_[0-9A-HJKMNP-TV-Z]{26}")


# A row per status

NEW: dict[str, Any] = {
    "object": "task",
    "task_id": "{id}",
    "status": "queued",
    "capability": "text_to_music",
    "model": "suno-5.5",
    "resolved_model": "suno-5.5",
    "metadata": {"order": "4711"},
    "input": {"prompt": "dream pop"},
    "progress": {"percent": 0, "stage": "queued", "message": "Waiting to start"},
    "output": None,
    "warnings": [],
    "error": None,
    "usage": None,
    "billing": {
        "charged_credits": "80.0000",
        "refunded_credits": "0.0000",
        "charged_credits_usd_reference": "0.0800",
        "refunded_credits_usd_reference": "0.0000",
        "currency": "USD",
    },
    "callback": None,
    "created_at": "2026-01-02T03:04:05Z",
    "started_at": None,
    "completed_at": None,
    "cancel_requested_at": None,
    "links": {"self": "/v1/tasks/{id}", "cancel": "/v1/tasks/{id}/cancel"},
}
CANCELED_BYTES = (
    '{"object":"task","task_id":"{id}","status":"canceled","capability":"text_to_music","model":"suno-5.5",'
    '"resolved_model":"suno-5.5","metadata":{"order":"4711"},"input":{"prompt":"dream pop"},'
    '"progress":{"percent":0,"stage":"canceled","message":"Canceled before start"},"output":null,"warnings":[],'
    '"error":null,"usage":null,"billing":{"charged_credits":"80.0000","refunded_credits":"80.0000",'
    '"charged_credits_usd_reference":"0.0800","refunded_credits_usd_reference":"0.0800","currency":"USD"},'
    '"callback":null,"created_at":"2026-01-02T03:04:05Z","started_at":null,"completed_at":"2026-01-02T03:04:09Z",'
    '"cancel_requested_at":"2026-01-02T03:04:09Z",'
    '"links":{"self":"/v1/tasks/{id}","cancel":"/v1/tasks/{id}/cancel"}}'
)

STARTED_AT, ENDED_AT = "2026-01-02T03:04:10Z", "2026-01-02T03:04:15Z"
RUNNING: History = (Later(5), STARTED)
ENDING: History = (*RUNNING, Later(5))
ASKED: History = (*RUNNING, CancelAsked(), Later(5))
SONG = {"assets": [{"kind": "audio", "url": "https://cdn.example.test/1.mp3"}]}
DONE = reported("completed", output=SONG)


def progress(percent: int, stage: str, message: str) -> dict[str, Any]:
    return {"percent": percent, "stage": stage, "message": message}


REFUNDED = NEW["billing"] | {"refunded_credits": "80.0000", "refunded_credits_usd_reference": "0.0800"}
IS_RUNNING = {"status": "running", "progress": progress(0, "running", "Running"), "started_at": STARTED_AT}
WAS_ASKED = {"cancel_requested_at": STARTED_AT}
HAS_SUCCEEDED = {
    "status": "succeeded",
    "progress": progress(100, "succeeded", "Done"),
    "output": SONG,
    "started_at": STARTED_AT,
    "completed_at": ENDED_AT,
}
HAS_FAILED = {
    "status": "failed",
    "progress": progress(0, "failed", "Failed"),
    "error": {"code": "broke", "message": "It broke.", "retryable": False},
    "billing": REFUNDED,
    "started_at": STARTED_AT,
    "completed_at": ENDED_AT,
}
WAS_CANCELED = {
    "status": "canceled",
    "progress": progress(0, "canceled", "Canceled"),
    "billing": REFUNDED,
    "started_at": STARTED_AT,
    "completed_at": ENDED_AT,
}
CANCELED_EARLY = WAS_CANCELED | {
    "progress": progress(0, "canceled", "Canceled before start"),
    "started_at": None,
    "completed_at": "2026-01-02T03:04:05Z",
    "cancel_requested_at": "2026-01-02T03:04:05Z",
}
HAS_EXPIRED = {
    "status": "failed",
    "progress": progress(0, "failed", "Expired before it finished"),
    "error": {"code": "task_expired", "message": "The task expired before it finished.", "retryable": True},
    "billing": REFUNDED,
    "completed_at": "2026-01-02T04:04:05Z",
}


class Row(NamedTuple):
    """What a task with this history shows that differs from a new one, and what its cancel comes to."""

    history: History
    shows: dict[str, Any]
    status: int
    after: dict[str, Any]


ROWS = {
    "queued": Row((), {}, 202, CANCELED_EARLY),
    "running": Row(RUNNING, IS_RUNNING, 202, IS_RUNNING | WAS_ASKED),
    "running, with progress": Row(
        (*RUNNING, progressed(40, stage="mixing", message="Mixing it down")),
        IS_RUNNING | {"progress": progress(40, "mixing", "Mixing it down")},
        202,
        IS_RUNNING | WAS_ASKED | {"progress": progress(40, "mixing", "Mixing it down")},
    ),
    "running, cancel asked": Row(ASKED, IS_RUNNING | WAS_ASKED, 202, IS_RUNNING | WAS_ASKED),
    "succeeded": Row((*ENDING, DONE), HAS_SUCCEEDED, 200, HAS_SUCCEEDED),
    "succeeded all the same": Row((*ASKED, DONE), HAS_SUCCEEDED | WAS_ASKED, 200, HAS_SUCCEEDED | WAS_ASKED),
    "failed": Row((*ENDING, FAILED), HAS_FAILED, 200, HAS_FAILED),
    "failed, cancel asked": Row((*ASKED, FAILED), HAS_FAILED | WAS_ASKED, 200, HAS_FAILED | WAS_ASKED),
    "canceled before it ran": Row((CancelAsked(),), CANCELED_EARLY, 200, CANCELED_EARLY),
    "canceled while it ran": Row((*ASKED, CONFIRMED), WAS_CANCELED | WAS_ASKED, 200, WAS_CANCELED | WAS_ASKED),
    "expired": Row((DeadlinePassed(),), HAS_EXPIRED, 200, HAS_EXPIRED),
}
every_row = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)


async def make(service: Service, *history: Step, **fields: Any) -> TaskId:  # noqa: ANN401 - of its create
    common = {"metadata": {"order": "4711"}, "input": {"prompt": "dream pop"}}
    return await service.make("beatra", history, **(common | fields))


def envelope(task: TaskId, shows: dict[str, Any]) -> str:
    return compact(NEW | shows).replace("{id}", spell("beatra", task))


def asked_with(task: TaskId, key: str | None = None, *, body: bytes | None = None) -> tuple[Call, dict[str, str]]:
    """A cancel under an idempotency key, and the headers for it."""
    return cancel("beatra", task)._replace(body=body), {} if key is None else {"Idempotency_Key": key}


@at_both_mounts
@every_row
async def test_a_task_reads_as_its_status_wants(service: Service, row: Row, prefix: str) -> None:
    task = await make(service, *row.history)
    reply = await service.query("beatra", task, prefix=prefix)
    assert (reply.status, reply.body) == (200, envelope(task, row.shows))
    assert reply.headers["Content-Type"] == "application/json"
    assert reply.headers["Cache-Control"] == "no-store"


@at_both_mounts
@every_row
async def test_a_cancel_is_200_when_the_task_is_over_and_else_202(service: Service, row: Row, prefix: str) -> None:
    task = await make(service, *row.history)
    reply = await service.cancel("beatra", task, prefix=prefix)
    assert (reply.status, reply.body) == (row.status, envelope(task, row.after))
    assert (await service.query("beatra", task)).body == reply.body


@every_row
async def test_a_cancel_again_changes_nothing(service: Service, row: Row) -> None:
    task = await make(service, *row.history)
    first = await service.cancel("beatra", task)
    version = (await service.seen(task))["version"]
    service.clock.advance(60)
    again = await service.cancel("beatra", task)
    assert again.body == first.body
    assert again.status == (202 if again.json()["status"] == "running" else 200)
    assert (await service.seen(task))["version"] == version


async def test_a_canceled_task_is_shown_in_these_very_bytes(service: Service) -> None:
    task = await make(service)
    service.clock.advance(4)
    reply = await service.cancel("beatra", task)
    assert (reply.status, reply.body) == (202, CANCELED_BYTES.replace("{id}", spell("beatra", task)))


@pytest.mark.parametrize(
    ("ending", "status"),
    [(CONFIRMED, "canceled"), (DONE, "succeeded"), (FAILED, "failed")],
    ids=["it stops", "it is done", "it breaks"],
)
async def test_a_running_task_that_was_asked_to_stop_ends_as_its_worker_says(
    service: Service,
    ending: Step,
    status: str,
) -> None:
    task = await make(service, *RUNNING)
    asked = await service.cancel("beatra", task)
    service.clock.advance(5)
    await service.go_on(task, ending)
    read = (await service.query("beatra", task)).json()
    assert (read["status"], read["cancel_requested_at"]) == (status, asked.json()["cancel_requested_at"])


async def test_a_model_that_stands_for_another_shows_both(service: Service) -> None:
    task = await make(service, model="auto")
    read = (await service.query("beatra", task)).json()
    assert (read["model"], read["resolved_model"], read["capability"]) == ("auto", "beatra-image-1", "text_to_image")


async def test_what_an_earlier_run_made_is_not_shown_while_another_run_is_on(service: Service) -> None:
    task = await service.make("chunkr", (DONE, UpdateAsked({"ocr_strategy": "Auto"})))
    read = (await service.query("beatra", task)).json()
    assert (read["status"], read["output"]) == ("queued", None)


async def test_metadata_is_texts(service: Service) -> None:
    task = await make(service, metadata={"text": "a", "number": 1, "list": [1, "b"], "nothing": None})
    read = (await service.query("beatra", task)).json()
    assert read["metadata"] == {"text": "a", "number": "1", "list": '[1,"b"]', "nothing": "null"}


async def test_a_callback_is_shown_as_pending_until_it_is_tried(service: Service) -> None:
    task = await make(service, callback_url="https://customer.example.test/done")
    assert (await service.query("beatra", task)).json()["callback"] == {
        "url": "https://customer.example.test/done",
        "status": "pending",
        "attempt_count": 0,
        "delivered_at": None,
        "last_error": None,
    }


# The envelope of the reference

REFERENCE: dict[str, Any] = json.loads("""{
  "object": "task",
  "task_id": "string",
  "status": "queued",
  "capability": "string",
  "model": "string",
  "resolved_model": "string",
  "metadata": {
    "property1": "string",
    "property2": "string"
  },
  "input": {},
  "progress": {
    "percent": 100,
    "stage": "string",
    "message": "string"
  },
  "output": {},
  "warnings": [
    {
      "code": "string",
      "message": "string",
      "field": "string"
    }
  ],
  "error": {
    "code": "string",
    "message": "string",
    "retryable": true
  },
  "usage": {
    "input_tokens": 0,
    "output_tokens": 0,
    "cache_read_tokens": 0,
    "cache_creation_tokens": 0,
    "reasoning_tokens": 0,
    "image_count": 0,
    "image_pixels": 0,
    "video_seconds": 0,
    "audio_seconds": 0,
    "characters": 0,
    "lines": [
      {
        "meter": "string",
        "quantity": "string",
        "unit": "string",
        "billed_amount_credits": "string",
        "billed_amount_credits_usd_reference": "string"
      }
    ],
    "credits": "string",
    "credits_usd_reference": "string"
  },
  "billing": {
    "charged_credits": "string",
    "refunded_credits": "string",
    "charged_credits_usd_reference": "string",
    "refunded_credits_usd_reference": "string",
    "currency": "USD"
  },
  "callback": {
    "url": "string",
    "status": "pending",
    "attempt_count": 0,
    "delivered_at": "2019-08-24T14:15:22Z",
    "last_error": "string"
  },
  "created_at": "2019-08-24T14:15:22Z",
  "started_at": "2019-08-24T14:15:22Z",
  "completed_at": "2019-08-24T14:15:22Z",
  "cancel_requested_at": "2019-08-24T14:15:22Z",
  "links": {
    "self": "string",
    "cancel": "string"
  }
}""")
FULL = reported(
    "completed",
    output={},
    usage={
        "image_count": 2,
        "lines": [{"meter": "images", "quantity": "2", "unit": "image", "billed_amount_credits": "12.5"}],
    },
    warnings=[{"code": "slow", "message": "It took long.", "field": "prompt"}],
    actual_credits="12.5",
)


def shape(value: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
    """The members of *value*, in order, and of what type each is."""
    match value:
        case dict():
            return [(name, shape(inner)) for name, inner in value.items()]
        case list():
            return [shape(inner) for inner in value]
        case _:
            return type(value)


@pytest.mark.parametrize("history", [(*ASKED, FULL), (*ASKED, FAILED)], ids=["succeeded", "failed"])
async def test_the_envelope_has_the_members_of_the_reference_in_its_order(service: Service, history: History) -> None:
    task = await make(
        service,
        *history,
        metadata={"property1": "string", "property2": "string"},
        input={},
        callback_url="https://customer.example.test/done",
    )
    reply = await service.cancel("beatra", task)
    assert reply.status == 200
    ours, callback = reply.json(), REFERENCE["callback"] | {"delivered_at": None, "last_error": None}
    left_out: dict[str, Any] = {"error": None}
    if ours["status"] == "failed":
        left_out = {"usage": None, "output": None, "warnings": []}
    assert shape(ours) == shape(REFERENCE | {"callback": callback} | left_out)


async def test_usage_is_what_the_worker_metered_and_the_credits_paid_in_the_end(service: Service) -> None:
    task = await make(service, *RUNNING, FULL)
    read = (await service.query("beatra", task)).json()
    assert read["usage"] == REFERENCE["usage"] | {
        "image_count": 2,
        "lines": [
            {
                "meter": "images",
                "quantity": "2.0000",
                "unit": "image",
                "billed_amount_credits": "12.5000",
                "billed_amount_credits_usd_reference": "0.0125",
            }
        ],
        "credits": "12.5000",
        "credits_usd_reference": "0.0125",
    }
    assert read["billing"] == NEW["billing"] | {
        "refunded_credits": "67.5000",
        "refunded_credits_usd_reference": "0.0675",
    }


async def test_a_warning_about_no_field_says_so_with_null(service: Service) -> None:
    warnings = [
        {"code": "slow", "message": "It took long."},
        {"code": "cut", "message": "Shortened.", "field": "lyrics"},
    ]
    task = await make(service, reported("completed", warnings=warnings))
    read = (await service.query("beatra", task)).json()
    assert read["warnings"] == [warnings[0] | {"field": None}, warnings[1]]


QUANTITIES = {"3": "3.0000", "2.5": "2.5000", "0.00005": "0.0001", "0": "0.0000", "1048576": "1048576.0000"}


@pytest.mark.parametrize(("quantity", "shown"), QUANTITIES.items())
async def test_a_quantity_is_text_with_four_decimals_too(service: Service, quantity: str, shown: str) -> None:
    line = {"meter": "audio_seconds", "quantity": quantity, "unit": "second", "billed_amount_credits": "1"}
    task = await make(service, reported("completed", usage={"audio_seconds": 3, "lines": [line]}))
    (read,) = (await service.query("beatra", task)).json()["usage"]["lines"]
    assert read["quantity"] == shown


async def test_every_meter_is_the_workers_number_and_0_where_it_has_none(service: Service) -> None:
    meters = [name for name in REFERENCE["usage"] if name not in {"lines", "credits", "credits_usd_reference"}]
    counts = {name: number for number, name in enumerate(meters, start=7)}
    task = await make(service, reported("completed", usage=counts))
    bare = await make(service, reported("completed", usage={"meter_of_our_own": 1}))
    assert (await service.query("beatra", task)).json()["usage"].items() >= counts.items()
    assert (await service.query("beatra", bare)).json()["usage"].items() >= dict.fromkeys(meters, 0).items()


# Money

AMOUNTS = {  # credits, with four decimals, as dollars
    "0": ("0.0000", "0.0000"),
    "50": ("50.0000", "0.0500"),
    "0.5": ("0.5000", "0.0005"),
    "0.05": ("0.0500", "0.0001"),
    "0.049999": ("0.0500", "0.0000"),
    "0.00005": ("0.0001", "0.0000"),
    "0.000049": ("0.0000", "0.0000"),
    "1234.5678": ("1234.5678", "1.2346"),
    "0.1": ("0.1000", "0.0001"),
    "1000000000000": ("1000000000000.0000", "1000000000.0000"),
}


@pytest.mark.parametrize(("amount", "exact", "dollars"), [(amount, *shown) for amount, shown in AMOUNTS.items()])
async def test_money_is_text_with_four_decimals(
    service: Service,
    amount: str,
    exact: str,
    dollars: str,
) -> None:
    task = await make(service, estimated_credits=amount)
    charged = (await service.query("beatra", task)).json()["billing"]
    assert (charged["charged_credits"], charged["charged_credits_usd_reference"]) == (exact, dollars)
    refunded = (await service.cancel("beatra", task)).json()["billing"]
    assert (refunded["refunded_credits"], refunded["refunded_credits_usd_reference"]) == (exact, dollars)
    assert refunded["charged_credits"] == exact


async def test_a_cancel_of_a_queued_task_refunds_it_before_it_answers(service: Service) -> None:
    task = await make(service)
    await service.cancel("beatra", task)
    billing = (await service.seen(task))["billing"]
    assert (billing["charged_credits"], billing["refunded_credits"], billing["net_credits"]) == ("80", "80", "0")


async def test_a_cancel_of_a_running_task_moves_no_money_until_the_worker_confirms(service: Service) -> None:
    task = await make(service, *RUNNING)
    await service.cancel("beatra", task)
    assert (await service.seen(task))["billing"]["refunded_credits"] == "0"
    await service.go_on(task, CONFIRMED)
    assert (await service.seen(task))["billing"]["refunded_credits"] == "80"


# The body and its reason

BODIES: dict[str, bytes | None] = {
    "no body": None,
    "an empty body": b"",
    "a blank body": b" \r\n",
    "an empty object": b"{}",
    "a null": b'{"reason":null}',
    "a reason": b'{"reason":"wrong prompt"}',
    "an empty reason": b'{"reason":""}',
    "a reason of 500 characters": compact({"reason": "\N{EURO SIGN}" * 500}).encode(),
}
BAD_BODIES: dict[str, tuple[bytes, str | None]] = {
    "a reason of 501 characters": (compact({"reason": "x" * 501}).encode(), "/reason"),
    "a number as the reason": (b'{"reason":1}', "/reason"),
    "an array as the reason": (b'{"reason":["r"]}', "/reason"),
    "an unknown field": (b'{"reason":"r","force":true}', None),
    "an array": (b"[]", None),
    "a text": (b'"reason"', None),
    "null": (b"null", None),
    "a number": (b"0", None),
    "half an object": (b'{"reason":"r"', None),
    "bytes that are no text": (b'{"reason":"\xff"}', None),
    "half a character": (b'{"reason":"\\ud800"}', None),
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_a_reason_may_be_given_and_is_not_shown(service: Service, body: bytes | None) -> None:
    task = await make(service)
    reply = await service.ask("beatra", asked_with(task, body=body)[0])
    assert (reply.status, reply.body) == (202, envelope(task, CANCELED_EARLY))


async def test_the_reason_is_on_record(service: Service) -> None:
    task = await make(service, *RUNNING)
    await service.ask("beatra", asked_with(task, body=b'{"reason":"wrong prompt"}')[0])
    events = (await service.native("GET", f"/tasks/{spell('beatra', task)}/events")).json()["events"]
    assert (events[-1]["type"], events[-1]["payload"]) == ("cancel-requested", {"message": "wrong prompt"})


@pytest.mark.parametrize(("body", "param"), BAD_BODIES.values(), ids=BAD_BODIES)
async def test_a_body_of_another_shape_is_a_422(service: Service, body: bytes, param: str | None) -> None:
    task = await make(service)
    reply = await service.ask("beatra", asked_with(task, body=body)[0])
    error = reply.json()["error"]
    assert (reply.status, error["code"], error.get("param")) == (422, "invalid_request", param)
    assert error["details"] == {"errors": [{"message": error["message"]}]}
    assert (error["retryable"], error["request_id"]) == (False, reply.headers["X-Request-Id"])
    assert (await service.seen(task))["status"] == "queued"


# Idempotency keys


def assert_replays(replay: Reply, first: Reply) -> None:
    assert (replay.status, replay.body) == (first.status, first.body)
    assert replay.headers["Idempotent-Replayed"] == "true"
    assert replay.headers["X-Request-Id"] != first.headers["X-Request-Id"]


@on_every_engine
@every_row
async def test_a_key_again_gives_the_first_answer_again(service: Service, row: Row) -> None:
    task = await make(service, *row.history)
    call, headers = asked_with(task, "k", body=b'{"reason":"r"}')
    first = await service.ask("beatra", call, **headers)
    assert (first.status, first.body) == (row.status, envelope(task, row.after))
    assert "Idempotent-Replayed" not in first.headers
    for _ in range(2):
        assert_replays(await service.ask("beatra", call, **headers), first)


@on_every_engine
@pytest.mark.parametrize(("ending", "status"), [(CONFIRMED, "canceled"), (DONE, "succeeded"), (FAILED, "failed")])
async def test_a_key_again_gives_the_first_answer_even_when_the_task_has_ended(
    service: Service,
    ending: Step,
    status: str,
) -> None:
    task = await make(service, *RUNNING)
    call, headers = asked_with(task, "k")
    first = await service.ask("beatra", call, **headers)
    assert (first.status, first.json()["status"]) == (202, "running")
    await service.go_on(task, Later(60), ending)
    assert_replays(await service.ask("beatra", call, **headers), first)
    without = await service.ask("beatra", call)
    assert (without.status, without.json()["status"]) == (200, status)
    assert "Idempotent-Replayed" not in without.headers


@on_every_engine
async def test_two_at_once_with_one_key_are_one_request(service: Service) -> None:
    task = await make(service, *RUNNING)
    await service.query("beatra", task)
    call, headers = asked_with(task, "k")
    replies = await asyncio.gather(*(service.ask("beatra", call, **headers) for _ in range(8)))
    assert {(reply.status, reply.body) for reply in replies} == {(202, envelope(task, IS_RUNNING | WAS_ASKED))}
    assert sum("Idempotent-Replayed" in reply.headers for reply in replies) == 7
    assert (await service.types(task)).count("cancel-requested") == 1


async def test_no_body_an_empty_one_and_an_empty_object_are_one_request(service: Service) -> None:
    task = await make(service)
    first = await service.ask("beatra", cancel("beatra", task), Idempotency_Key="k")
    for body in (None, b"", b" ", b"{}", b"{ }", b'{"reason":null}'):
        call, headers = asked_with(task, "k", body=body)
        assert_replays(await service.ask("beatra", call, **headers), first)


async def test_white_space_in_the_body_makes_no_other_request(service: Service) -> None:
    task = await make(service)
    first = await service.ask("beatra", asked_with(task, body=b'{"reason":"r"}')[0], Idempotency_Key="k")
    again = await service.ask("beatra", asked_with(task, body=b'\n{ "reason" : "r" }')[0], Idempotency_Key="k")
    assert_replays(again, first)


@on_every_engine
@pytest.mark.parametrize("body", [None, b"{}", b'{"reason":""}', b'{"reason":"R"}'])
async def test_a_key_with_another_body_is_a_409(service: Service, body: bytes | None) -> None:
    task = await make(service, *RUNNING)
    await service.ask("beatra", asked_with(task, body=b'{"reason":"r"}')[0], Idempotency_Key="k")
    version = (await service.seen(task))["version"]
    reply = await service.ask("beatra", asked_with(task, body=body)[0], Idempotency_Key="k")
    assert reply.status == 409
    assert reply.json() == error(reply, "idempotency_key_conflict", "The Idempotency-Key was used with another body.")
    assert (await service.seen(task))["version"] == version


async def test_a_key_has_its_own_scope_in_every_path(service: Service) -> None:
    one, other = await make(service), await make(service)
    for task, body in ((one, b'{"reason":"r"}'), (other, b'{"reason":"another"}')):
        reply = await service.ask("beatra", asked_with(task, body=body)[0], Idempotency_Key="k")
        assert (reply.status, reply.json()["task_id"]) == (202, spell("beatra", task))
        assert "Idempotent-Replayed" not in reply.headers


async def test_a_key_is_the_same_under_the_prefix_and_at_the_root(service: Service) -> None:
    call, headers = asked_with(await make(service), "k")
    first = await service.ask("beatra", call, **headers)
    assert_replays(await service.ask("beatra", call, prefix="", **headers), first)


async def test_a_key_belongs_to_the_account_and_not_to_the_api_key(service: Service) -> None:
    task = await make(service)
    first = await service.ask("beatra", cancel("beatra", task), Idempotency_Key="k")
    key = await service.key("lemondata")
    headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": "k"}
    assert_replays(await service.send("POST", f"/beatra{cancel('beatra', task).path}", headers=headers), first)


@on_every_engine
async def test_a_key_lapses_after_24_hours(service: Service) -> None:
    task = await make(service, *RUNNING)
    call, headers = asked_with(task, "k")
    first = await service.ask("beatra", call, **headers)
    service.clock.advance(DAY_SECONDS - 1)
    await service.go_on(task, CONFIRMED)
    assert_replays(await service.ask("beatra", call, **headers), first)
    service.clock.advance(1)
    fresh = await service.ask("beatra", call, **headers)
    assert (fresh.status, fresh.json()["status"]) == (200, "canceled")
    assert "Idempotent-Replayed" not in fresh.headers
    service.clock.advance(DAY_SECONDS - 1)
    assert_replays(await service.ask("beatra", call, **headers), fresh)


async def test_a_lapsed_key_may_be_used_for_another_request(service: Service) -> None:
    task = await make(service)
    await service.ask("beatra", asked_with(task, body=b'{"reason":"r"}')[0], Idempotency_Key="k")
    service.clock.advance(DAY_SECONDS)
    assert (await service.ask("beatra", cancel("beatra", task), Idempotency_Key="k")).status == 200


async def test_a_refused_request_does_not_take_the_key(service: Service) -> None:
    task = await make(service)
    bad = await service.ask("beatra", asked_with(task, body=b"[]")[0], Idempotency_Key="k")
    good = await service.ask("beatra", asked_with(task, body=b"{}")[0], Idempotency_Key="k")
    assert (bad.status, good.status) == (422, 202)
    assert "Idempotent-Replayed" not in good.headers


async def test_a_request_that_the_store_did_not_take_does_not_take_the_key(service: Service) -> None:
    task = await make(service)
    await service.query("beatra", task)
    service.watched.commit_faults.append(StorageError("the disk is full"))
    call, headers = asked_with(task, "k")
    failed = await service.ask("beatra", call, **headers)
    taken = await service.ask("beatra", call, **headers)
    assert (failed.status, taken.status) == (503, 202)
    assert "Idempotent-Replayed" not in taken.headers


@pytest.mark.parametrize(("key", "status"), [("x", 202), ("x" * 255, 202), ("x" * 256, 422), ("", 422), (" ", 422)])
async def test_a_key_has_1_to_255_characters(service: Service, key: str, status: int) -> None:
    task = await make(service)
    call, headers = asked_with(task, key)
    reply = await service.ask("beatra", call, **headers)
    assert reply.status == status
    if status == 422:
        assert (reply.json()["error"]["code"], reply.json()["error"]["param"]) == (
            "invalid_request",
            "/Idempotency-Key",
        )
        assert (await service.seen(task))["status"] == "queued"


# Request ids

NO_KEY = {"X-Request-Id": "mine-1"}


async def test_a_request_id_is_echoed_in_every_answer(service: Service) -> None:
    task = await make(service)
    absent = TaskId(bytes(16))
    calls = [
        query("beatra", task),
        cancel("beatra", task),
        cancel("beatra", task),
        query("beatra", absent),
        asked_with(task, body=b"[]")[0],
        Call("PUT", "/v1/tasks/1"),
        Call("GET", "/v1/nothing"),
    ]
    replies = [await service.ask("beatra", call, X_Request_Id="mine-1") for call in calls]
    replies.append(await service.send("GET", f"/beatra{query('beatra', task).path}", headers=NO_KEY))
    assert [reply.status for reply in replies] == [200, 202, 200, 404, 422, 405, 404, 401]
    assert {reply.headers["X-Request-Id"] for reply in replies} == {"mine-1"}
    assert {reply.json()["error"]["request_id"] for reply in replies if reply.status > 400} == {"mine-1"}


@pytest.mark.parametrize("given", ["x", "a.b-c_d/e:f", "~" * 128])
async def test_a_request_id_of_up_to_128_visible_characters_is_taken(service: Service, given: str) -> None:
    reply = await service.ask("beatra", query("beatra", await make(service)), X_Request_Id=given)
    assert reply.headers["X-Request-Id"] == given


@pytest.mark.parametrize("given", [None, "", " ", "two words", "~" * 129, "\N{EURO SIGN}", "tab\there"])
async def test_any_other_request_id_is_replaced_by_a_new_one(service: Service, given: str | None) -> None:
    task = await make(service)
    headers = {} if given is None else {"X_Request_Id": given}
    replies = [await service.ask("beatra", query("beatra", task), **headers) for _ in range(2)]
    ids = [reply.headers["X-Request-Id"] for reply in replies]
    assert all(GENERATED_ID.fullmatch(one) for one in ids)
    assert len(set(ids)) == 2


# The vendor's own example

LINE = """
curl -X POST "https://example.com/v1/tasks/string/cancel" \
  -H "Authorization: string" \
  -H "X-Request-Id: string" \
  -H "Idempotency-Key: string" \
  -H "Content-Type: application/json" \
  -d '{
    "reason": "string"
  }'
"""


@at_both_mounts
async def test_the_documented_request_cancels_and_may_be_sent_again(service: Service, prefix: str) -> None:
    task = await make(service, Later(4))
    place = {
        "tasks/string/cancel": f"tasks/{spell('beatra', task)}/cancel",
        "Authorization: string": f"Authorization: Bearer {await service.key('beatra')}",
    }
    reply = await service.curl(LINE, place, prefix=prefix)
    assert (reply.status, reply.body) == (202, CANCELED_BYTES.replace("{id}", spell("beatra", task)))
    assert reply.headers["X-Request-Id"] == "string"
    again = await service.curl(LINE, place, prefix=prefix)
    assert (again.status, again.body, again.headers["Idempotent-Replayed"]) == (202, reply.body, "true")
    over = await service.curl(LINE, place | {"Idempotency-Key: string": "Idempotency-Key: another"}, prefix=prefix)
    assert (over.status, over.body) == (200, reply.body)


async def test_the_documented_task_itself_is_not_found(service: Service) -> None:
    key = f"Authorization: Bearer {await service.key('beatra')}"
    reply = await service.curl(LINE, {"Authorization: string": key})
    assert reply.status == 404
    assert reply.json() == error(reply, "task_not_found", "No such task.")


# A row per refusal


def error(reply: Reply, code: str, message: str, *, retryable: bool = False) -> dict[str, Any]:
    request_id = reply.headers["X-Request-Id"]
    return {"error": {"code": code, "message": message, "retryable": retryable, "request_id": request_id}}


MISSING = ("unauthorized", "Authorization header is missing.")
WRONG = ("invalid_api_key", "The API key is not valid.")
REVOKED = ("invalid_api_key", "The API key has been revoked.")


@both_ways
async def test_without_a_good_key_nothing_is_told(service: Service, way: Way) -> None:
    task = await make(service, *RUNNING)
    asked = way("beatra", task)
    key, revoked = await service.key("beatra"), await service.revoked_key("beatra")
    refused = {
        None: MISSING,
        "": MISSING,
        "string": WRONG,
        key: WRONG,
        "Bearer string": WRONG,
        f"Basic {key}": WRONG,
        f"Bearer {revoked}": REVOKED,
    }
    for value, told in refused.items():
        headers = {} if value is None else {"Authorization": value}
        reply = await service.send(asked.method, f"/beatra{asked.path}", headers=headers)
        assert (reply.status, reply.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert reply.json() == error(reply, *told)
    assert not (await service.seen(task))["cancel_requested"]


@pytest.mark.parametrize("role", [Role.WORKER, Role.OPERATOR])
async def test_a_key_that_is_no_clients_is_forbidden(service: Service, role: Role) -> None:
    call = cancel("beatra", await make(service))
    key = await service.key("beatra", role=role)
    reply = await service.send(call.method, f"/beatra{call.path}", headers={"Authorization": f"Bearer {key}"})
    assert reply.status == 403
    assert reply.json() == error(reply, "forbidden", "The API key cannot be used here.")


DELETED: History = (*ENDING, COMPLETED, DeleteAsked())
LONG_OVER: History = (*ENDING, COMPLETED, Later(30 * DAY_SECONDS))


@pytest.mark.parametrize(
    ("history", "account"),
    [((), STRANGER), (RUNNING, STRANGER), ((*ENDING, DONE), STRANGER), (DELETED, ACCOUNT), (LONG_OVER, ACCOUNT)],
    ids=["another's, queued", "another's, running", "another's, over", "deleted", "past retention"],
)
async def test_what_the_account_cannot_see_is_not_found(service: Service, history: History, account: str) -> None:
    task = await make(service, *history)
    version = (await service.seen(task))["version"]
    for call in (query("beatra", task), cancel("beatra", task)):
        reply = await service.ask("beatra", call, account=account, Idempotency_Key="k")
        assert reply.status == 404
        assert reply.json() == error(reply, "task_not_found", "No such task.")
    assert (await service.seen(task))["version"] == version


@pytest.mark.parametrize(
    "spelled",
    ["string", "cancel", "tsk_", "tsk_01ke40a2r7v5w8y0b3d6f9h1jk", "tsk_81KE40A2R7V5W8Y0B3D6F9H1JK", "tsk_" + "I" * 26],
)
async def test_an_id_in_any_other_spelling_is_not_found(service: Service, spelled: str) -> None:
    for call in (Call("GET", f"/v1/tasks/{spelled}"), Call("POST", f"/v1/tasks/{spelled}/cancel")):
        reply = await service.ask("beatra", call)
        assert (reply.status, reply.json()["error"]["code"]) == (404, "task_not_found")


async def test_a_missing_key_is_the_first_reason_then_a_bad_body_then_an_unseen_task(service: Service) -> None:
    call = cancel("beatra", TaskId(bytes(16)))._replace(body=b"[]")
    assert (await service.send(call.method, f"/beatra{call.path}", body=call.body)).status == 401
    assert (await service.ask("beatra", call)).status == 422
    assert (await service.ask("beatra", call._replace(body=b"{}"))).status == 404


@at_both_mounts
async def test_a_method_that_is_not_there_is_a_405(service: Service, prefix: str) -> None:
    call = cancel("beatra", await make(service))._replace(method="GET")
    reply = await service.ask("beatra", call, prefix=prefix)
    assert (reply.status, reply.headers["Allow"]) == (405, "POST")
    assert reply.json() == error(reply, "method_not_allowed", "Method not allowed.")


async def test_an_unknown_route_is_a_404_of_its_own(service: Service) -> None:
    reply = await service.ask("beatra", Call("GET", "/v1/nothing"))
    assert reply.status == 404
    assert reply.json() == error(reply, "not_found", "No such route.")


async def test_a_body_beyond_all_measure_is_a_413(service: Service) -> None:
    reply = await service.ask("beatra", cancel("beatra", await make(service))._replace(body=b" " * 2**17))
    assert reply.status == 413
    assert reply.json() == error(reply, "payload_too_large", "The request body is too large.")


FAULTS: dict[str, tuple[Exception, int, str]] = {
    "storage": (StorageError("the disk is full"), 503, "The service is temporarily unavailable."),
    "ours": (ZeroDivisionError("a secret"), 500, "Internal error."),
}


@pytest.mark.parametrize(("fault", "status", "message"), FAULTS.values(), ids=FAULTS)
async def test_a_fault_changes_nothing_and_tells_nothing(
    service: Service, fault: Exception, status: int, message: str
) -> None:
    task = await make(service)
    before = await service.query("beatra", task)
    service.watched.commit_faults.append(fault)
    reply = await service.cancel("beatra", task)
    assert reply.status == status
    assert reply.json() == error(reply, "internal_error", message, retryable=True)
    assert (await service.query("beatra", task)).body == before.body


async def test_a_full_queue_is_a_503_to_be_tried_again(service: Service) -> None:
    task = await make(service)
    await service.query("beatra", task)
    service.ledger.writer._queue_max = 0
    reply = await service.cancel("beatra", task)
    assert (reply.status, reply.headers["Retry-After"]) == (503, "1")
    assert reply.json() == error(reply, "internal_error", "The service is busy.", retryable=True)
