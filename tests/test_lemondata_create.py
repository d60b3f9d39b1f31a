"""LemonData's creates over HTTP: what is answered, what is stored, a row per default, edge and refusal.

Source: LemonData API reference, "Create video" (docs.lemondata.cc).
"""

import asyncio
from typing import Any, get_args

import pytest

from api.contracts import lemondata, lemondata_create, parse_any
from api.contracts.shape import Refused
from ledger.errors import InsufficientCredits, StorageError
from ledger.ids import TaskId
from tests.http import (
    ACCOUNT,
    COMPLETED,
    DAY_SECONDS,
    FAILED,
    STARTED,
    STRANGER,
    Call,
    Reply,
    Service,
    UpdateAsked,
    compact,
)

VIDEO, IMAGE = "/v1/videos/generations", "/v1/images/generations"
MUSIC, MODEL3D = "/v1/music/generations", "/v1/3d/generations"
PROMPT = {"prompt": "a cat"}
URL = "https://example.com/1.png"

at_both_mounts = pytest.mark.parametrize("prefix", ["/lemondata", ""], ids=["prefix", "root"])


async def create(service: Service, path: str, body: object, *, prefix: str = "/lemondata", **headers: str) -> Reply:
    return await service.ask("lemondata", Call("POST", path, compact(body).encode()), prefix=prefix, **headers)


async def created(service: Service, path: str, body: object) -> dict[str, Any]:
    """The task that this create makes, as the operator sees it."""
    return await service.seen(task_of(await create(service, path, body)))


def task_of(reply: Reply) -> TaskId:
    assert reply.status == 200, reply
    task = parse_any(reply.json()["id"])
    assert task is not None
    return task


async def log_end(service: Service) -> int:
    """Where the log ends, the caller's key being in it."""
    await service.key("lemondata")
    return (await service.ledger.engine.head()).position


# What is answered

ROUTES = {VIDEO: "sora-2", IMAGE: "gpt-image-1", MUSIC: "suno-5.5", MODEL3D: "tripo3d-v2.5"}
every_route = pytest.mark.parametrize(("path", "model"), ROUTES.items(), ids=ROUTES)


@at_both_mounts
@every_route
async def test_a_create_is_answered_with_six_keys_and_the_routes_own_model(
    service: Service, path: str, model: str, prefix: str
) -> None:
    reply = await create(service, path, PROMPT, prefix=prefix)
    name = reply.json()["id"]
    wanted = {
        "id": name,
        "task_id": name,
        "poll_url": f"/v1/tasks/{name}",
        "status": "pending",
        "model": model,
        "created": 1767323045,
    }
    assert (reply.status, reply.body) == (200, compact(wanted))
    assert "Idempotent-Replayed" not in reply.headers
    polled = await service.ask("lemondata", Call("GET", reply.json()["poll_url"]), prefix=prefix)
    assert polled.json() == wanted | {"updated": 1767323045}


@every_route
async def test_a_created_task_is_the_callers_and_holds_the_models_price(
    service: Service, path: str, model: str
) -> None:
    seen = await created(service, path, PROMPT | {"user": "u1"})
    assert (seen["account"], seen["contract"], seen["model"]) == (ACCOUNT, "lemondata", model)
    assert (seen["input"], seen["metadata"]) == (PROMPT, {"user": "u1"})
    price = {"sora-2": "2", "gpt-image-1": "0.04", "suno-5.5": "0.1", "tripo3d-v2.5": "0.3"}[model]
    assert seen["billing"]["held_credits"] == price


async def test_a_created_task_goes_all_the_way(service: Service) -> None:
    reply = await create(service, VIDEO, PROMPT | {"model": "seedance-2.0"})
    task = task_of(reply)
    await service.go_on(task, STARTED, COMPLETED)
    read = (await service.query("lemondata", task)).json()
    assert (read["status"], read["model"], read["id"]) == ("completed", "seedance-2.0", reply.json()["id"])
    assert read["billing_transaction_id"].startswith("txn_")


