"""Adding a vendor: one file with a `Contract` in it, one row in the table of contracts, and its models.

The vendor is made up, and is unlike the four in all that a contract says of itself: how ids are spelled, which header
the key comes in, what the routes are, what a refusal looks like. Nothing else is touched, and its tasks are created,
read and cancelled like anybody's.
"""

from collections.abc import Mapping
from pathlib import Path

import pytest
import typer
from pytest_aiohttp import AiohttpClient

from api.app import make_server
from api.bodies import read_json
from api.bookkeeper import Bookkeeper
from api.callbacks import plan_of
from api.contracts import CONTRACTS, parse_any
from api.contracts.shape import (
    CLIENTS,
    Answer,
    Asked,
    Cancel,
    Contract,
    Order,
    Read,
    Refused,
    Submit,
    Told,
    Wish,
    by_path,
    json_answer,
    keep_for,
)
from api.contracts.telling import OUTCOMES, Fact, Telling, standard_webhooks
from api.mounts import MOUNTS, mount
from ledger import catalogue
from ledger.catalogue import Catalogue
from ledger.commands import CancelPolicy, Effect
from ledger.errors import Refusal
from ledger.events import School
from ledger.ids import Digits, Spelling
from ledger.keys import Role
from ledger.ledger import Ledger
from ledger.memory import MemoryEngine
from ledger.task import Status, Task
from ledger.times import US_PER_SECOND
from scripts import keys
from tests.builders import Watched
from tests.http import (
    ACCOUNT,
    DAY_SECONDS,
    STARTED,
    STRANGER,
    Call,
    Clock,
    Entropy,
    Later,
    Reply,
    Served,
    Service,
    caller,
)

# The vendor's file

SPELLING = Spelling("job-", Digits.UUID)
WORDS = {
    Status.QUEUED: "waiting",
    Status.RUNNING: "busy",
    Status.COMPLETED: "done",
    Status.FAILED: "broken",
    Status.CANCELLED: "stopped",
    Status.EXPIRED: "late",
}


def token(headers: Mapping[str, str]) -> str | None:
    return headers.get("Ocp-Key")


def order(_: Catalogue, asked: Asked) -> Order:
    body = read_json(asked.body, dict[str, str])
    return Order(model=body["model"], input={"text": body["text"]}, metadata={})


def shown(_: Asked, told: Told) -> Answer:
    return json_answer(200, {"job": SPELLING.spell(told.task.task_id), "state": WORDS[told.task.status]})


def refuse(refusal: Refusal, _: Refused) -> Answer:
    return json_answer(418, {"sorry": type(refusal).__name__})


_read = by_path(SPELLING)

CONTRACT = Contract(
    name="teapot",
    spelling=SPELLING,
    school=School.PREPAID,
    roles=CLIENTS,
    operations=(
        Submit("PUT", "/jobs", order, shown),
        Read("GET", "/jobs/{id}", _read, shown),
        Cancel(
            "POST",
            "/jobs/{id}/stop",
            lambda asked: Wish(_read(asked)),
            CancelPolicy(queued=Effect.CANCEL, running=Effect.ASK, terminal=Effect.RETURN),
            shown,
        ),
    ),
    token=token,
    gone=keep_for(DAY_SECONDS * US_PER_SECOND),
    refuse=refuse,
    key_headers=("Ocp-Key",),
)

MODELS = """
version = "1"

[[model]]
contract = "teapot"
name = "kettle-1"
capability = "text-to-image"
provider = "kettle"
school = "prepaid"
price_credits = "2.5"
"""


# Its one row


