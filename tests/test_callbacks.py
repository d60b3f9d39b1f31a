"""Callbacks from end to end: an outcome in the log, a request at the receiver, and its try as an event."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ledger.callbacks import DAY_SECONDS, callback_id
from ledger.ids import TaskId
from ledger.keys import Role
from ledger.memory import MemoryEngine
from ledger.sqlite import open_to_serve
from ledger.times import US_PER_DAY, parse_rfc3339
from projections.audit.audit import audit
from tests.receiving import BROKEN, FINE, GONE, HANGS, RESETS, TO_LOOPBACK, Receiver, Told, receiving
from tests.serving import ACCOUNT, Service, serving, spelled

FOUND = {"assets": [{"kind": "video", "url": "https://cdn.example.test/1.mp4"}]}


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as one:
        yield one


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with serving(MemoryEngine(), calls=TO_LOOPBACK) as running:
        yield running


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await condition():  # noqa: ASYNC110 - another's state is asked for
            await asyncio.sleep(0.005)


async def over(service: Service, task: str, attempts: int = 1) -> dict[str, Any]:
    """The task, once so many tries are on record."""

    async def tried() -> bool:
        history = await service.history(task)
        return [event["type"] for event in history].count("callback-attempted") >= attempts

    await until(tried)
    return await service.task(task)


async def ended(service: Service, url: str, contract: str = "bytespike", **fields: Any) -> str:  # noqa: ANN401
    """A completed task that is to be called back."""
    task: str = (await service.create(contract, callback_url=url, **fields))["id"]
    await service.reported(task, "completed", output=FOUND)
    return task


async def retry(service: Service) -> None:
    """Time passes until whatever failed is due again."""
    service.clock.advance(8 * 3600)
    assert service.callbacks is not None
    service.callbacks.look()


# What is told


async def test_an_outcome_is_posted_and_the_try_is_an_event(service: Service, receiver: Receiver) -> None:
    task = await ended(service, receiver.url)
    (told,) = await receiver.until(1)
    shown = await over(service, task)
    assert shown["callback"] == {
        "url": receiver.url,
        "attempts": 1,
        "delivered_at": shown["callback"]["delivered_at"],
        "last_error": None,
        "gave_up": False,
    }
    assert shown["callback"]["delivered_at"] is not None
    history = await service.history(task)
    about = next(event["version"] for event in history if event["type"] == "completed")
    assert told.id == callback_id(spelled(task), about, None)
    assert history[-1]["data"] == {
        "type": "callback-attempted",
        "at_us": history[-1]["data"]["at_us"],
        "attempt": 1,
        "delivered": True,
        "about": about,
    }
    assert history[-1]["actor"] == "callbacks"


STATES = {
    "lemondata": ("completed", "failed", "failed", "failed"),
    "bytespike": ("completed", "failed", "cancelled", "failed"),
    "beatra": ("succeeded", "failed", "canceled", "failed"),
}


@pytest.mark.parametrize("contract", STATES)
async def test_each_outcome_is_told_as_the_contracts_query_shows_it(
    service: Service, receiver: Receiver, contract: str
) -> None:
    from ledger.task import Status  # noqa: PLC0415

    ends = (Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.EXPIRED)
    for number, (status, word) in enumerate(zip(ends, STATES[contract], strict=True), 1):
        fields = {"expires_at": "2026-02-01T00:00:00Z"} if status is Status.EXPIRED else {}
        made = await service.bring(status, contract, callback_url=receiver.url, **fields)
        told = (await receiver.until(number))[-1]
        body = told.json()
        assert body["status"] == word
        if contract == "beatra":
            assert body.pop("callback")["status"] == "pending", "as of the event that is told"
        shown = await over(service, made["id"])
        assert told.headers["Content-Type"] == "application/json"
        assert shown["callback"]["delivered_at"] is not None


async def test_a_body_says_what_the_customer_would_read(service: Service, receiver: Receiver) -> None:
    task = await ended(service, receiver.url, out_task_id="order-1")
    (told,) = await receiver.until(1)
    body = msgspec.json.encode({"out_task_id": "order-1"})
    key = await service.key("bytespike")
    read = await service.ask("POST", "/bytespike/v1/tasks/query", key=key, body=body)
    assert told.body == read.body
    assert told.json()["credits_used"] > 0, "the money of the same commit is told"
    assert told.json()["task_id"].endswith(read.json()["task_id"][-26:])
    await over(service, task)


async def test_chunkr_tells_every_change_of_status_in_order(service: Service, receiver: Receiver) -> None:
    task = (await service.create("chunkr", callback_url=receiver.url))["id"]
    await service.reported(task, "started")
    await service.reported(task, "progressed", percent=5, message="reading")
    await service.reported(task, "completed", output={})
    told = [one.json() for one in await receiver.until(2)]
    assert [one["status"] for one in told] == ["Processing", "Succeeded"]
    assert told[0]["event_type"] == "task.parse.updated"
    assert set(told[0]) == {"event_type", "task_id", "status", "message"}
    assert {"svix-id", "svix-timestamp", "svix-signature"} <= {name.lower() for name in receiver.told[0].headers}
    await over(service, task, 2)


async def test_what_has_been_erased_is_not_told(service: Service, receiver: Receiver) -> None:
    receiver.answer = lambda _: BROKEN
    task = await ended(service, receiver.url, "chunkr", input={"prompt": "my secret"})
    await over(service, task)
    key = await service.key("chunkr")
    assert (await service.ask("DELETE", f"/chunkr/api/v1/task/{task}", key=key)).status == 200
    receiver.answer = lambda _: FINE
    await retry(service)
    await receiver.until(2)
    await over(service, task, 2)
    assert b"secret" not in receiver.told[-1].body
    assert b"cdn.example" not in receiver.told[-1].body
    assert receiver.ids[0] == receiver.ids[1]


# What goes wrong

FAILURES: dict[str, Callable[[Told], int]] = {"500": lambda _: BROKEN, "connection failed": lambda _: RESETS}


@pytest.mark.parametrize("reason", FAILURES)
async def test_a_try_that_failed_comes_again_under_the_same_id(
    service: Service, receiver: Receiver, reason: str
) -> None:
    receiver.answer = FAILURES[reason]
    task = await ended(service, receiver.url)
    shown = await over(service, task)
    assert shown["callback"]["delivered_at"] is None
    assert shown["callback"]["last_error"] in {reason, "connection reset"}
    receiver.answer = lambda _: FINE
    await retry(service)
    await receiver.until(2)
    shown = await over(service, task, 2)
    assert (shown["callback"]["attempts"], shown["callback"]["last_error"]) == (2, None)
    assert len(set(receiver.ids)) == 1
    assert "secret" not in service.output()
    assert all("secret" not in str(event["data"]) for event in await service.history(task))


async def test_a_redirect_is_not_followed(service: Service, receiver: Receiver) -> None:
    async with receiving() as other:
        receiver.answer, receiver.headers = lambda _: 307, {"Location": other.url}
        task = await ended(service, receiver.url)
        shown = await over(service, task)
        assert shown["callback"]["last_error"] == "307"
        assert other.told == []


async def test_410_ends_it_at_once(service: Service, receiver: Receiver) -> None:
    receiver.answer = lambda _: GONE
    task = await ended(service, receiver.url)
    shown = await over(service, task)
    assert (shown["callback"]["gave_up"], shown["callback"]["last_error"]) == (True, "410")
    await retry(service)
    dead = (await service.native("GET", "/callbacks")).json()["callbacks"]
    assert [(one["task"], one["state"], one["error"]) for one in dead] == [(task, "dead", "410")]
    assert len(receiver.told) == 1


async def test_it_is_given_up_in_the_end_seen_and_sent_again(service: Service, receiver: Receiver) -> None:
    receiver.answer = lambda _: BROKEN
    task = await ended(service, receiver.url, "beatra")
    for attempt in range(1, len(DAY_SECONDS) + 2):
        shown = await over(service, task, attempt)
        assert shown["callback"]["gave_up"] is (attempt > len(DAY_SECONDS))
        await retry(service)
    (dead,) = (await service.native("GET", "/callbacks")).json()["callbacks"]
    assert dead["attempts"] == len(DAY_SECONDS) + 1
    seen = await service.ask("GET", f"/beatra/v1/tasks/tsk_{_ulid(task)}", key=await service.key("beatra"))
    assert seen.json()["callback"]["status"] == "failed"

    receiver.answer = lambda _: FINE
    reply = await service.native("POST", f"/callbacks/{dead['id']}/resend", {"reason": "they were down"})
    assert (reply.status, reply.json()["id"]) == (202, dead["id"])
    shown = await over(service, task, len(DAY_SECONDS) + 2)
    assert shown["callback"]["delivered_at"] is not None
    assert len(set(receiver.ids)) == 1, "one id across all tries, those of another day too"
    assert (await service.native("GET", "/callbacks")).json()["callbacks"] == []
    report = await audit(service.ledger.engine)
    assert report.findings == ()


def _ulid(task: str) -> str:
    from ledger.ids import ulid  # noqa: PLC0415

    return ulid(spelled(task))


@pytest.mark.parametrize("body", [{}, msgspec.UNSET], ids=["empty object", "no body"])
async def test_a_callback_that_nobody_knows_is_a_404(service: Service, body: object) -> None:
    reply = await service.native("POST", "/callbacks/msg_0/resend", body)
    assert (reply.status, reply.json()["code"]) == (404, "callback_not_found")


async def test_one_that_hangs_holds_up_no_other(service: Service, receiver: Receiver) -> None:
    async with receiving() as stuck:
        stuck.answer = lambda _: HANGS
        for _ in range(20):
            await ended(service, stuck.url)
        await stuck.until(1)
        tasks = [await ended(service, receiver.url) for _ in range(20)]
        await receiver.until(20)
        for task in tasks:
            await over(service, task)
        assert len(stuck.told) == 1, "a line that does not answer has one try under way, and no more"


async def test_a_cancel_and_a_report_do_not_wait_for_a_receiver(service: Service) -> None:
    async with receiving() as stuck:
        stuck.answer = lambda _: HANGS
        task = await ended(service, stuck.url)
        await stuck.until(1)
        assert (await service.task(task))["status"] == "completed"
        other = (await service.create("bytespike", callback_url=stuck.url))["id"]
        assert (await service.native("POST", f"/tasks/{other}/cancel")).status == 200


async def test_the_events_of_a_task_are_told_in_order(service: Service, receiver: Receiver) -> None:
    receiver.answer = lambda _: BROKEN if len(receiver.told) < 3 else FINE
    task = (await service.create("chunkr", callback_url=receiver.url))["id"]
    await service.reported(task, "started")
    await over(service, task)
    await service.reported(task, "completed", output={})
    for _ in range(4):
        await retry(service)
        await asyncio.sleep(0.05)
    await over(service, task, 4)
    assert [one.json()["status"] for one in receiver.told] == ["Processing"] * 3 + ["Succeeded"]


# The log drives it


async def test_a_queue_that_is_thrown_away_is_made_again_and_nothing_is_posted_twice(
    tmp_path: Path, receiver: Receiver
) -> None:
    path = tmp_path / "ledger.db"
    async with serving(await open_to_serve(path), calls=TO_LOOPBACK) as service:
        receiver.answer = lambda told: BROKEN if told.json()["status"] == "failed" else FINE
        done = [await ended(service, receiver.url) for _ in range(3)]
        for task in done:
            await over(service, task)
        late = (await service.create("bytespike", callback_url=receiver.url))["id"]
        await service.reported(late, "failed", code="broke")
        await over(service, late)
        told = len(receiver.told)
    async with serving(await open_to_serve(path), calls=TO_LOOPBACK) as service:  # in another folder: a new queue
        listed = await _listed(service)
        assert sorted(one["state"] for one in listed) == ["delivered"] * 3 + ["waiting"]
        await asyncio.sleep(0.2)
        assert len(receiver.told) == told
        receiver.answer = lambda _: FINE
        await retry(service)
        await over(service, late, 2)
        assert receiver.ids[-1] == receiver.ids[-2]


async def _listed(service: Service) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await service.native("GET", "/callbacks?state=all")).json()["callbacks"]
    return found


async def test_the_queue_holds_no_content_and_no_secret(service: Service, receiver: Receiver) -> None:
    await over(service, await ended(service, receiver.url, input={"prompt": "my secret prompt"}))
    assert service.callbacks is not None
    secret = (await service.native("GET", f"/accounts/{ACCOUNT}/callback-secret")).json()["secret"]
    with closing(sqlite3.connect(service.callbacks.path)) as db:
        dump = "\n".join(db.iterdump())
    assert "my secret prompt" not in dump
    assert "cdn.example" not in dump
    assert secret not in dump


@pytest.mark.parametrize("body", [b"", b"{}"])
async def test_a_secret_is_rotated_without_a_body_too_and_the_old_one_signs_for_a_day(
    service: Service, body: bytes
) -> None:
    path = f"/ledger/v1/accounts/{ACCOUNT}/callback-secret"
    before = (await service.ask("GET", path, key=service.operator)).json()
    after = await service.ask("POST", f"{path}/rotate", key=service.operator, body=body)
    told = after.json()
    assert (after.status, told["old_secrets"]) == (201, [before["secret"]])
    assert parse_rfc3339(told["old_until"]) == service.clock() + US_PER_DAY


async def test_callbacks_are_for_operators(service: Service) -> None:
    for method, path in (("GET", "/callbacks"), ("GET", f"/accounts/{ACCOUNT}/callback-secret")):
        assert (await service.native(method, path, key=service.worker)).status == 403


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/x",
        "https://10.0.0.1/",
        "https://example.com:22/",
        "https://[::1]/",
        "https://169.254.169.254/",
    ],
)
async def test_an_address_that_is_never_posted_to_is_refused_when_it_is_given(url: str) -> None:
    async with serving(MemoryEngine()) as service:
        worker = await service.native("POST", "/tasks", _body("bytespike", url), key=service.worker)
        assert (worker.status, worker.json()["param"]) == (422, "callback_url")
        key = await service.key("bytespike", role=Role.CLIENT)
        body = {"model": "wan-2.6", "params": {}, "callback_url": url}
        client = await service.ask("POST", "/bytespike/v1/tasks/submit", key=key, json=body)
        assert (client.status, client.json()["error"]["param"]) == (400, "callback_url")


def _body(contract: str, url: str) -> dict[str, Any]:
    return {"account": ACCOUNT, "contract": contract, "model": "wan-2.6", "callback_url": url}


def test_ids_are_of_task_event_and_webhook() -> None:
    task = TaskId(bytes(range(16)))
    names = {callback_id(task, 1, None), callback_id(task, 2, None), callback_id(task, 1, "wh_1")}
    assert len(names) == 3
    assert callback_id(task, 1, None) == "msg_" + callback_id(task, 1, None)[4:]