async def test_a_created_task_is_cancelled_and_keeps_its_poll_url(service: Service) -> None:
    reply = await create(service, VIDEO, PROMPT | {"model": "seedance-2.0"})
    task = task_of(reply)
    assert (await service.cancel("lemondata", task)).json()["poll_url"] == reply.json()["poll_url"]
    read = (await service.query("lemondata", task)).json()
    assert (read["cancelled"], "billing_transaction_id" in read) == (True, False)


async def test_a_failed_task_has_no_transaction(service: Service) -> None:
    task = task_of(await create(service, VIDEO, PROMPT))
    await service.go_on(task, STARTED, FAILED)
    assert "billing_transaction_id" not in (await service.query("lemondata", task)).json()


async def test_two_tasks_have_two_transactions(service: Service) -> None:
    tasks = [task_of(await create(service, VIDEO, PROMPT)) for _ in range(2)]
    for task in tasks:
        await service.go_on(task, STARTED, COMPLETED)
    names = {(await service.query("lemondata", task)).json()["billing_transaction_id"] for task in tasks}
    assert len(names) == 2


async def test_another_run_has_another_transaction(service: Service) -> None:
    task = await service.make("chunkr")  # whose tasks run again when they are updated
    names = []
    for number in (1, 2):
        await service.go_on(task, STARTED, COMPLETED)
        names.append((await service.query("lemondata", task)).json()["billing_transaction_id"])
        await service.go_on(task, UpdateAsked({"expires_in": number}))
        assert "billing_transaction_id" not in (await service.query("lemondata", task)).json()
    assert len(set(names)) == 2


# What is read out of it

OPERATIONS = {
    "words": ({}, "text-to-video"),
    "image_url": ({"image_url": URL}, "image-to-video"),
    "an inline image": ({"image": "data:image/png;base64,aGk="}, "image-to-video"),
    "a first frame": ({"start_image": URL}, "image-to-video"),
    "a last frame": ({"end_image": URL}, "start-end-to-video"),
    "both frames": ({"start_image": URL, "end_image": URL}, "start-end-to-video"),
    "references": ({"reference_images": [URL, URL, URL]}, "reference-to-video"),
    "a video": ({"video_url": URL}, "video-to-video"),
    "a video and an image": ({"video_url": URL, "image_url": URL}, "motion-control"),
    "a sound": ({"audio_url": URL}, "audio-to-video"),
    "said": ({"operation": "video-extension", "video_url": URL}, "video-extension"),
    "said, against the inputs": ({"operation": "text-to-video", "image_url": URL}, "text-to-video"),
}


@pytest.mark.parametrize(("inputs", "operation"), OPERATIONS.values(), ids=OPERATIONS)
async def test_the_operation_is_said_or_follows_from_the_inputs(
    service: Service, inputs: dict[str, Any], operation: str
) -> None:
    seen = await created(service, VIDEO, PROMPT | inputs)
    assert (seen["capability"], seen["input"]) == (operation, PROMPT | inputs)


@pytest.mark.parametrize("operation", get_args(lemondata_create.Operation))
async def test_every_operation_is_taken_by_its_word(service: Service, operation: str) -> None:
    assert (await created(service, VIDEO, PROMPT | {"operation": operation}))["capability"] == operation


@pytest.mark.parametrize("field", ["image_url", "image", "start_image", "end_image", "video_url"])
async def test_a_picture_or_a_video_needs_no_words(service: Service, field: str) -> None:
    assert (await created(service, VIDEO, {field: URL}))["input"] == {field: URL}