@pytest.fixture
async def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aiohttp_client: AiohttpClient) -> Service:
    """The service with the fifth row in the table, as it is when the program starts, and the vendor's models."""
    monkeypatch.setitem(CONTRACTS, CONTRACT.name, CONTRACT)
    monkeypatch.setitem(MOUNTS, CONTRACT.name, mount(CONTRACT))
    models = tmp_path / "models.toml"
    models.write_text(MODELS)
    watched, clock = Watched(MemoryEngine()), Clock()
    ledger = await Ledger(watched).start()
    books = Bookkeeper(watched, tmp_path / "books")
    callbacks = caller(ledger, tmp_path, clock)
    server = make_server(
        ledger, catalogue=catalogue.read(models), books=books, callbacks=callbacks, clock=clock, entropy=Entropy()
    )
    return Service(await aiohttp_client(Served(ledger, books, callbacks, server)), ledger, watched, clock)


# Its table of tests

CREATE = Call("PUT", "/jobs", b'{"model":"kettle-1","text":"steam"}')

at_both_mounts = pytest.mark.parametrize("prefix", ["/teapot", ""], ids=["prefix", "root"])


async def issued(service: Service, account: str = ACCOUNT) -> str:
    """A key for the contract, from the native API."""
    reply = await service.native("POST", "/keys", {"account": account, "contract": "teapot"})
    assert reply.status == 201, reply
    key: str = reply.json()["key"]
    return key


async def ask(service: Service, call: Call, key: str, *, prefix: str = "/teapot") -> Reply:
    return await service.send(call.method, prefix + call.path, headers={"Ocp-Key": key}, body=call.body)


def of(reply: Reply) -> tuple[int, str]:
    return reply.status, reply.json()["state"]


@at_both_mounts
async def test_its_tasks_are_created_read_and_cancelled(service: Service, prefix: str) -> None:
    key = await issued(service)
    made = await ask(service, CREATE, key, prefix=prefix)
    assert of(made) == (200, "waiting")
    name = made.json()["job"]
    task = SPELLING.parse(name)
    assert task is not None
    one, stop = Call("GET", f"/jobs/{name}"), Call("POST", f"/jobs/{name}/stop")
    await service.go_on(task, STARTED)
    assert of(await ask(service, one, key, prefix=prefix)) == (200, "busy")
    assert of(await ask(service, stop, key, prefix=prefix)) == (200, "busy")
    assert (await service.seen(task))["cancel_requested"] is True

    queued = (await ask(service, CREATE, key, prefix=prefix)).json()["job"]
    assert of(await ask(service, Call("POST", f"/jobs/{queued}/stop"), key, prefix=prefix)) == (200, "stopped")
    for _ in range(2):  # the second time as a poll
        assert of(await ask(service, Call("GET", f"/jobs/{queued}"), key, prefix=prefix)) == (200, "stopped")


async def test_its_price_is_charged_as_its_school_wants(service: Service) -> None:
    made = await ask(service, CREATE, await issued(service))
    task = SPELLING.parse(made.json()["job"])
    assert task is not None
    assert await service.types(task) == ["created", "charged"]
    assert (await service.seen(task))["billing"]["charged_credits"] == "2.5"
    body = {"account": ACCOUNT, "contract": "teapot", "model": "not-in-the-catalogue", "estimated_credits": "1"}
    of_its_own = await service.native("POST", "/tasks", body, role=Role.WORKER)
    assert of_its_own.json()["billing"]["school"] == "prepaid"


async def test_it_refuses_in_its_own_words(service: Service) -> None:
    key = await issued(service)
    name = (await ask(service, CREATE, key)).json()["job"]
    refusals = {
        "no key": await service.send("GET", f"/teapot/jobs/{name}"),
        "no key, at the root": await service.send("GET", f"/jobs/{name}"),
        "a wrong key": await ask(service, Call("GET", f"/jobs/{name}"), "tl_wrong"),
        "a key in another header": await service.send("GET", f"/jobs/{name}", headers={"Authorization": key}),
        "another account's": await ask(service, Call("GET", f"/jobs/{name}"), await issued(service, STRANGER)),
        "no route": await ask(service, Call("GET", "/nothing"), key),
        "no method": await ask(service, Call("PATCH", "/jobs"), key),
        "no model": await ask(service, CREATE._replace(body=b'{"model":"pan","text":""}'), key),
        "no body": await ask(service, CREATE._replace(body=b"["), key),
    }
    assert {why: reply.json()["sorry"] for why, reply in refusals.items()} == {
        "no key": "Unauthenticated",
        "no key, at the root": "Unauthenticated",
        "a wrong key": "WrongKey",
        "a key in another header": "WrongKey",
        "another account's": "TaskNotFound",
        "no route": "UnknownRoute",
        "no method": "MethodNotAllowed",
        "no model": "UnknownModel",
        "no body": "Invalid",
    }
    assert {reply.status for reply in refusals.values()} == {418}


