"""ByteSpike's account webhooks: their routes as a table, and what they are told."""

import hashlib
import hmac
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ledger.callbacks import WEBHOOKS_MAX
from ledger.memory import MemoryEngine
from ledger.task import Status
from projections.audit.audit import audit
from tests.receiving import BROKEN, FINE, GONE, TO_LOOPBACK, Receiver, receiving
from tests.serving import ACCOUNT, STRANGER, Service, serving
from tests.test_callbacks import over, retry
from tests.wire import Reply

HOOKS = "/bytespike/api/v1/me/webhooks"


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as one:
        yield one


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with serving(MemoryEngine(), calls=TO_LOOPBACK) as running:
        yield running


async def ask(service: Service, method: str, path: str = "", json: Any = None, *, account: str = ACCOUNT) -> Reply:  # noqa: ANN401
    key = await service.key("bytespike", account=account)
    body = {} if json is None else {"json": json}
    return await service.ask(method, HOOKS + path, key=key, **body)


async def added(service: Service, receiver: Receiver, **fields: Any) -> dict[str, Any]:  # noqa: ANN401
    reply = await ask(service, "POST", json={"url": receiver.url, **fields})
    assert reply.status == 201, reply
    hook: dict[str, Any] = reply.json()
    return hook


# The routes


async def test_a_webhook_is_added_and_its_secret_shown_this_once(service: Service, receiver: Receiver) -> None:
    hook = await added(service, receiver)
    assert set(hook) == {"id", "url", "events", "enabled", "created", "secret"}
    assert (hook["url"], hook["enabled"]) == (receiver.url, True)
    assert hook["events"] == ["task.completed", "task.failed", "task.cancelled"]
    assert len(bytes.fromhex(hook["secret"])) == 16, "32 hex digits"
    listed = await ask(service, "GET")
    assert listed.json() == {
        "object": "list",
        "data": [{name: value for name, value in hook.items() if name != "secret"}],
    }


async def test_a_customer_may_bring_a_secret(service: Service, receiver: Receiver) -> None:
    assert (await added(service, receiver, secret="x" * 16))["secret"] == "x" * 16


async def test_it_is_changed_where_the_change_says_so(service: Service, receiver: Receiver) -> None:
    hook = await added(service, receiver)
    changed = await ask(service, "PUT", f"/{hook['id']}", {"events": ["task.failed"], "enabled": False})
    assert changed.status == 200
    assert changed.json() == {
        "id": hook["id"],
        "url": receiver.url,
        "events": ["task.failed"],
        "enabled": False,
        "created": hook["created"],
    }
    assert (await ask(service, "PUT", f"/{hook['id']}", {})).json() == changed.json()


async def test_it_is_removed(service: Service, receiver: Receiver) -> None:
    hook = await added(service, receiver)
    assert (await ask(service, "DELETE", f"/{hook['id']}")).status == 204
    assert (await ask(service, "GET")).json()["data"] == []
    assert (await ask(service, "DELETE", f"/{hook['id']}")).status == 404


@pytest.mark.parametrize(("method", "end"), [("PUT", ""), ("DELETE", ""), ("GET", "/deliveries")])
async def test_anothers_webhook_is_not_there(service: Service, receiver: Receiver, method: str, end: str) -> None:
    hook = await added(service, receiver)
    body = {"enabled": False} if method == "PUT" else None
    theirs = await ask(service, method, f"/{hook['id']}{end}", body, account=STRANGER)
    absent = await ask(service, method, f"/wh_{'0' * 32}{end}", body)
    for reply in (theirs, absent):
        assert (reply.status, reply.json()["error"]["code"]) == (404, "webhook_not_found")
    assert theirs.body == absent.body


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no address": ({}, "url"),
    "no TLS": ({"url": "http://example.com/"}, "url"),
    "an address inside": ({"url": "https://10.0.0.1/"}, "url"),
    "another port": ({"url": "https://example.com:22/"}, "url"),
    "an event that nobody knows": ({"url": "https://example.com/", "events": ["task.started"]}, "events"),
    "no event": ({"url": "https://example.com/", "events": []}, "events"),
    "a short secret": ({"url": "https://example.com/", "secret": "x" * 15}, "secret"),
    "a secret of other characters": ({"url": "https://example.com/", "secret": "x" * 16 + "\n"}, "secret"),
    "a field that nobody knows": ({"url": "https://example.com/", "name": "n"}, "name"),
}


@pytest.mark.parametrize("what", WRONG)
async def test_what_is_wrong_is_a_400_and_changes_nothing(what: str) -> None:
    body, param = WRONG[what]
    async with serving(MemoryEngine()) as service:
        reply = await ask(service, "POST", json=body)
        assert (reply.status, reply.json()["error"]["code"]) == (400, "invalid_param")
        assert param in str(reply.json()["error"])
        assert (await ask(service, "GET")).json()["data"] == []


async def test_there_is_a_most(service: Service, receiver: Receiver) -> None:
    for _ in range(WEBHOOKS_MAX):
        await added(service, receiver)
    reply = await ask(service, "POST", json={"url": receiver.url})
    assert (reply.status, reply.json()["error"]["code"]) == (409, "too_many_webhooks")


# What is told