@pytest.mark.parametrize(
    ("path", "body", "capability"),
    [
        (MODEL3D, PROMPT, "text-to-3d"),
        (MODEL3D, {"image_url": URL}, "image-to-3d"),
        (MUSIC, {"lyrics": "It rains"}, "text-to-music"),
        (IMAGE, PROMPT, "text-to-image"),
    ],
)
async def test_the_other_routes_know_what_they_make(
    service: Service, path: str, body: dict[str, str], capability: str
) -> None:
    seen = await created(service, path, body)
    assert (seen["capability"], seen["input"]) == (capability, body)


@pytest.mark.parametrize(("n", "price"), [(1, "0.04"), (3, "0.12"), (10, "0.4")])
async def test_so_many_images_cost_so_many_times_as_much(service: Service, n: int, price: str) -> None:
    assert (await created(service, IMAGE, PROMPT | {"n": n}))["billing"]["held_credits"] == price


@pytest.mark.parametrize("name", ["output_audio", "outputAudio"])
@pytest.mark.parametrize("wanted", [True, False])
async def test_the_sound_has_two_spellings_and_is_stored_under_one(
    service: Service, name: str, *, wanted: bool
) -> None:
    assert (await created(service, VIDEO, PROMPT | {name: wanted}))["input"] == PROMPT | {"output_audio": wanted}


@every_route
async def test_what_nobody_knows_and_what_is_null_is_as_good_as_absent(service: Service, path: str, model: str) -> None:
    seen = await created(
        service, path, PROMPT | {"nobody_knows": {"a": [1]}, "model": None, "user": None, "seed": None}
    )
    assert (seen["model"], seen["input"], seen["metadata"]) == (model, PROMPT, {})


@pytest.mark.parametrize(
    "value", [b"1e400", b"9" * 5000, b'"\\u0000"', b'"\\ud800"', b'"\xff"', b"NaN", b"[" * 10_000 + b"]" * 10_000]
)
@pytest.mark.parametrize("path", ROUTES)
async def test_what_nobody_can_carry_is_never_stored(service: Service, path: str, value: bytes) -> None:
    end = await log_end(service)
    call = Call("POST", path, b'{"prompt":"a cat","nobody_knows":' + value + b"}")
    reply = await service.ask("lemondata", call)
    if reply.status == 200:
        assert (await service.seen(task_of(reply)))["input"] == PROMPT
    else:
        assert (reply.status, reply.json()["error"]["code"]) == (400, "invalid_request")
        assert await log_end(service) == end


@pytest.mark.parametrize("path", ROUTES)
async def test_a_create_beyond_all_measure_is_a_413(service: Service, path: str) -> None:
    reply = await create(service, path, {"prompt": "x" * 2**20})
    assert (reply.status, reply.json()["error"]["code"]) == (413, "payload_too_large")


BOUNDS: list[tuple[str, str, list[Any], list[Any]]] = [
    (VIDEO, "duration", [1, 3600], [0, 3601, -1, 1.5, "4"]),
    (VIDEO, "fps", [1, 120], [0, 121, 24.5]),
    (VIDEO, "cfg_scale", [0, 7.5, 20], [-0.1, 20.1, "7"]),
    (VIDEO, "motion_strength", [0, 0.5, 1], [-0.1, 1.1, True]),
    (VIDEO, "seed", [0, 2**63 - 1], [-1, 2**63]),
    (VIDEO, "prompt", ["x" * 8000], ["x" * 8001, 1, ["a"]]),
    (VIDEO, "reference_images", [[], [URL] * 3], [[URL] * 4, URL, [1]]),
    (VIDEO, "operation", ["motion-control"], ["text-to-image", ""]),
    (VIDEO, "output_audio", [True], ["true", 1]),
    (VIDEO, "image_url", [URL], ["data:image/png;base64,aGk=", "ftp://example.com/1", "x", "https://u:p@example.com/"]),
    (VIDEO, "image", [URL, "data:image/jpeg;base64,aGk="], ["data:image/png,hi", "data:", "x"]),
    (VIDEO, "user", ["x" * 255], ["x" * 256]),
    (IMAGE, "n", [1, 10], [0, 11, -1, 1.5, "2"]),
    (IMAGE, "response_format", ["url"], ["b64_json", ""]),
    (MUSIC, "instrumental", [True, False], ["yes", 0]),
    (MUSIC, "title", ["Rain"], ["x" * 256, 1]),
    (MODEL3D, "image_url", [URL, "data:image/png;base64,aGk="], ["x", 1]),
]


