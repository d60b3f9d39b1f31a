"""beatra's creates over HTTP: a row per route, default, edge and refusal; and a key makes many of them one.

Source: the beatra documentation (docs.stratizon.cn).
"""

import asyncio
import json
import re
from typing import Any

import pytest
from msgspec.structs import replace

from api.contracts import beatra
from api.contracts.shape import Asked, Order, Refused, Submit
from ledger.catalogue import Catalogue, Model
from ledger.errors import InsufficientCredits, Refusal, StorageError
from ledger.events import School
from ledger.ids import TaskId
from tests.builders import ENGINES
from tests.http import ACCOUNT, CREATED_US, DAY_SECONDS, STRANGER, Call, Reply, Service, compact, reported

on_every_engine = pytest.mark.parametrize("service", ENGINES, indirect=True)
at_both_mounts = pytest.mark.parametrize("prefix", ["/beatra", ""], ids=["prefix", "root"])

IMAGE, EDIT = "/v1/images/generations", "/v1/images/image-to-image"
MUSIC, COVER = "/v1/music/text-to-music", "/v1/music/reference-audio-to-music"
PICTURE, SOUND = "https://example.com/1.png", "https://example.com/1.mp3"
PLAIN: dict[str, dict[str, Any]] = {
    IMAGE: {"prompt": "a lighthouse"},
    EDIT: {"prompt": "a lighthouse", "references": [PICTURE]},
    MUSIC: {"prompt": "dream pop"},
    COVER: {"prompt": "dream pop", "reference_audio": SOUND},
}
"""The least that each route takes."""
every_route = pytest.mark.parametrize("path", PLAIN)


def call(path: str, body: object) -> Call:
    return Call("POST", path, compact(body).encode())


async def create(service: Service, path: str, headers: dict[str, str] | None = None, **fields: Any) -> Reply:  # noqa: ANN401
    """A create of the route's plainest kind, but for *fields*."""
    return await service.ask("beatra", call(path, PLAIN[path] | fields), **(headers or {}))


async def logged(service: Service) -> int:
    """The end of the log."""
    return (await service.ledger.engine.head()).position


def task_of(reply: Reply) -> TaskId:
    task = beatra.CONTRACT.spelling.parse(reply.json()["task_id"])
    assert task is not None
    return task


# What is made

CREATED_BYTES = (
    '{"object":"task","task_id":"{id}","status":"queued","capability":"text_to_music","model":"auto",'
    '"resolved_model":"suno-5.5","metadata":{"order":"4711"},"input":{"prompt":"dream pop"},'
    '"progress":{"percent":0,"stage":"queued","message":"Waiting to start"},"output":null,"warnings":[],'
    '"error":null,"usage":null,"billing":{"charged_credits":"80.0000","refunded_credits":"0.0000",'
    '"charged_credits_usd_reference":"0.0800","refunded_credits_usd_reference":"0.0000","currency":"USD"},'
    '"callback":null,"created_at":"2026-01-02T03:04:05Z","started_at":null,"completed_at":null,'
    '"cancel_requested_at":null,'
    '"links":{"self":"/v1/tasks/{id}","cancel":"/v1/tasks/{id}/cancel"}}'
)


@at_both_mounts
async def test_a_create_is_a_202_with_the_whole_envelope_in_these_very_bytes(service: Service, prefix: str) -> None:
    asked = call(MUSIC, {"model": "auto", "prompt": "dream pop", "metadata": {"order": "4711"}})
    reply = await service.ask("beatra", asked, prefix=prefix, X_Request_Id="mine-1")
    spelled = reply.json()["task_id"]
    assert re.fullmatch("tsk_[0-7][0-9A-HJKMNP-TV-Z]{25}", spelled)
    assert (reply.status, reply.body) == (202, CREATED_BYTES.replace("{id}", spelled))
    assert (reply.headers["X-Request-Id"], "Idempotent-Replayed" in reply.headers) == ("mine-1", False)
    assert (await service.query("beatra", task_of(reply), prefix=prefix)).body == reply.body


