"""The native API: what workers and operators send, and what they are told."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from api.contracts import CONTRACTS, spellings
from api.contracts.shape import Open
from ledger.keys import Role, parse
from ledger.task import TERMINAL, Status
from ledger.times import rfc3339
from tests.builders import CREATED_US, ENGINES
from tests.serving import ACCOUNT, MODELS, ROUTES, STRANGER, VENDORS, Route, Service, serving, spelled
from tests.worded import code_of

NOW = rfc3339(CREATED_US)
UNKNOWN = "019ab1c2-7d04-78a5-9bcd-0123456789ab"


@pytest.fixture(params=ENGINES)
async def service(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Service]:
    async with serving(await ENGINES[request.param].open(tmp_path)) as running:
        yield running


def order(contract: str = "lemondata", **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - fields of the create
    """The body of a create."""
    return {"account": ACCOUNT, "contract": contract, "model": MODELS[contract], **fields}


# Create


async def test_a_create_answers_with_the_task_its_address_and_its_version(service: Service) -> None:
    body = order(
        "bytespike",
        capability="image-to-video",
        input={"prompt": "a cat"},
        metadata={"order": "7"},
        estimated_credits="1.25",
        estimated_seconds=40,
        out_task_id="order-7",
        callback_url="https://example.com/hook",
        expires_at="2026-01-03T00:00:00Z",
    )
    reply = await service.native("POST", "/tasks", body, key=service.worker)
    task = reply.json()
    assert reply.status == 201
    assert reply.headers["location"] == f"/ledger/v1/tasks/{task['id']}"
    assert reply.headers["etag"] == '"2"'
    assert task == {
        "id": task["id"],
        "public_id": CONTRACTS["bytespike"].spelling.spell(spelled(task["id"])),
        "contract": "bytespike",
        "account": ACCOUNT,
        "status": "queued",
        "capability": "image-to-video",
        "model": "wan-2.6",
        "provider": "alibaba",
        "version": 2,
        "cursor": task["cursor"],
        "out_task_id": "order-7",
        "follows": None,
        "created_at": NOW,
        "started_at": None,
        "finished_at": None,
        "cancel_requested_at": None,
        "cancel_requested": False,
        "stalled_since": None,
        "expires_at": "2026-01-03T00:00:00Z",
        "estimated_seconds": 40,
        "worker": None,
        "provider_task_id": None,
        "progress": {"percent": None, "stage": None, "message": None},
        "input": {"prompt": "a cat"},
        "metadata": {"order": "7"},
        "output": None,
        "error": None,
        "usage": None,
        "warnings": [],
        "late_reports": 0,
        "deleted": False,
        "billing": {
            "school": "hold",
            "rule": None,
            "rate_version": "2026-01",
            "estimated_credits": "1.25",
            "held_credits": "1.25",
            "charged_credits": "0",
            "released_credits": "0",
            "refunded_credits": "0",
            "net_credits": "0",
        },
        "callback": {
            "url": "https://example.com/hook",
            "attempts": 0,
            "delivered_at": None,
            "last_error": None,
            "gave_up": False,
        },
        "links": {
            "self": f"/ledger/v1/tasks/{task['id']}",
            "events": f"/ledger/v1/tasks/{task['id']}/events",
            "cancel": f"/ledger/v1/tasks/{task['id']}/cancel",
        },
    }
    assert await service.task(task["id"]) == task


PRICES = [  # contract, model, its own estimate; then what is estimated, held, charged
    ("lemondata", "seedance-2.0", None, "1.5", "1.5", "0"),
    ("lemondata", "seedance-2.0", "0.000001", "0.000001", "0.000001", "0"),
    ("lemondata", "seedance-2.0", "0", "0", "0", "0"),
    ("bytespike", "veo-3.1", None, "3.2", "3.2", "0"),
    ("bytespike", "veo-3.1", "7", "7", "7", "0"),
    ("chunkr", "chunkr-parse", None, "0.01", "0", "0"),
    ("chunkr", "chunkr-parse", "0.5", "0.5", "0", "0"),
    ("beatra", "suno-5.5", None, "80", "0", "80"),
    ("beatra", "suno-5.5", "81.5", "81.5", "0", "81.5"),
    ("beatra", "suno-5.5", "1000000000000", "1000000000000", "0", "1000000000000"),
]


@pytest.mark.parametrize(("contract", "model", "estimate", "estimated", "held", "charged"), PRICES)
async def test_a_task_costs_the_catalogues_price_or_its_own_estimate(
    *, service: Service, contract: str, model: str, estimate: str | None, estimated: str, held: str, charged: str
) -> None:
    own = {} if estimate is None else {"estimated_credits": estimate}
    billing = (await service.create(contract, model=model, **own))["billing"]
    assert billing["estimated_credits"] == estimated
    assert billing["held_credits"] == held
    assert billing["charged_credits"] == charged


@pytest.mark.parametrize("contract", VENDORS)
async def test_a_model_that_the_catalogue_does_not_have_needs_a_price(service: Service, contract: str) -> None:
    reply = await service.native("POST", "/tasks", order(contract) | {"model": "unheard-of"})
    assert (reply.status, code_of("ledger", reply)) == (422, "unknown_model")


@pytest.mark.parametrize(
    ("contract", "school"),
    [("lemondata", "hold"), ("bytespike", "hold"), ("chunkr", "on-success"), ("beatra", "prepaid")],
)
async def test_a_model_with_a_price_of_its_own_is_billed_in_the_contracts_school(
    service: Service, contract: str, school: str
) -> None:
    task = await service.create(contract, model="unheard-of", estimated_credits="2")
    assert (task["billing"]["school"], task["provider"], task["capability"]) == (school, "unknown", "unknown")
    assert task["billing"]["estimated_credits"] == "2"


async def test_a_create_that_has_expired_already_is_refused(service: Service) -> None:
    for moment in ("2026-01-02T03:04:05Z", "2026-01-02T03:04:04.999999Z", "2026-01-02T04:04:05+01:00"):
        reply = await service.native("POST", "/tasks", order(expires_at=moment))
        assert (reply.status, reply.json()["param"]) == (422, "expires_at")


# Keys of creates


async def test_the_same_create_with_the_same_key_is_answered_again_and_marked(service: Service) -> None:
    first = await service.native("POST", "/tasks", order(input={"a": 1, "b": 2}), Idempotency_Key="k1")
    again = await service.native("POST", "/tasks", order(input={"b": 2, "a": 1}), Idempotency_Key="k1")
    assert (first.status, again.status) == (201, 200)
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json() == first.json()


async def test_a_create_is_answered_again_when_its_task_has_passed_its_deadline(service: Service) -> None:
    asked = order(expires_at="2026-01-02T03:05:05Z")
    first = await service.native("POST", "/tasks", asked, Idempotency_Key="k1")
    service.clock.advance(3600)
    again = await service.native("POST", "/tasks", asked, Idempotency_Key="k1")
    assert (first.status, again.status, again.json()["id"]) == (201, 200, first.json()["id"])


async def test_the_answer_to_a_repeated_create_shows_the_task_as_it_stands(service: Service) -> None:
    task = (await service.native("POST", "/tasks", order(), Idempotency_Key="k1")).json()["id"]
    await service.reported(task, "started")
    again = await service.native("POST", "/tasks", order(), Idempotency_Key="k1")
    assert (again.status, again.json()["status"], again.headers["etag"]) == (200, "running", '"3"')


async def test_a_quoted_key_is_the_same_as_a_bare_one(service: Service) -> None:
    first = await service.native("POST", "/tasks", order(), Idempotency_Key='"k 1"')
    again = await service.native("POST", "/tasks", order(), Idempotency_Key="k 1")
    assert (again.status, again.json()["id"]) == (200, first.json()["id"])


async def test_a_key_that_comes_again_with_another_create_is_refused_with_the_first_ones_fingerprint(
    service: Service,
) -> None:
    first = await service.native("POST", "/tasks", order(), Idempotency_Key="k1")
    position = await service.position()
    other = await service.native("POST", "/tasks", order(input={"prompt": "a dog"}), Idempotency_Key="k1")
    assert (other.status, code_of("ledger", other)) == (422, "idempotency_key_reused")
    (claim,) = (await service.history(first.json()["id"]))[0]["data"]["claims"]
    assert other.json()["fingerprint"] == claim["fingerprint"]
    assert other.json()["task"] == first.json()["id"]
    assert await service.position() == position


async def test_a_key_belongs_to_its_account(service: Service) -> None:
    mine = await service.native("POST", "/tasks", order(), Idempotency_Key="k1")
    theirs = await service.native("POST", "/tasks", order() | {"account": STRANGER}, Idempotency_Key="k1")
    assert (mine.status, theirs.status) == (201, 201)
    assert mine.json()["id"] != theirs.json()["id"]


async def test_a_refused_create_leaves_its_key_free(service: Service) -> None:
    refused = await service.native("POST", "/tasks", order() | {"model": "unheard-of"}, Idempotency_Key="k1")
    taken = await service.native("POST", "/tasks", order(), Idempotency_Key="k1")
    assert (refused.status, taken.status) == (422, 201)


async def test_an_out_task_id_names_one_task_for_ever(service: Service) -> None:
    first = await service.native("POST", "/tasks", order(out_task_id="o1"))
    service.clock.advance(400 * 86_400)
    again = await service.native("POST", "/tasks", order(out_task_id="o1"))
    other = await service.native("POST", "/tasks", order(out_task_id="o1", input={"prompt": "a dog"}))
    assert (first.status, again.status, other.status) == (201, 200, 422)
    assert again.json()["id"] == first.json()["id"]
    assert code_of("ledger", other) == "idempotency_key_reused"
    assert other.json()["task"] == first.json()["id"]


BOTH_KEYS = [  # header, out_task_id, input of the second create, after one with k1, o1 and no input
    ("k1", "o1", {}, 200),
    ("k2", "o1", {}, 200),
    ("k1", "o2", {}, 422),
    ("k1", None, {}, 422),
    (None, "o1", {}, 200),
    ("k2", "o1", {"prompt": "a dog"}, 422),
    ("k2", "o2", {}, 201),
    (None, None, {}, 201),
]


@pytest.mark.parametrize(("key", "out_task_id", "given", "status"), BOTH_KEYS)
async def test_of_a_create_with_both_keys_each_is_held_against_the_first_that_brought_it(
    service: Service, key: str | None, out_task_id: str | None, given: dict[str, str], status: int
) -> None:
    first = await service.native("POST", "/tasks", order(out_task_id="o1"), Idempotency_Key="k1")
    body = order(input=given) if out_task_id is None else order(input=given, out_task_id=out_task_id)
    headers = {} if key is None else {"Idempotency_Key": key}
    reply = await service.native("POST", "/tasks", body, **headers)
    assert reply.status == status
    if status == 200:
        assert reply.json()["id"] == first.json()["id"]
    if status == 422:
        assert code_of("ledger", reply) == "idempotency_key_reused"


async def test_fifty_identical_creates_at_once_are_one_task(service: Service) -> None:
    asks = (service.native("POST", "/tasks", order(), Idempotency_Key="k1") for _ in range(50))
    replies = await asyncio.gather(*asks)
    assert sorted(reply.status for reply in replies) == [200] * 49 + [201]
    assert len({reply.json()["id"] for reply in replies}) == 1
    assert len((await service.native("GET", "/tasks")).json()["tasks"]) == 1


# Read


async def test_a_task_is_found_under_each_contracts_spelling_of_its_id(service: Service) -> None:
    task = await service.create("beatra")
    for spelling in spellings():
        assert await service.task(spelling.spell(spelled(task["id"]))) == task
    assert await service.task(task["id"].upper()) == task


async def test_a_task_shows_its_id_as_its_own_contract_spells_it(service: Service) -> None:
    for contract in VENDORS:
        task = await service.create(contract)
        assert task["public_id"] == CONTRACTS[contract].spelling.spell(spelled(task["id"]))


async def test_workers_and_operators_read_the_tasks_of_every_account(service: Service) -> None:
    task = await service.create(account=STRANGER)
    for key in (service.worker, service.operator):
        assert (await service.native("GET", f"/tasks/{task['id']}", key=key)).json() == task


@pytest.mark.parametrize("tag", ['"2"', 'W/"2"', '"1", "2"', '"1",W/"2" , "9"', "*"])
async def test_who_has_the_task_as_it_stands_is_not_told_again(service: Service, tag: str) -> None:
    task = await service.create()
    reply = await service.native("GET", f"/tasks/{task['id']}", If_None_Match=tag)
    assert (reply.status, reply.body, reply.headers["etag"]) == (304, b"", '"2"')


@pytest.mark.parametrize("tag", ['"1"', '"3"', "2", "", '"22"', '"1", "3"', "\\"])
async def test_who_has_another_version_is_told_the_task(service: Service, tag: str) -> None:
    task = await service.create()
    reply = await service.native("GET", f"/tasks/{task['id']}", If_None_Match=tag)
    assert (reply.status, reply.json(), reply.headers["etag"]) == (200, task, '"2"')


@pytest.mark.parametrize(
    ("method", "path"), [("GET", ""), ("POST", "/events"), ("GET", "/events"), ("POST", "/cancel")]
)
async def test_a_task_that_does_not_exist_is_not_found(service: Service, method: str, path: str) -> None:
    body = {"type": "started"} if (method, path) == ("POST", "/events") else {}
    reply = await service.native(method, f"/tasks/{UNKNOWN}{path}", body)
    assert (reply.status, code_of("ledger", reply)) == (404, "task_not_found")


# List


async def several(service: Service, count: int, **fields: Any) -> list[str]:  # noqa: ANN401 - fields of the create
    """The ids of new tasks, a millisecond apart, oldest first."""
    ids = []
    for _ in range(count):
        ids.append((await service.create(**fields))["id"])
        service.clock.advance(1)
    return ids


async def listed(service: Service, query: str) -> list[str]:
    reply = await service.native("GET", f"/tasks?{query}", key=service.worker)
    assert reply.status == 200, reply
    return [task["id"] for task in reply.json()["tasks"]]


async def test_a_list_shows_the_newest_first_or_the_oldest_first(service: Service) -> None:
    ids = await several(service, 3)
    assert await listed(service, "") == ids[::-1]
    assert await listed(service, "order=desc") == ids[::-1]
    assert await listed(service, "order=asc") == ids


async def test_a_list_shows_the_very_tasks_that_a_read_does(service: Service) -> None:
    ids = await several(service, 2)
    reply = await service.native("GET", "/tasks?order=asc")
    assert reply.json() == {"tasks": [await service.task(id_) for id_ in ids], "next_cursor": None, "has_more": False}


async def test_a_list_is_filtered_by_status_account_and_model(service: Service) -> None:
    (fast,) = await several(service, 1, model="seedance-2.0-fast")
    (theirs,) = await several(service, 1, account=STRANGER)
    (running,) = await several(service, 1)
    await service.reported(running, "started")
    assert await listed(service, "status=queued&order=asc") == [fast, theirs]
    assert await listed(service, "status=running") == [running]
    assert await listed(service, f"account={STRANGER}") == [theirs]
    assert await listed(service, "model=seedance-2.0-fast") == [fast]
    assert await listed(service, f"account={ACCOUNT}&status=queued&model=seedance-2.0-fast") == [fast]
    assert await listed(service, f"account={STRANGER}&status=running") == []


@pytest.mark.parametrize("status", sorted(set(Status) - {Status.ABSENT}))
async def test_a_list_can_be_of_each_status(service: Service, status: Status) -> None:
    task = await service.bring(status, expires_at="2026-01-02T04:00:00Z")
    assert await listed(service, f"status={status}") == [task["id"]]


async def test_a_status_that_is_none_is_refused_with_those_there_are(service: Service) -> None:
    reply = await service.native("GET", "/tasks?status=pending")
    assert reply.status == 422
    assert reply.json()["detail"] == "status is one of queued, running, completed, failed, cancelled, expired"


@pytest.mark.parametrize("direction", ["desc", "asc"])
async def test_pages_join_without_gap_or_twin_while_tasks_are_added(service: Service, direction: str) -> None:
    oldest_first = await several(service, 5)
    seen: list[str] = []
    page: dict[str, Any] = {"has_more": True}
    while page["has_more"]:
        cursor = f"&cursor={page['next_cursor']}" if seen else ""
        page = (await service.native("GET", f"/tasks?order={direction}&limit=2{cursor}")).json()
        seen += [task["id"] for task in page["tasks"]]
        if len(oldest_first) < 8:
            oldest_first += await several(service, 1)
    assert seen == (oldest_first if direction == "asc" else oldest_first[4::-1])


async def test_the_last_page_has_no_cursor_even_when_it_is_full(service: Service) -> None:
    await several(service, 4)
    page = (await service.native("GET", "/tasks?limit=2")).json()
    last = (await service.native("GET", f"/tasks?limit=2&cursor={page['next_cursor']}")).json()
    assert (len(last["tasks"]), last["has_more"], last["next_cursor"]) == (2, False, None)


async def test_a_page_of_large_tasks_is_shorter_than_its_limit_and_none_is_left_out(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await several(service, 5)
    monkeypatch.setattr("ledger.ledger.CHUNK_MAX_BYTES", 1500)  # two views and more
    seen, sizes, asked = [], [], "limit=4"
    while asked:
        page = (await service.native("GET", f"/tasks?{asked}")).json()
        seen += [task["id"] for task in page["tasks"]]
        sizes.append(len(page["tasks"]))
        asked = f"limit=4&cursor={page['next_cursor']}" if page["has_more"] else ""
    assert seen == made[::-1]
    assert max(sizes) < 4


async def test_a_page_has_fifty_tasks_unless_a_limit_is_given(service: Service) -> None:
    for _ in range(52):
        await service.create()
    assert len(await listed(service, "")) == 50
    assert len(await listed(service, "limit=1")) == 1
    assert len(await listed(service, "limit=200")) == 52


async def test_a_cursor_of_another_log_or_another_list_is_refused(service: Service, tmp_path: Path) -> None:
    await several(service, 2)
    mine = (await service.native("GET", "/tasks?limit=1")).json()["next_cursor"]
    (tmp_path / "other").mkdir()
    async with serving(await ENGINES["sqlite"].open(tmp_path / "other")) as other:
        reply = await other.native("GET", f"/tasks?cursor={mine}")
        assert (reply.status, reply.json()["param"]) == (422, "cursor")
    of_the_feed = (await service.create())["cursor"]
    reply = await service.native("GET", f"/tasks?cursor={of_the_feed}")
    assert (reply.status, reply.json()["param"]) == (422, "cursor")


# Reports


async def test_a_started_task_is_running_and_tells_whose_it_is(service: Service) -> None:
    task = (await service.create())["id"]
    service.clock.advance(2)
    shown = await service.reported(task, "started", worker="w1", provider_task_id="p-7")
    assert (shown["status"], shown["started_at"]) == ("running", rfc3339(CREATED_US + 2_000_000))
    assert (shown["worker"], shown["provider_task_id"]) == ("w1", "p-7")
    assert shown["billing"]["held_credits"] == "1.5"


async def test_a_start_is_repeated_by_its_worker_only(service: Service) -> None:
    task = (await service.create())["id"]
    first = await service.reported(task, "started", worker="w1")
    for fields in ({"worker": "w1"}, {}):
        assert (await service.reported(task, "started", **fields))["version"] == first["version"]
    reply = await service.report(task, "started", worker="w2")
    assert (reply.status, code_of("ledger", reply)) == (409, "already_started")


async def test_progress_never_falls_and_keeps_what_a_report_leaves_out(service: Service) -> None:
    task = (await service.create())["id"]
    await service.reported(task, "progressed", percent=40, stage="render", message="on its way")
    shown = await service.reported(task, "progressed", percent=30)
    assert shown["progress"] == {"percent": 40, "stage": "render", "message": "on its way"}
    shown = await service.reported(task, "progressed", stage="encode")
    assert shown["progress"] == {"percent": 40, "stage": "encode", "message": "on its way"}
    shown = await service.reported(task, "progressed", percent=100, message="nearly")
    assert shown["progress"] == {"percent": 100, "stage": "encode", "message": "nearly"}
    assert shown["status"] == "running"


async def test_progress_that_changes_nothing_is_no_event(service: Service) -> None:
    task = (await service.create())["id"]
    first = await service.reported(task, "progressed", percent=40)
    again = await service.reported(task, "progressed", percent=40)
    assert again == first


async def test_a_completed_task_shows_what_was_made_and_what_it_cost(service: Service) -> None:
    task = (await service.bring(Status.RUNNING))["id"]
    service.clock.advance(60)
    output = {"assets": [{"kind": "video", "url": "https://example.com/v.mp4", "width": 1280}], "seed": 7}
    usage = {
        "video_seconds": 8,
        "lines": [{"meter": "video", "quantity": "8", "unit": "s", "billed_amount_credits": "1.2"}],
    }
    warning = {"code": "short", "message": "Shorter than asked.", "field": "seconds"}
    shown = await service.reported(
        task, "completed", output=output, usage=usage, warnings=[warning], actual_credits="1.2"
    )
    assert (shown["status"], shown["finished_at"]) == ("completed", rfc3339(CREATED_US + 60_000_000))
    assert (shown["output"], shown["usage"], shown["warnings"]) == (output, usage, [warning])
    assert shown["progress"]["percent"] == 100
    assert shown["billing"] | {"rate_version": ""} == {
        "school": "hold",
        "rule": "hold.completed",
        "rate_version": "",
        "estimated_credits": "1.5",
        "held_credits": "0",
        "charged_credits": "1.2",
        "released_credits": "0.3",
        "refunded_credits": "0",
        "net_credits": "1.2",
    }


@pytest.mark.parametrize(("contract", "charged"), [("lemondata", "1.5"), ("chunkr", "0.01"), ("beatra", "80")])
async def test_a_completion_that_names_no_cost_costs_the_estimate(
    service: Service, contract: str, charged: str
) -> None:
    shown = await service.bring(Status.COMPLETED, contract)
    assert (shown["billing"]["charged_credits"], shown["billing"]["net_credits"]) == (charged, charged)


async def test_a_task_may_complete_without_having_started(service: Service) -> None:
    task = (await service.create())["id"]
    service.clock.advance(5)
    shown = await service.reported(task, "completed")
    assert shown["status"] == "completed"
    assert shown["started_at"] == shown["finished_at"] == rfc3339(CREATED_US + 5_000_000)
    assert [event["type"] for event in await service.history(task)][2:4] == ["started", "completed"]


@pytest.mark.parametrize(
    ("contract", "fields", "net"),
    [
        ("lemondata", {}, "0"),
        ("lemondata", {"actual_credits": "0.5"}, "0.5"),
        ("bytespike", {}, "0"),
        ("chunkr", {}, "0"),
        ("beatra", {}, "0"),
        ("beatra", {"actual_credits": "12.5"}, "12.5"),
    ],
)
async def test_a_failed_task_tells_why_and_costs_nothing_unless_the_worker_says_so(
    service: Service, contract: str, fields: dict[str, str], net: str
) -> None:
    task = (await service.create(contract))["id"]
    shown = await service.reported(task, "failed", code="nsfw", message="Refused.", retryable=True, **fields)
    assert shown["status"] == "failed"
    assert shown["error"] == {"code": "nsfw", "message": "Refused.", "retryable": True}
    assert (shown["billing"]["net_credits"], shown["billing"]["held_credits"]) == (net, "0")


async def test_a_worker_confirms_a_cancel_only_if_one_was_asked_for(service: Service) -> None:
    task = (await service.bring(Status.RUNNING))["id"]
    reply = await service.report(task, "cancelled")
    assert (reply.status, code_of("ledger", reply)) == (409, "cancel_not_requested")
    await service.native("POST", f"/tasks/{task}/cancel")
    shown = await service.reported(task, "cancelled", actual_credits="0.25")
    assert (shown["status"], shown["billing"]["charged_credits"]) == ("cancelled", "0.25")
    assert shown["billing"]["released_credits"] == "1.25"


async def test_the_answer_to_a_report_tells_that_a_cancel_was_asked_for(service: Service) -> None:
    task = (await service.bring(Status.RUNNING))["id"]
    assert (await service.reported(task, "progressed", percent=10))["cancel_requested"] is False
    service.clock.advance(3)
    await service.native("POST", f"/tasks/{task}/cancel")
    shown = await service.reported(task, "progressed", percent=20)
    assert (shown["cancel_requested"], shown["status"]) == (True, "running")
    assert shown["cancel_requested_at"] == rfc3339(CREATED_US + 3_000_000)


async def test_a_worker_charges_out_of_the_hold_and_gives_back_out_of_the_charge(service: Service) -> None:
    task = (await service.bring(Status.RUNNING))["id"]
    shown = await service.reported(task, "charged", amount_credits="0.5", key="c1", reason="rendered")
    assert (shown["billing"]["held_credits"], shown["billing"]["charged_credits"]) == ("1", "0.5")
    shown = await service.reported(task, "refunded", amount_credits="0.2", key="r1", reason="sorry")
    assert (shown["billing"]["refunded_credits"], shown["billing"]["net_credits"]) == ("0.2", "0.3")


@pytest.mark.parametrize("kind", ["charged", "refunded"])
async def test_money_moves_once_under_a_key(service: Service, kind: str) -> None:
    task = (await service.bring(Status.RUNNING))["id"]
    await service.reported(task, "charged", amount_credits="0.5", key="before")
    first = await service.reported(task, kind, amount_credits="0.2", key="k1")
    assert await service.reported(task, kind, amount_credits="0.2", key="k1") == first
    reply = await service.report(task, kind, amount_credits="0.3", key="k1")
    assert (reply.status, code_of("ledger", reply)) == (422, "idempotency_key_reused")


TOO_MUCH = [  # contract, reports before, the report; what it asks for, what is left, what moved the rest
    ("lemondata", [], {"type": "completed", "actual_credits": "1.500001"}, "1.500001", "1.5", ["hold:1"]),
    ("lemondata", [], {"type": "failed", "code": "x", "actual_credits": "2"}, "2", "1.5", ["hold:1"]),
    ("lemondata", [], {"type": "charged", "amount_credits": "2", "key": "c1"}, "2", "1.5", ["hold:1"]),
    ("lemondata", [], {"type": "refunded", "amount_credits": "0.1", "key": "r1"}, "0.1", "0", ["hold:1"]),
    (
        "lemondata",
        [{"type": "charged", "amount_credits": "1", "key": "c1"}],
        {"type": "charged", "amount_credits": "0.6", "key": "c2"},
        "0.6",
        "0.5",
        ["hold:1", "charged:c1"],
    ),
    (
        "lemondata",
        [{"type": "completed"}, {"type": "refunded", "amount_credits": "1.5", "key": "r1"}],
        {"type": "refunded", "amount_credits": "0.000001", "key": "r2"},
        "0.000001",
        "0",
        ["hold:1", "charge:settle:1", "refunded:r1"],
    ),
    ("chunkr", [], {"type": "charged", "amount_credits": "1", "key": "c1"}, "1", "0", []),
    ("chunkr", [], {"type": "failed", "code": "x", "actual_credits": "1"}, "1", "0", []),
    ("beatra", [], {"type": "charged", "amount_credits": "1", "key": "c1"}, "1", "0", ["charge:1"]),
    ("beatra", [], {"type": "completed", "actual_credits": "80.1"}, "80.1", "80", ["charge:1"]),
    ("beatra", [], {"type": "refunded", "amount_credits": "80.1", "key": "r1"}, "80.1", "80", ["charge:1"]),
]


@pytest.mark.parametrize(("contract", "before", "report", "asked", "left", "settled_by"), TOO_MUCH)
async def test_more_than_there_is_is_refused_and_what_took_the_rest_is_named(
    *,
    service: Service,
    contract: str,
    before: list[dict[str, str]],
    report: dict[str, str],
    asked: str,
    left: str,
    settled_by: list[str],
) -> None:
    task = (await service.create(contract))["id"]
    for earlier in before:
        assert (await service.native("POST", f"/tasks/{task}/events", earlier)).status == 200
    position = await service.position()
    reply = await service.native("POST", f"/tasks/{task}/events", report)
    problem = reply.json()
    assert (reply.status, code_of("ledger", reply)) == (422, "amount_exceeds")
    assert (problem["asked_credits"], problem["left_credits"], problem["settled_by"]) == (asked, left, settled_by)
    assert await service.position() == position


REPORTS: list[dict[str, Any]] = [
    {"type": "started", "worker": "w1"},
    {"type": "progressed", "percent": 40},
    {"type": "completed", "output": {"assets": []}, "actual_credits": "0.5"},
    {"type": "failed", "code": "broke"},
    {"type": "charged", "amount_credits": "0.5", "key": "c1"},
]


@pytest.mark.parametrize("report", REPORTS, ids=lambda report: report["type"])
async def test_two_deliveries_of_one_event_are_one(service: Service, report: dict[str, Any]) -> None:
    task = (await service.create())["id"]
    body = {**report, "event_id": "e1"}
    first = await service.native("POST", f"/tasks/{task}/events", body, key=service.worker)
    again = await service.native("POST", f"/tasks/{task}/events", body, key=service.worker)
    assert (first.status, again.status) == (200, 200)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json() == first.json()


async def test_an_event_id_that_comes_with_another_report_is_refused(service: Service) -> None:
    task = (await service.create())["id"]
    await service.reported(task, "progressed", percent=40, event_id="e1")
    reply = await service.report(task, "progressed", percent=50, event_id="e1")
    assert (reply.status, code_of("ledger", reply)) == (422, "idempotency_key_reused")


async def test_an_event_id_belongs_to_its_task(service: Service) -> None:
    for _ in range(2):
        task = (await service.create())["id"]
        assert (await service.reported(task, "progressed", percent=40, event_id="e1"))["progress"]["percent"] == 40


async def test_an_event_that_changed_nothing_is_remembered_too(service: Service) -> None:
    task = (await service.bring(Status.RUNNING))["id"]
    await service.reported(task, "started", event_id="e1")
    await service.reported(task, "completed")
    again = await service.report(task, "started", event_id="e1")
    assert (again.headers["idempotent-replayed"], "late" in again.json()) == ("true", False)


@pytest.mark.parametrize("path", ["events", "cancel"])
async def test_a_write_on_a_version_that_has_passed_is_refused_and_told_the_one_that_stands(
    service: Service, path: str
) -> None:
    task = (await service.create())["id"]
    await service.reported(task, "started")
    body = {"type": "progressed", "percent": 1} if path == "events" else {}
    for stale in ('"2"', '"4"', '"0"'):
        reply = await service.native("POST", f"/tasks/{task}/{path}", body, If_Match=stale)
        assert (reply.status, code_of("ledger", reply), reply.json()["version"]) == (412, "wrong_version", 3)
    for good in ('"3"', "*"):
        reply = await service.native("POST", f"/tasks/{task}/{path}", body, If_Match=good)
        assert reply.status in {200, 202}
        assert reply.headers["etag"] == f'"{reply.json()["version"]}"'


LATE: list[dict[str, Any]] = [*REPORTS, {"type": "cancelled"}]


@pytest.mark.parametrize("report", LATE, ids=lambda report: report["type"])
@pytest.mark.parametrize("status", sorted(TERMINAL))
async def test_a_report_after_the_outcome_is_kept_and_changes_nothing(
    service: Service, status: Status, report: dict[str, Any]
) -> None:
    before = await service.bring(status, expires_at="2026-01-02T04:00:00Z")
    reply = await service.native("POST", f"/tasks/{before['id']}/events", report, key=service.worker)
    after = reply.json()
    assert (reply.status, after.pop("late")) == (200, True)
    assert after["late_reports"] == 1
    moved = {"version", "cursor", "late_reports"}
    assert {name: value for name, value in after.items() if name not in moved} == {
        name: value for name, value in before.items() if name not in moved
    }
    last = (await service.history(before["id"]))[-1]
    assert (last["type"], last["data"]["reported"], last["amount_credits"]) == ("late-reported", report["type"], None)


async def test_a_charge_that_moved_money_before_the_outcome_is_not_late_when_it_is_sent_again(service: Service) -> None:
    task = (await service.bring(Status.RUNNING))["id"]
    charge = {"amount_credits": "0.5", "key": "part"}
    await service.reported(task, "charged", **charge)
    ended = await service.reported(task, "failed", code="broke")
    again = await service.reported(task, "charged", **charge)
    assert "late" not in again
    assert again["version"] == ended["version"]
    assert (await service.reported(task, "charged", **charge | {"key": "other"}))["late"]


async def test_a_report_in_time_is_not_called_late(service: Service) -> None:
    task = (await service.create())["id"]
    for report in REPORTS[:3]:
        assert "late" not in (await service.native("POST", f"/tasks/{task}/events", report)).json()


async def test_money_is_given_back_after_the_outcome_too(service: Service) -> None:
    task = (await service.bring(Status.COMPLETED))["id"]
    shown = await service.reported(task, "refunded", amount_credits="0.5", key="r1")
    assert "late" not in shown
    assert (shown["status"], shown["billing"]["net_credits"]) == ("completed", "1")


@pytest.mark.parametrize(
    ("effective_at", "started_at"),
    [
        ("2026-01-02T03:05:00Z", "2026-01-02T03:05:00Z"),
        ("2026-01-02T04:05:00.25+01:00", "2026-01-02T03:05:00.250000Z"),
        ("2020-01-01T00:00:00Z", NOW),  # before its creation
        ("2030-01-01T00:00:00Z", "2026-01-02T03:06:05Z"),  # ahead of our clock
    ],
)
async def test_a_report_says_when_it_happened_within_the_tasks_own_time(
    service: Service, effective_at: str, started_at: str
) -> None:
    task = (await service.create())["id"]
    service.clock.advance(120)
    assert (await service.reported(task, "started", effective_at=effective_at))["started_at"] == started_at
    assert (await service.history(task))[-1]["recorded_at"] == "2026-01-02T03:06:05Z"


# History


async def test_a_history_tells_every_event_who_caused_it_and_what_it_moved(service: Service) -> None:
    reply = await service.native("POST", "/tasks", order(input={"prompt": "a cat"}), key=service.worker)
    task = reply.json()["id"]
    service.clock.advance(1)
    await service.reported(task, "failed", code="broke", message="It broke.")
    events = await service.history(task)
    worker = parse(service.worker)
    assert worker is not None
    assert [event["type"] for event in events] == ["created", "held", "started", "failed", "released"]
    assert [event["version"] for event in events] == [1, 2, 3, 4, 5]
    assert [event["amount_credits"] for event in events] == [None, "1.5", None, None, "1.5"]
    assert {event["actor"] for event in events} == {worker.key_id}
    assert events[0]["request_id"] == reply.headers["x-request-id"]
    assert events[0]["payload"] == {"input": {"prompt": "a cat"}}
    assert events[3]["payload"] == {"message": "It broke."}
    assert (events[3]["data"]["code"], events[4]["data"]["cause"]) == ("broke", "failed")
    assert events[0]["recorded_at"] == events[0]["effective_at"] == NOW
    assert [len(event["hash"]) for event in events] == [64] * 5
    assert [event["position"] for event in events] == sorted({event["position"] for event in events})
    assert events[-1]["cursor"] == (await service.task(task))["cursor"]


# Cancel


async def test_the_operator_cancels_a_queued_task_at_once(service: Service) -> None:
    task = (await service.create())["id"]
    reply = await service.native("POST", f"/tasks/{task}/cancel", {"reason": "the customer called"})
    shown = reply.json()
    assert (reply.status, shown["status"], shown["billing"]["released_credits"]) == (200, "cancelled", "1.5")
    events = await service.history(task)
    assert [event["type"] for event in events][2:] == ["cancel-requested", "cancelled", "released"]
    assert events[2]["payload"] == {"message": "the customer called"}


async def test_the_operator_asks_the_worker_of_a_running_task_to_stop(service: Service) -> None:
    task = (await service.bring(Status.RUNNING))["id"]
    first = await service.native("POST", f"/tasks/{task}/cancel")
    again = await service.native("POST", f"/tasks/{task}/cancel", {"reason": "again"})
    assert (first.status, again.status) == (202, 202)
    assert first.json() == again.json()
    assert (first.json()["status"], first.json()["cancel_requested"]) == ("running", True)
    assert first.json()["billing"]["held_credits"] == "1.5"


@pytest.mark.parametrize("status", sorted(TERMINAL))
async def test_the_cancel_of_a_task_that_is_over_shows_it_as_it_stands(service: Service, status: Status) -> None:
    before = await service.bring(status, expires_at="2026-01-02T04:00:00Z")
    position = await service.position()
    reply = await service.native("POST", f"/tasks/{before['id']}/cancel")
    assert (reply.status, reply.json()) == (200, before)
    assert await service.position() == position


# Keys

KEYS = [  # contract, role asked for, role given
    *((vendor, None, "client") for vendor in VENDORS),
    *((vendor, "client", "client") for vendor in VENDORS),
    ("ledger", None, "worker"),
    ("ledger", "worker", "worker"),
    ("ledger", "operator", "operator"),
]


@pytest.mark.parametrize(("contract", "asked", "given"), KEYS)
async def test_a_key_is_issued_and_opens_at_once(
    service: Service, contract: str, asked: str | None, given: str
) -> None:
    body = {"account": ACCOUNT, "contract": contract} | ({} if asked is None else {"role": asked})
    reply = await service.native("POST", "/keys", body)
    new = reply.json()
    assert (reply.status, new.keys()) == (201, {"key_id", "key"})
    (row,) = [one for one in await keys_of(service) if one["key_id"] == new["key_id"]]
    assert row == {
        "key_id": new["key_id"],
        "account": ACCOUNT,
        "contract": contract,
        "role": given,
        "issued_at": NOW,
        "revoked_at": None,
        "alive": True,
    }
    assert await opens(service, contract, new["key"])


async def test_there_is_no_client_of_the_native_api(service: Service) -> None:
    reply = await service.native("POST", "/keys", {"account": ACCOUNT, "contract": "ledger", "role": "client"})
    assert (reply.status, reply.json()["param"]) == (422, "role")


@pytest.mark.parametrize("role", ["worker", "operator"])
@pytest.mark.parametrize("contract", VENDORS)
async def test_a_worker_s_or_an_operator_s_key_speaks_no_vendor_s_contract(
    service: Service, contract: str, role: str
) -> None:
    before = await keys_of(service)
    reply = await service.native("POST", "/keys", {"account": ACCOUNT, "contract": contract, "role": role})
    assert (reply.status, reply.json()["param"]) == (422, "role")
    assert await keys_of(service) == before


async def test_keys_are_listed_by_account_and_never_with_their_secrets(service: Service) -> None:
    theirs = (await service.native("POST", "/keys", {"account": STRANGER, "contract": "chunkr"})).json()
    assert [row["key_id"] for row in await keys_of(service, STRANGER)] == [theirs["key_id"]]
    everyone = await service.native("GET", "/keys")
    assert len(everyone.json()["keys"]) == 3
    secret = theirs["key"].rpartition("_")[2]
    assert secret.encode() not in everyone.body
    assert b"digest" not in everyone.body


async def test_a_revoked_key_is_dead_at_once_and_revoked_once(service: Service) -> None:
    new = (await service.native("POST", "/keys", {"account": ACCOUNT, "contract": "chunkr"})).json()
    assert await opens(service, "chunkr", new["key"])
    service.clock.advance(1)
    reply = await service.native("DELETE", f"/keys/{new['key_id']}")
    assert (reply.status, reply.json()["alive"]) == (200, False)
    assert reply.json()["revoked_at"] == rfc3339(service.clock())
    assert not await opens(service, "chunkr", new["key"])
    again = await service.native("DELETE", f"/keys/{new['key_id']}")
    assert (again.status, code_of("ledger", again)) == (404, "key_not_found")


async def test_a_rotated_key_lives_on_for_the_overlap(service: Service) -> None:
    old = (await service.native("POST", "/keys", {"account": ACCOUNT, "contract": "beatra"})).json()
    reply = await service.native("POST", f"/keys/{old['key_id']}/rotate", {"overlap_seconds": 60})
    new = reply.json()
    assert reply.status == 201
    assert new["key_id"] != old["key_id"]
    assert await opens(service, "beatra", old["key"])
    assert await opens(service, "beatra", new["key"])
    service.clock.advance(60)
    assert not await opens(service, "beatra", old["key"])
    assert await opens(service, "beatra", new["key"])


@pytest.mark.parametrize(("body", "seconds"), [({}, 86_400), ({"overlap_seconds": 0}, 0)])
async def test_the_overlap_of_a_rotation_is_a_day_unless_it_is_given(
    service: Service, body: dict[str, int], seconds: int
) -> None:
    old = (await service.native("POST", "/keys", {"account": ACCOUNT, "contract": "beatra"})).json()["key_id"]
    assert (await service.native("POST", f"/keys/{old}/rotate", body)).status == 201
    (row,) = [row for row in await keys_of(service) if row["key_id"] == old]
    assert row["revoked_at"] == rfc3339(CREATED_US + seconds * 1_000_000)
    assert row["alive"] is (seconds > 0)


@pytest.mark.parametrize(("method", "path"), [("DELETE", "/keys/{}"), ("POST", "/keys/{}/rotate")])
async def test_a_key_that_does_not_exist_is_not_found(service: Service, method: str, path: str) -> None:
    reply = await service.native(method, path.format("NoSuchKey123"))
    assert (reply.status, code_of("ledger", reply)) == (404, "key_not_found")


async def keys_of(service: Service, account: str = ACCOUNT) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = (await service.native("GET", f"/keys?account={account}")).json()["keys"]
    return rows


async def opens(service: Service, contract: str, key: str) -> bool:
    """Whether *key* is taken by its contract: what it asks for need not exist."""
    route = next(route for route in ROUTES if route.contract == contract)
    reply = await service.ask(route.method, route.at("-"), key=key)
    return reply.status != 401


# Roles


def roles_of(route: Route) -> set[Role]:
    """Who may take *route*."""
    if isinstance(route.operation, Open):
        return set(Role)
    if route.contract != "ledger":
        return {Role.CLIENT}
    return {Role.OPERATOR} if route.operator_only else {Role.OPERATOR, Role.WORKER}


OPERATOR_ONLY = {
    "GET /ledger/v1/events",
    "POST /ledger/v1/tasks/{id}/cancel",
    "POST /ledger/v1/keys",
    "GET /ledger/v1/keys",
    "DELETE /ledger/v1/keys/{id}",
    "POST /ledger/v1/keys/{id}/rotate",
    "PUT /ledger/v1/accounts/{account}/limit",
    "POST /ledger/v1/accounts/{account}/grants",
    "POST /ledger/v1/accounts/{account}/revocations",
    "GET /ledger/v1/accounts/{account}/callback-secret",
    "POST /ledger/v1/accounts/{account}/callback-secret/rotate",
    "GET /ledger/v1/callbacks",
    "POST /ledger/v1/callbacks/{id}/resend",
    "GET /ledger/v1/billing/summary",
    "GET /ledger/v1/billing/breaks",
    "POST /ledger/v1/billing/breaks/{id}",
    "POST /ledger/v1/billing/statements",
    "GET /ledger/v1/billing/reconciliation",
    "POST /ledger/v1/billing/reconciliation",
    "GET /ledger/metrics",
}


def test_what_only_the_operator_may_is_marked_so() -> None:
    assert {str(route) for route in ROUTES if route.operator_only} == OPERATOR_ONLY


@pytest.mark.parametrize("role", Role)
async def test_a_route_is_open_to_the_roles_it_is_for_and_to_no_other(service: Service, role: Role) -> None:
    key = await service.key("chunkr", role=role)
    position = await service.position()
    for route in ROUTES:
        nonsense = b"" if route.method in {"GET", "HEAD", "DELETE"} else b"-"  # some change something without a body
        reply = await service.ask(route.method, route.at("-"), key=key, body=nonsense)
        if role in roles_of(route):
            assert reply.status not in {401, 403}, route
        else:
            assert reply.status == 403, route
            assert code_of(route.contract, reply), route
    assert await service.position() == position


@pytest.mark.parametrize(
    ("role", "path", "detail"),
    [
        (Role.CLIENT, "/ledger/v1/tasks", "the key's role is client, and this needs operator or worker"),
        (Role.WORKER, "/ledger/v1/events", "the key's role is worker, and this needs operator"),
    ],
)
async def test_a_key_that_may_not_is_told_which_role_may(service: Service, role: Role, path: str, detail: str) -> None:
    reply = await service.ask("GET", path, key=await service.key("chunkr", role=role), body=b"")
    assert (reply.status, reply.json()["detail"]) == (403, detail)


async def test_no_route_is_open_to_who_shows_no_key(service: Service) -> None:
    for route in ROUTES:
        reply = await service.ask(route.method, route.at("-"))
        if isinstance(route.operation, Open):
            assert reply.status == 200, route
            continue
        assert reply.status == 401, route
        assert code_of(route.contract, reply), route


@pytest.mark.parametrize("role", [Role.WORKER, Role.OPERATOR])
async def test_at_the_bare_root_a_native_key_speaks_the_native_api(service: Service, role: Role) -> None:
    task = await service.create()
    key = await service.key("ledger", role=role)
    reply = await service.ask("GET", f"/v1/tasks/{task['id']}", key=key)
    assert (reply.status, reply.json()) == (200, task)