@pytest.mark.parametrize(
    ("path", "field", "good", "bad"), BOUNDS, ids=[f"{path} {field}" for path, field, _, _ in BOUNDS]
)
async def test_a_field_ends_where_its_bounds_are(
    service: Service, path: str, field: str, good: list[Any], bad: list[Any]
) -> None:
    for value in good:
        assert (await create(service, path, PROMPT | {field: value})).status == 200, value
    end = await log_end(service)
    for value in bad:
        reply = await create(service, path, PROMPT | {field: value})
        told = reply.json()["error"]
        assert (reply.status, told["code"], told["type"]) == (400, "invalid_request", "invalid_request_error"), value
        assert told["param"].startswith(field)
    assert await log_end(service) == end


# Refusals


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("body", [{}, {"prompt": ""}, {"prompt": None}], ids=["absent", "empty", "null"])
async def test_without_a_prompt_there_is_nothing_to_make(service: Service, path: str, body: dict[str, Any]) -> None:
    end = await log_end(service)
    reply = await create(service, path, body)
    told = reply.json()["error"]
    assert (reply.status, told["code"], told["param"]) == (400, "invalid_request", "prompt")
    assert await log_end(service) == end


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("model", ["nobody-knows", "", "wan-2.6", "a b"])
async def test_a_model_that_is_not_in_the_catalogue_is_not_found(service: Service, path: str, model: str) -> None:
    end = await log_end(service)
    reply = await create(service, path, PROMPT | {"model": model})
    wanted = (
        '{"error":{"message":"The model does not exist.","type":"invalid_request_error","code":"model_not_found",'
        '"param":"model"}}'
    )
    assert (reply.status, reply.body) == (400, wanted)
    assert await log_end(service) == end


@pytest.mark.parametrize("path", ROUTES)
async def test_a_model_of_another_kind_is_refused(service: Service, path: str) -> None:
    end = await log_end(service)
    for model in set(ROUTES.values()) - {ROUTES[path]}:
        reply = await create(service, path, PROMPT | {"model": model})
        told = reply.json()["error"]
        assert (reply.status, told["code"], told["param"]) == (400, "invalid_request", "model")
    assert await log_end(service) == end


async def test_the_sound_in_both_spellings_is_refused(service: Service) -> None:
    reply = await create(service, VIDEO, PROMPT | {"output_audio": True, "outputAudio": True})
    assert (reply.status, reply.json()["error"]["param"]) == (400, "output_audio")


async def test_a_create_without_a_key_is_a_401(service: Service) -> None:
    reply = await service.send("POST", "/lemondata" + VIDEO, body=compact(PROMPT).encode())
    assert (reply.status, reply.json()["error"]["code"]) == (401, "invalid_api_key")


async def test_a_store_that_takes_nothing_is_a_503_and_no_task(service: Service) -> None:
    end = await log_end(service)
    service.watched.commit_faults.append(StorageError("the disk is full"))
    reply = await create(service, VIDEO, PROMPT)
    assert (reply.status, reply.json()["error"]["retryable"]) == (503, True)
    assert await log_end(service) == end