STANDARD = {"quality": "standard", "aspect_ratio": "auto", "n": 1}
MADE: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {  # what is asked; what of the envelope it makes
    "an image, all by default": (
        IMAGE,
        {},
        {
            "capability": "text_to_image",
            "model": "auto",
            "resolved_model": "beatra-image-1",
            "input": {"prompt": "a lighthouse", **STANDARD},
            "metadata": {},
            "callback": None,
        },
    ),
    "an image in hd": (
        IMAGE,
        {"quality": "hd"},
        {"input": {"prompt": "a lighthouse", "quality": "hd", "aspect_ratio": "1:1", "n": 1}},
    ),
    "an image by name": (IMAGE, {"model": "beatra-image-1"}, {"model": "beatra-image-1"}),
    "an image of an image": (
        EDIT,
        {},
        {
            "capability": "image_to_image",
            "resolved_model": "beatra-image-1",
            "input": {"prompt": "a lighthouse", **STANDARD, "references": [PICTURE]},
        },
    ),
    "music, all by default": (
        MUSIC,
        {},
        {
            "capability": "text_to_music",
            "model": "auto",
            "resolved_model": "suno-5.5",
            "input": {"prompt": "dream pop"},
        },
    ),
    "music with all there is": (
        MUSIC,
        {
            "model": "suno-5.5",
            "title": "Open",
            "lyrics": "la",
            "instrumental": True,
            "model_options": {"suno": {"style_weight": 0.72}},
        },
        {
            "model": "suno-5.5",
            "resolved_model": "suno-5.5",
            "input": {
                "prompt": "dream pop",
                "title": "Open",
                "lyrics": "la",
                "instrumental": True,
                "model_options": {"suno": {"style_weight": 0.72}},
            },
        },
    ),
    "music after music": (
        COVER,
        {"model": "minimax-music-2.6", "model_options": {"minimax": {"bitrate": 256000}}},
        {
            "capability": "reference_audio_to_music",
            "resolved_model": "minimax-music-2.6",
            "input": {
                "prompt": "dream pop",
                "model_options": {"minimax": {"bitrate": 256000}},
                "reference_audio": SOUND,
            },
        },
    ),
    "options of what auto stands for": (MUSIC, {"model_options": {"suno": {"custom_mode": True}}}, {"model": "auto"}),
    "nulls": (MUSIC, {"lyrics": None, "title": None, "callback_url": None}, {"input": {"prompt": "dream pop"}}),
    "metadata and a callback": (
        IMAGE,
        {"metadata": {"a": "b", "": ""}, "callback_url": "https://example.com/hook"},
        {
            "metadata": {"a": "b", "": ""},
            "callback": {
                "url": "https://example.com/hook",
                "status": "pending",
                "attempt_count": 0,
                "delivered_at": None,
                "last_error": None,
            },
        },
    ),
}


@pytest.mark.parametrize(("path", "fields", "shows"), MADE.values(), ids=MADE)
async def test_a_task_is_made_as_it_was_asked_for(
    service: Service, path: str, fields: dict[str, Any], shows: dict[str, Any]
) -> None:
    reply = await create(service, path, **fields)
    made = reply.json()
    assert (reply.status, {name: made[name] for name in shows}) == (202, shows)


PROVIDERS = [
    (IMAGE, "auto", "beatra"),
    (MUSIC, "auto", "suno"),
    (COVER, "auto", "suno"),
    (MUSIC, "minimax-music-2.6", "minimax"),
]


@pytest.mark.parametrize(("path", "model", "provider"), PROVIDERS)
async def test_the_provider_is_that_of_the_model_that_is_meant(
    service: Service, path: str, model: str, provider: str
) -> None:
    task = task_of(await create(service, path, model=model))
    assert (await service.ledger.task(task, account=None)).task.provider == provider