async def test_two_callers_are_told_apart_by_its_header(service: Service) -> None:
    mine, theirs = await issued(service), await issued(service, STRANGER)
    name = (await ask(service, CREATE, mine)).json()["job"]
    for _ in range(2):
        assert (await ask(service, Call("GET", f"/jobs/{name}"), mine)).status == 200
        assert (await ask(service, Call("GET", f"/jobs/{name}"), theirs)).status == 418
        assert (await service.send("GET", f"/teapot/jobs/{name}")).status == 418


async def test_it_keeps_a_task_for_as_long_as_it_says(service: Service) -> None:
    key = await issued(service)
    name = (await ask(service, CREATE, key)).json()["job"]
    await ask(service, Call("POST", f"/jobs/{name}/stop"), key)
    task = SPELLING.parse(name)
    assert task is not None
    await service.go_on(task, Later(DAY_SECONDS))
    assert (await ask(service, Call("GET", f"/jobs/{name}"), key)).json() == {"sorry": "TaskNotFound"}
    assert (await service.query("beatra", task)).json()["status"] == "canceled"  # which keeps it for 30 days


async def test_its_tasks_are_everybodys_in_their_own_words(service: Service) -> None:
    made = await ask(service, CREATE, await issued(service))
    task = parse_any(made.json()["job"])
    assert task is not None
    others = [name for name in CONTRACTS if name != "teapot"]
    assert len(others) == 4
    for contract in others:
        assert (await service.query(contract, task)).json()["status"] in {"pending", "Starting", "queued"}
    theirs = await service.make("beatra", model="kettle-1", estimated_credits="1")
    read = await ask(service, Call("GET", f"/jobs/{SPELLING.spell(theirs)}"), await issued(service))
    assert of(read) == (200, "waiting")


async def test_the_native_api_and_the_command_line_know_it(service: Service) -> None:
    name = (await ask(service, CREATE, await issued(service))).json()["job"]
    seen = (await service.native("GET", f"/tasks/{name}")).json()
    assert (seen["contract"], seen["public_id"]) == ("teapot", name)
    assert (await service.native("POST", "/keys", {"account": ACCOUNT, "contract": "kettle"})).status == 422
    assert keys._contract("teapot") == "teapot"
    with pytest.raises(typer.BadParameter):
        keys._contract("kettle")
    for role in (Role.WORKER, Role.OPERATOR):
        assert (await ask(service, CREATE, await service.key("teapot", role=role))).json() == {"sorry": "Forbidden"}


async def test_its_tasks_are_called_back_if_its_file_says_how(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"account": ACCOUNT, "contract": "teapot", "model": "kettle-1", "callback_url": "https://example.com/"}
    refused = await service.native("POST", "/tasks", body, role=Role.WORKER)
    assert (refused.status, refused.json()["param"]) == (422, "callback_url")

    def words(task: Task, fact: Fact) -> bytes:
        return f"{WORDS[task.status]} {fact.type}".encode()

    telling = Telling(OUTCOMES, words, standard_webhooks)
    monkeypatch.setitem(CONTRACTS, "teapot", CONTRACT._replace(telling=telling))
    assert (await service.native("POST", "/tasks", body, role=Role.WORKER)).status == 201
    assert plan_of(CONTRACTS).told >= set(OUTCOMES)


def test_without_its_row_it_is_not_there() -> None:
    assert "teapot" not in CONTRACTS
    assert parse_any("job-01563e3a-b5d3-d676-4c61-efb99302bd5b") is None