@pytest.mark.parametrize(
    ("left", "asked", "numbers"),
    [
        (500_000, 2_000_000, '"balance_usd":0.5,"estimated_cost_usd":2'),
        (0, 1, '"balance_usd":0,"estimated_cost_usd":0.000001'),
        (-1_500_000, 40_000, '"balance_usd":-1.5,"estimated_cost_usd":0.04'),
        (9_007_199_254_740_993, 10**18, '"balance_usd":9007199254.740993,"estimated_cost_usd":1000000000000'),
    ],
)
def test_what_is_left_and_what_it_costs_are_told_digit_by_digit(left: int, asked: int, numbers: str) -> None:
    refusal = InsufficientCredits(
        asked_micros=asked, limit_micros=max(left, 0), granted_micros=None, exposure_micros=max(-left, 0), position=1
    )
    answer = lemondata.refuse(refusal, Refused("POST", "req_1"))
    wanted = (
        '{"error":{"message":"Insufficient balance for this task.","type":"insufficient_balance",'
        f'"code":"insufficient_balance",{numbers}}}}}'
    )
    assert (answer.status, answer.body.decode()) == (402, wanted)


# Sent again


@every_route
async def test_fifty_at_once_under_one_key_are_one_task(service: Service, path: str, model: str) -> None:
    end = await log_end(service)
    replies = await asyncio.gather(*(create(service, path, PROMPT, Idempotency_Key="k") for _ in range(50)))
    assert {(reply.status, reply.body) for reply in replies} == {(200, replies[0].body)}
    assert replies[0].json()["model"] == model
    assert sorted(reply.headers.get("Idempotent-Replayed", "") for reply in replies) == ["", *["true"] * 49]
    assert await log_end(service) == end + 2
    assert await service.types(task_of(replies[0])) == ["created", "held"]


async def test_a_replay_is_the_first_answer_whatever_became_of_the_task(service: Service) -> None:
    first = await create(service, VIDEO, PROMPT, Idempotency_Key="k")
    await service.go_on(task_of(first), STARTED, COMPLETED)
    service.clock.advance(DAY_SECONDS - 1)
    again = await create(service, VIDEO, PROMPT | {"nobody_knows": 1}, Idempotency_Key="k")
    assert (again.status, again.body, again.headers["Idempotent-Replayed"]) == (200, first.body, "true")


async def test_after_a_day_the_key_is_free(service: Service) -> None:
    first = await create(service, VIDEO, PROMPT, Idempotency_Key="k")
    service.clock.advance(DAY_SECONDS)
    again = await create(service, VIDEO, PROMPT, Idempotency_Key="k")
    assert again.json()["id"] != first.json()["id"]
    assert "Idempotent-Replayed" not in again.headers


async def test_a_key_of_another_body_is_a_409_and_no_task(service: Service) -> None:
    await create(service, VIDEO, PROMPT, Idempotency_Key="k")
    end = await log_end(service)
    reply = await create(service, VIDEO, {"prompt": "a dog"}, Idempotency_Key="k")
    wanted = (
        '{"error":{"message":"Idempotency key was used for another request.","type":"invalid_request_error",'
        '"code":"idempotency_key_reused"}}'
    )
    assert (reply.status, reply.body) == (409, wanted)
    assert await log_end(service) == end


async def test_a_key_is_its_accounts_and_its_routes(service: Service) -> None:
    first = await create(service, VIDEO, PROMPT, Idempotency_Key="k")
    route = await create(service, MUSIC, PROMPT, Idempotency_Key="k")
    call = Call("POST", VIDEO, compact(PROMPT).encode())
    other = await service.ask("lemondata", call, account=STRANGER, Idempotency_Key="k")
    assert len({reply.json()["id"] for reply in (first, route, other)}) == 3


async def test_without_a_key_two_creates_are_two_tasks(service: Service) -> None:
    replies = [await create(service, VIDEO, PROMPT) for _ in range(2)]
    assert len({task_of(reply) for reply in replies}) == 2


@pytest.mark.parametrize(("key", "status"), [("", 400), ("k", 200), ("k" * 255, 200), ("k" * 256, 400)])
async def test_a_key_has_1_to_255_characters(service: Service, key: str, status: int) -> None:
    assert (await create(service, VIDEO, PROMPT, Idempotency_Key=key)).status == status