EDGES: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"aspect ratio {ratio}": (IMAGE, {"aspect_ratio": ratio}) for ratio in ("auto", "1:1", "16:9", "9:16")},
    **{f"hd in {ratio}": (EDIT, {"quality": "hd", "aspect_ratio": ratio}) for ratio in ("4:3", "3:4", "2:1")},
    "16 references": (EDIT, {"references": [PICTURE] * 16}),
    "a prompt of 5000": (MUSIC, {"prompt": "\N{EURO SIGN}" * 5000}),
    "lyrics of 5000": (MUSIC, {"lyrics": "x" * 5000}),
    "a title of 200": (MUSIC, {"title": "x" * 200}),
    "no options": (MUSIC, {"model_options": {}}),
}


@pytest.mark.parametrize(("path", "fields"), EDGES.values(), ids=EDGES)
async def test_at_its_edge_a_field_is_taken(service: Service, path: str, fields: dict[str, Any]) -> None:
    assert (await create(service, path, **fields)).status == 202


# What it costs

PRICES = [  # what is asked; credits, and as dollars
    (IMAGE, {}, "50.0000", "0.0500"),
    (IMAGE, {"n": 4}, "200.0000", "0.2000"),
    (IMAGE, {"quality": "hd"}, "300.0000", "0.3000"),
    (IMAGE, {"quality": "hd", "n": 3}, "900.0000", "0.9000"),
    (EDIT, {}, "60.0000", "0.0600"),
    (EDIT, {"n": 2}, "120.0000", "0.1200"),
    (EDIT, {"quality": "hd", "n": 4}, "1280.0000", "1.2800"),
    (EDIT, {"model": "beatra-image-1", "quality": "hd"}, "320.0000", "0.3200"),
    (MUSIC, {}, "80.0000", "0.0800"),
    (MUSIC, {"model": "suno-5.5"}, "80.0000", "0.0800"),
    (MUSIC, {"model": "minimax-music-2.6"}, "50.0000", "0.0500"),
    (COVER, {}, "80.0000", "0.0800"),
    (COVER, {"model": "minimax-music-2.6"}, "50.0000", "0.0500"),
]


@pytest.mark.parametrize(("path", "fields", "exact", "dollars"), PRICES)
async def test_the_price_is_charged_at_once(
    service: Service, path: str, fields: dict[str, Any], exact: str, dollars: str
) -> None:
    reply = await create(service, path, **fields)
    assert reply.json()["billing"] == {
        "charged_credits": exact,
        "refunded_credits": "0.0000",
        "charged_credits_usd_reference": dollars,
        "refunded_credits_usd_reference": "0.0000",
        "currency": "USD",
    }
    assert await service.types(task_of(reply)) == ["created", "charged"]


BARE = Model(
    contract="beatra",
    name="own",
    capability="text_to_image",
    provider="own",
    school=School.PREPAID,
    price_credits="7",
)
VARIANTS: dict[str, tuple[dict[str, str], set[str], int | None]] = {  # its variants; what it makes; an image in hd
    "one price for all": ({}, {"text_to_image"}, 7_000_000),
    "no hd": ({"text_to_image/standard": "1"}, {"text_to_image"}, None),
    "hd": ({"text_to_image/hd": "1.5", "image_to_image/hd": "2"}, {"text_to_image", "image_to_image"}, 1_500_000),
}


@pytest.mark.parametrize(("variants", "capabilities", "micros"), VARIANTS.values(), ids=VARIANTS)
def test_a_model_makes_what_it_has_prices_for(
    variants: dict[str, str], capabilities: set[str], micros: int | None
) -> None:
    model = replace(BARE, variants=variants)
    assert model.capabilities == capabilities
    assert model.price_of("text_to_image/hd") == micros


def ordered(body: dict[str, Any], model: Model) -> Order:
    """What the image route orders out of a catalogue with this one model."""
    asked = Asked(
        params={},
        query={},
        headers={},
        body=compact(body).encode(),
        base_url="",
        request_id="req_1",
        account=ACCOUNT,
        key_id="k",
        now_us=CREATED_US,
        log_id="log",
    )
    names = ("beatra", model.name)
    (submit,) = [row for row in beatra.CONTRACT.operations if isinstance(row, Submit) and row.path == IMAGE]
    return submit.order(Catalogue("1", {names: model}, {names: model.terms("1")}), asked)