async def test_it_is_told_of_all_the_accounts_tasks(service: Service, receiver: Receiver) -> None:
    hook = await added(service, receiver)
    for number, (status, event) in enumerate(
        [(Status.COMPLETED, "task.completed"), (Status.FAILED, "task.failed"), (Status.CANCELLED, "task.cancelled")], 1
    ):
        made = await service.bring(status, "bytespike")
        told = (await receiver.until(number))[-1]
        body = told.json()
        assert (body["event"], body["id"]) == (event, told.id)
        assert body["data"]["task_id"] == made["public_id"]
        mark = hmac.new(hook["secret"].encode(), told.body, hashlib.sha256).hexdigest()
        assert told.headers["X-ByteSpike-Signature"] == f"sha256={mark}"
        shown = await over(service, made["id"])
        assert shown["callback"] is None, "it is none of the task's own"
    other = await service.bring(Status.COMPLETED, "lemondata")
    assert (await service.history(other["id"]))[-1]["type"] != "callback-attempted"
    assert (await audit(service.ledger.engine)).findings == ()


async def test_it_is_told_only_what_it_wants_and_nothing_while_it_is_disabled(
    service: Service, receiver: Receiver
) -> None:
    hook = await added(service, receiver, events=["task.failed"])
    await service.bring(Status.COMPLETED, "bytespike")
    failed = await service.bring(Status.FAILED, "bytespike")
    await over(service, failed["id"])
    await ask(service, "PUT", f"/{hook['id']}", {"enabled": False})
    await service.bring(Status.FAILED, "bytespike")
    await ask(service, "PUT", f"/{hook['id']}", {"enabled": True})
    last = await service.bring(Status.FAILED, "bytespike")
    await over(service, last["id"])
    assert [told.json()["data"]["task_id"] for told in receiver.told] == [failed["public_id"], last["public_id"]]


async def test_a_new_secret_signs_alone(service: Service, receiver: Receiver) -> None:
    hook = await added(service, receiver)
    await ask(service, "PUT", f"/{hook['id']}", {"secret": "another secret".replace(" ", "-") + "-x"})
    await over(service, (await service.bring(Status.COMPLETED, "bytespike"))["id"])
    mark = hmac.new(b"another-secret-x", receiver.told[0].body, hashlib.sha256).hexdigest()
    assert receiver.told[0].headers["X-ByteSpike-Signature"] == f"sha256={mark}"


async def test_the_address_of_a_task_and_a_webhook_are_two_and_have_two_ids(
    service: Service, receiver: Receiver
) -> None:
    await added(service, receiver)
    made = await service.bring(Status.COMPLETED, "bytespike", callback_url=receiver.url)
    await over(service, made["id"], 2)
    assert len(set(receiver.ids)) == 2


async def test_410_disables_it(service: Service, receiver: Receiver) -> None:
    receiver.answer = lambda _: GONE
    hook = await added(service, receiver)
    await over(service, (await service.bring(Status.COMPLETED, "bytespike"))["id"])
    for _ in range(500):
        (listed,) = (await ask(service, "GET")).json()["data"]
        if not listed["enabled"]:
            break
    assert listed["enabled"] is False
    await service.bring(Status.COMPLETED, "bytespike")
    assert len(receiver.told) == 1
    assert listed["id"] == hook["id"]


async def test_what_waits_goes_to_where_it_has_moved(service: Service, receiver: Receiver) -> None:
    receiver.answer = lambda _: BROKEN
    hook = await added(service, receiver)
    made = await service.bring(Status.COMPLETED, "bytespike")
    await over(service, made["id"])
    async with receiving() as other:
        await ask(service, "PUT", f"/{hook['id']}", {"url": other.url})
        await retry(service)
        await over(service, made["id"], 2)
        assert other.ids == receiver.ids


async def test_its_deliveries_are_listed_page_by_page(service: Service, receiver: Receiver) -> None:
    receiver.answer = lambda _: FINE if len(receiver.told) < 3 else BROKEN
    hook = await added(service, receiver)
    made = []
    for _ in range(3):
        made.append(await service.bring(Status.COMPLETED, "bytespike"))
        await over(service, made[-1]["id"])
    pages = [
        (await ask(service, "GET", f"/{hook['id']}/deliveries?page={page}&page_size=2")).json() for page in (1, 2, 3)
    ]
    assert [len(page["data"]) for page in pages] == [2, 1, 0]
    assert [(page["page"], page["page_size"], page["total"]) for page in pages] == [(1, 2, 3), (2, 2, 3), (3, 2, 3)]
    newest = pages[0]["data"][0]
    assert set(newest) == {
        "id",
        "event",
        "status",
        "attempts",
        "error",
        "created",
        "last_attempt",
        "next_attempt",
    }
    assert (newest["status"], newest["attempts"], newest["error"]) == ("pending", 1, "500")
    assert newest["next_attempt"] > newest["last_attempt"]
    assert [one["status"] for page in pages for one in page["data"]] == ["pending", "delivered", "delivered"]
    assert [one["id"] for page in pages for one in page["data"]] == receiver.ids[::-1]


async def test_one_that_is_removed_is_told_nothing_more(service: Service, receiver: Receiver) -> None:
    receiver.answer = lambda _: BROKEN
    hook = await added(service, receiver)
    await over(service, (await service.bring(Status.COMPLETED, "bytespike"))["id"])
    await ask(service, "DELETE", f"/{hook['id']}")
    await retry(service)
    await service.bring(Status.COMPLETED, "bytespike")
    listed = (await service.native("GET", "/callbacks?state=all")).json()["callbacks"]
    assert listed == []
    assert len(receiver.told) == 1


async def test_no_secret_of_a_webhook_lies_in_the_log_or_is_logged(service: Service, receiver: Receiver) -> None:
    hook = await added(service, receiver)
    rows = await service.ledger.engine.after(0, 1000)
    assert hook["secret"].encode() not in b"".join(row.entry.facts for row in rows)
    assert hook["secret"] not in service.output()