def test_an_operators_model_with_one_price_costs_that_in_any_quality() -> None:
    order = ordered({"prompt": "a", "model": "own", "quality": "hd", "n": 2}, BARE)
    assert (order.model, order.resolved_model, order.estimated_micros) == ("own", None, 14_000_000)


def test_a_model_that_does_not_come_in_hd_is_refused_in_hd() -> None:
    model = replace(BARE, variants={"text_to_image/standard": "1"})
    assert ordered({"prompt": "a", "model": "own"}, model).estimated_micros == 1_000_000
    with pytest.raises(Refusal) as refused:
        ordered({"prompt": "a", "model": "own", "quality": "hd"}, model)
    answer = beatra.CONTRACT.refuse(refused.value, Refused("POST", "req_1"))
    told = json.loads(answer.body)["error"]
    assert (answer.status, told["code"], told["param"]) == (422, "unsupported_option", "/quality")
    assert told["details"] == {"unsupported_fields": ["quality"]}


# What is refused

INVALID: dict[str, tuple[str, dict[str, Any], str | None]] = {  # what is asked; where it is wrong
    "no images": (IMAGE, {"n": 0}, "/n"),
    "5 images": (IMAGE, {"n": 5}, "/n"),
    "-1 images": (IMAGE, {"n": -1}, "/n"),
    "a number beyond 64 bits": (IMAGE, {"n": 2**64}, "/n"),
    "a number in words": (IMAGE, {"n": "1"}, "/n"),
    "an unknown quality": (IMAGE, {"quality": "ultra"}, "/quality"),
    "an unknown aspect ratio": (IMAGE, {"aspect_ratio": "5:4"}, "/aspect_ratio"),
    "auto in hd": (IMAGE, {"quality": "hd", "aspect_ratio": "auto"}, "/aspect_ratio"),
    "auto in hd, of an image": (EDIT, {"quality": "hd", "aspect_ratio": "auto"}, "/aspect_ratio"),
    "no reference": (EDIT, {"references": []}, "/references"),
    "17 references": (EDIT, {"references": [PICTURE] * 17}, "/references"),
    "a reference that is no text": (EDIT, {"references": [PICTURE, 5]}, "/references/1"),
    "a reference that is no address": (EDIT, {"references": [PICTURE, "x"]}, "/references/1"),
    "references without an image": (IMAGE, {"references": [PICTURE]}, None),
    "a song that is no address": (COVER, {"reference_audio": "file:///1.mp3"}, "/reference_audio"),
    "an empty prompt": (MUSIC, {"prompt": ""}, "/prompt"),
    "a prompt of 5001": (MUSIC, {"prompt": "x" * 5001}, "/prompt"),
    "a prompt with NUL": (MUSIC, {"prompt": "a\0b"}, None),
    "an empty model": (MUSIC, {"model": ""}, "/model"),
    "no model": (MUSIC, {"model": None}, "/model"),
    "an unknown field": (MUSIC, {"tempo": 90}, None),
    "an image's field": (MUSIC, {"n": 1}, None),
    "a song's field": (IMAGE, {"lyrics": "la"}, None),
    "an unknown family": (MUSIC, {"model_options": {"udio": {}}}, "/model_options"),
    "options that are no object": (MUSIC, {"model_options": {"suno": []}}, "/model_options/suno"),
    "metadata that is no text": (MUSIC, {"metadata": {"a": 1}}, "/metadata"),
    "metadata that is no object": (MUSIC, {"metadata": "a"}, "/metadata"),
    "a callback elsewhere": (MUSIC, {"callback_url": "ftp://example.com/"}, "/callback_url"),
    "a flag in words": (MUSIC, {"instrumental": "true"}, "/instrumental"),
}


def error(reply: Reply, code: str, message: str, **members: object) -> dict[str, Any]:
    request_id = reply.headers["X-Request-Id"]
    return {"error": {"code": code, "message": message, "retryable": False, "request_id": request_id, **members}}


@pytest.mark.parametrize(("path", "fields", "param"), INVALID.values(), ids=INVALID)
async def test_what_no_route_takes_is_a_422_that_says_where(
    service: Service, path: str, fields: dict[str, Any], param: str | None
) -> None:
    await service.key("beatra")
    before = await logged(service)
    reply = await create(service, path, **fields)
    told = reply.json()["error"]
    assert (reply.status, told["code"], told["retryable"], told.get("param")) == (422, "invalid_request", False, param)
    assert told["details"] == {"errors": [{"message": told["message"]}]}
    assert await logged(service) == before


@every_route
async def test_what_a_route_needs_cannot_be_left_out(service: Service, path: str) -> None:
    for name in PLAIN[path]:
        reply = await service.ask("beatra", call(path, {n: v for n, v in PLAIN[path].items() if n != name}))
        told = reply.json()["error"]
        assert (reply.status, told["code"], told["param"]) == (422, "invalid_request", f"/{name}")


UNSUPPORTED: dict[str, tuple[str, dict[str, Any], int, str, str, dict[str, Any]]] = {
    "an unknown model": (
        IMAGE,
        {"model": "dall-e-3"},
        400,
        "unsupported_model",
        "The model is not supported.",
        {"param": "/model"},
    ),
    "another contract's model": (
        MUSIC,
        {"model": "sora-2"},
        400,
        "unsupported_model",
        "The model is not supported.",
        {"param": "/model"},
    ),
    "a song of an image model": (
        MUSIC,
        {"model": "beatra-image-1"},
        400,
        "unsupported_capability",
        "The model does not have this capability.",
        {"param": "/model"},
    ),
    "an image of a song model": (
        EDIT,
        {"model": "suno-5.5"},
        400,
        "unsupported_capability",
        "The model does not have this capability.",
        {"param": "/model"},
    ),
    "another family's options": (
        COVER,
        {"model": "suno-5.5", "model_options": {"suno": {}, "minimax": {}}},
        422,
        "unsupported_option",
        "The model does not take this option.",
        {"param": "/model_options/minimax", "details": {"unsupported_fields": ["model_options.minimax"]}},
    ),
    "another family's than auto's": (
        MUSIC,
        {"model_options": {"minimax": {"bitrate": 1}}},
        422,
        "unsupported_option",
        "The model does not take this option.",
        {"param": "/model_options/minimax", "details": {"unsupported_fields": ["model_options.minimax"]}},
    ),
}


@pytest.mark.parametrize(
    ("path", "fields", "status", "code", "message", "members"), UNSUPPORTED.values(), ids=UNSUPPORTED
)
async def test_what_the_model_does_not_do_is_refused(
    *,
    service: Service,
    path: str,
    fields: dict[str, Any],
    status: int,
    code: str,
    message: str,
    members: dict[str, Any],
) -> None:
    await service.key("beatra")
    before = await logged(service)
    reply = await create(service, path, **fields)
    assert (reply.status, reply.json()) == (status, error(reply, code, message, **members))
    assert await logged(service) == before


def test_a_balance_that_does_not_cover_the_task_is_a_402() -> None:
    refusal = InsufficientCredits(
        asked_micros=80_000_000, limit_micros=79_990_000, granted_micros=None, exposure_micros=10_000, position=7
    )
    answer = beatra.CONTRACT.refuse(refusal, Refused("POST", "req_1"))
    assert (answer.status, json.loads(answer.body)) == (
        402,
        {
            "error": {
                "code": "insufficient_balance",
                "message": "The balance does not cover this task.",
                "retryable": False,
                "request_id": "req_1",
                "details": {"balance_credits": "79.9800", "required_credits": "80.0000"},
            }
        },
    )


@every_route
async def test_a_create_has_no_other_method_and_needs_a_key(service: Service, path: str) -> None:
    reply = await service.ask("beatra", Call("GET", path))
    assert (reply.status, reply.headers["Allow"], reply.json()["error"]["code"]) == (405, "POST", "method_not_allowed")
    reply = await service.send("POST", f"/beatra{path}", body=call(path, PLAIN[path]).body)
    assert (reply.status, reply.json()["error"]["code"]) == (401, "unauthorized")


@pytest.mark.parametrize("path", ["/v1/videos", "/v1/tasks"])
async def test_what_is_only_planned_cannot_be_created(service: Service, path: str) -> None:
    reply = await service.ask("beatra", call(path, {"prompt": "a cat"}))
    assert reply.status in {404, 405}


# Idempotency keys

KEY = {"Idempotency_Key": "k"}


def assert_replays(replay: Reply, first: Reply) -> None:
    assert (replay.status, replay.body) == (first.status, first.body)
    assert replay.headers["Idempotent-Replayed"] == "true"
    assert replay.headers["X-Request-Id"] != first.headers["X-Request-Id"]


@on_every_engine
@every_route
async def test_a_key_again_gives_the_first_answer_whatever_became_of_the_task(service: Service, path: str) -> None:
    first = await create(service, path, KEY)
    assert (first.status, "Idempotent-Replayed" in first.headers) == (202, False)
    assert_replays(await create(service, path, KEY), first)
    await service.go_on(task_of(first), reported("completed", output={}))
    before = await logged(service)
    assert_replays(await create(service, path, KEY), first)
    assert await logged(service) == before


@on_every_engine
async def test_fifty_at_once_with_one_key_are_one_task_and_one_charge(service: Service) -> None:
    await service.key("beatra")
    replies = await asyncio.gather(*(create(service, IMAGE, KEY) for _ in range(50)))
    assert {(reply.status, reply.body) for reply in replies} == {(202, replies[0].body)}
    assert sum("Idempotent-Replayed" in reply.headers for reply in replies) == 49
    assert await service.types(task_of(replies[0])) == ["created", "charged"]
    assert len((await service.native("GET", "/tasks")).json()["tasks"]) == 1


OTHERS: dict[str, dict[str, Any]] = {
    "another prompt": {"prompt": "a tower"},
    "another number": {"n": 2},
    "a default, said": {"n": 1},
    "metadata": {"metadata": {"a": "b"}},
}


@on_every_engine
@pytest.mark.parametrize("fields", OTHERS.values(), ids=OTHERS)
async def test_a_key_with_another_body_is_a_409(service: Service, fields: dict[str, Any]) -> None:
    await create(service, IMAGE, KEY)
    before = await logged(service)
    reply = await create(service, IMAGE, KEY, **fields)
    assert reply.status == 409
    told = error(reply, "idempotency_key_conflict", "The Idempotency-Key was used with another body.")
    assert reply.json() == told
    assert await logged(service) == before


async def test_the_order_of_members_and_white_space_make_no_other_body(service: Service) -> None:
    first = await service.ask("beatra", Call("POST", IMAGE, b'{"prompt":"a","n":2}'), **KEY)
    assert_replays(await service.ask("beatra", Call("POST", IMAGE, b'{ "n": 2,\n"prompt": "\\u0061" }'), **KEY), first)


async def test_a_key_has_its_own_scope_by_path_and_by_account(service: Service) -> None:
    replies = [await create(service, path, KEY) for path in PLAIN]
    replies.append(await service.ask("beatra", call(IMAGE, PLAIN[IMAGE]), account=STRANGER, **KEY))
    assert {reply.status for reply in replies} == {202}
    assert len({reply.json()["task_id"] for reply in replies}) == 5
    assert not any("Idempotent-Replayed" in reply.headers for reply in replies)


@on_every_engine
async def test_a_key_lapses_after_24_hours(service: Service) -> None:
    first = await create(service, IMAGE, KEY)
    service.clock.advance(DAY_SECONDS - 1)
    assert_replays(await create(service, IMAGE, KEY), first)
    service.clock.advance(3601)
    fresh = await create(service, IMAGE, KEY, n=2)
    assert (fresh.status, "Idempotent-Replayed" in fresh.headers) == (202, False)
    assert task_of(fresh) != task_of(first)
    assert_replays(await create(service, IMAGE, KEY, n=2), fresh)


async def test_without_a_key_every_create_is_a_task_of_its_own(service: Service) -> None:
    tasks = {task_of(await create(service, MUSIC)) for _ in range(3)}
    assert len(tasks) == 3


async def test_a_refused_create_and_one_that_the_store_did_not_take_leave_the_key_free(service: Service) -> None:
    assert (await create(service, IMAGE, KEY, n=9)).status == 422
    service.watched.commit_faults.append(StorageError("the disk is full"))
    assert (await create(service, IMAGE, KEY)).status == 503
    taken = await create(service, IMAGE, KEY)
    assert (taken.status, "Idempotent-Replayed" in taken.headers) == (202, False)


@pytest.mark.parametrize(("key", "status"), [("x" * 255, 202), ("x" * 256, 422), ("", 422)])
async def test_a_key_has_1_to_255_characters(service: Service, key: str, status: int) -> None:
    reply = await create(service, MUSIC, {"Idempotency_Key": key})
    assert reply.status == status
    if status == 422:
        assert reply.json()["error"]["param"] == "/Idempotency-Key"


# From create to outcome

LINE = {"meter": "image", "quantity": "3", "unit": "image", "billed_amount_credits": "150"}
OUTCOMES: dict[str, tuple[dict[str, Any], str, str, str]] = {  # a report; status, refunded, paid
    "all four": ({"type": "completed", "output": {}, "usage": {}}, "succeeded", "0.0000", "200.0000"),
    "three of four": (
        {"type": "completed", "output": {}, "usage": {"image_count": 3, "lines": [LINE]}, "actual_credits": "150"},
        "succeeded",
        "50.0000",
        "150.0000",
    ),
    "none, and it failed": ({"type": "failed", "code": "broke", "message": "It broke."}, "failed", "200.0000", ""),
}


@pytest.mark.parametrize(("report", "status", "refunded", "paid"), OUTCOMES.values(), ids=OUTCOMES)
async def test_what_was_not_made_is_given_back(
    service: Service, report: dict[str, Any], status: str, refunded: str, paid: str
) -> None:
    task = task_of(await create(service, IMAGE, n=4))
    await service.go_on(task, reported("started"))
    running = (await service.query("beatra", task)).json()
    assert (running["status"], running["billing"]["charged_credits"]) == ("running", "200.0000")
    await service.go_on(task, reported(**{"kind": report["type"], **{n: v for n, v in report.items() if n != "type"}}))
    read = (await service.query("beatra", task)).json()
    billing = read["billing"]
    assert (read["status"], billing["charged_credits"], billing["refunded_credits"]) == (status, "200.0000", refunded)
    assert billing["charged_credits_usd_reference"] == "0.2000"
    assert (read["usage"] or {"credits": ""})["credits"] == paid


async def test_usage_has_a_meter_and_a_line_for_what_was_made(service: Service) -> None:
    task = task_of(await create(service, IMAGE, n=4))
    usage = {"image_count": 3, "image_pixels": 3145728, "lines": [LINE]}
    await service.go_on(task, reported("completed", output={}, usage=usage, actual_credits="150"))
    shown = (await service.query("beatra", task)).json()["usage"]
    assert (shown["image_count"], shown["image_pixels"], shown["video_seconds"]) == (3, 3145728, 0)
    assert (shown["credits"], shown["credits_usd_reference"]) == ("150.0000", "0.1500")
    assert shown["lines"] == [
        LINE
        | {
            "quantity": "3.0000",
            "billed_amount_credits": "150.0000",
            "billed_amount_credits_usd_reference": "0.1500",
        }
    ]


@every_route
@pytest.mark.parametrize("running", [False, True], ids=["queued", "running"])
async def test_a_canceled_task_is_refunded_in_full(service: Service, path: str, *, running: bool) -> None:
    made = await create(service, path)
    task, charged = task_of(made), made.json()["billing"]["charged_credits"]
    if running:
        await service.go_on(task, reported("started"))
    assert (await service.cancel("beatra", task)).status == 202
    if running:
        await service.go_on(task, reported("cancelled"))
    read = (await service.query("beatra", task)).json()
    assert (read["status"], read["billing"]["refunded_credits"]) == ("canceled", charged)
