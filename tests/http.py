"""The whole service behind an HTTP client, its clock and its entropy in the test's hand.

A task's *history* is data: what is reported of it after its creation, step by step. `Service.make` plays it through
the native API, as a dispatcher and its workers do; what has no route yet goes to the ledger itself.
"""

import hashlib
import json
import shlex
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from aiohttp.test_utils import BaseTestServer, TestClient
from pytest_aiohttp import AiohttpClient

from api.app import make_runner, make_server
from api.bookkeeper import Bookkeeper
from api.callbacks import CallbackSender, Calls
from api.contracts import CONTRACTS, parse_any
from api.settings import CallbackSettings
from ledger import catalogue
from ledger.commands import Delete, Expire, RequestUpdate
from ledger.ids import Spelling, TaskId
from ledger.keys import Role, parse
from ledger.ledger import Ledger
from ledger.times import US_PER_SECOND, rfc3339
from tests.builders import ENGINES, Watched
from tests.rules_dsl import ACCOUNT, CREATED_US, STRANGER

__all__ = ["ACCOUNT", "CREATED_US", "STRANGER"]

CATALOGUE = catalogue.read()
DAY_SECONDS = 86_400
DEADLINE_SECONDS = 3600

MODELS = {"lemondata": "seedance-2.0", "bytespike": "wan-2.6", "chunkr": "chunkr-parse", "beatra": "suno-5.5"}
"""A model of each contract that cancels, and cancels for nothing."""


class Clock:
    """Unix microseconds, as the test sets them; to set them is to make the clock jump, while no time passes."""

    def __init__(self) -> None:
        self.now_us = CREATED_US
        self._passed_us = 0

    def __call__(self) -> int:
        return self.now_us

    def advance(self, seconds: int) -> None:
        self.now_us += seconds * US_PER_SECOND
        self._passed_us += seconds * US_PER_SECOND

    def passed_us(self) -> int:
        """Time as it passes."""
        return self._passed_us


class Entropy:
    """Bytes that look random and are the same in every run."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(self, size: int) -> bytes:
        self._count += 1
        return hashlib.shake_128(self._count.to_bytes(8, "big")).digest(size)


# Histories


class Reported(NamedTuple):
    """A worker reports an event."""

    fields: Mapping[str, Any]


class Later(NamedTuple):
    """Time passes."""

    seconds: int


class CancelAsked(NamedTuple):
    """The operator asks to cancel: a queued task is cancelled, the worker of a running one is to confirm."""


class DeadlinePassed(NamedTuple):
    """The task's deadline has passed, and the sweep has found it so."""


class UpdateAsked(NamedTuple):
    """Its owner asks for another run, under another configuration."""

    input: Mapping[str, Any]


class DeleteAsked(NamedTuple):
    """Its owner deletes it."""


Step: TypeAlias = Reported | Later | CancelAsked | DeadlinePassed | UpdateAsked | DeleteAsked
History: TypeAlias = tuple[Step, ...]


def reported(kind: str, **fields: Any) -> Reported:  # noqa: ANN401 - fields of the report
    return Reported({"type": kind, **fields})


STARTED = reported("started")
COMPLETED = reported("completed")
FAILED = reported("failed", code="broke", message="It broke.")
CONFIRMED = reported("cancelled")


def progressed(percent: int, **fields: str) -> Reported:
    return reported("progressed", percent=percent, **fields)


# Requests and replies


class Call(NamedTuple):
    """A request to a contract, by its own path."""

    method: str
    path: str
    body: bytes | None = None


class Reply(NamedTuple):
    """An answer. Header names are looked up in any case."""

    status: int
    body: str
    headers: Mapping[str, str]

    def json(self) -> Any:  # noqa: ANN401 - whatever JSON holds
        return json.loads(self.body)


def spell(contract: str, task: TaskId) -> str:
    """The task's id as *contract* writes it."""
    return CONTRACTS[contract].spelling.spell(task)


def query(contract: str, task: TaskId) -> Call:
    """The plainest form of the contract's query."""
    spelled = spell(contract, task)
    match contract:
        case "bytespike":
            return Call("POST", "/v1/tasks/query", compact({"task_id": spelled}).encode())
        case "chunkr":
            return Call("GET", f"/api/v1/task/{spelled}")
        case _:
            return Call("GET", f"/v1/tasks/{spelled}")


def cancel(contract: str, task: TaskId) -> Call:
    """The plainest form of the contract's cancel."""
    spelled = spell(contract, task)
    match contract:
        case "lemondata":
            return Call("DELETE", f"/v1/tasks/{spelled}")
        case "bytespike":
            return Call("POST", f"/v1/tasks/cancel/{spelled}")
        case "chunkr":
            return Call("GET", f"/api/v1/task/{spelled}/cancel")
        case _:
            return Call("POST", f"/v1/tasks/{spelled}/cancel")


Way: TypeAlias = Callable[[str, TaskId], Call]
both_ways = pytest.mark.parametrize("way", [query, cancel], ids=["query", "cancel"])


def shown(contract: str, key: str) -> dict[str, str]:
    """The headers in which a client of *contract* shows its key."""
    return {"Authorization": key if contract == "chunkr" else f"Bearer {key}"}


def compact(document: object) -> str:
    """The document in the bytes that we would send: no blanks, members in order."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False)


def one_line(text: str) -> str:
    """A body that a table breaks into lines, as it is sent."""
    return "".join(line.strip() for line in text.splitlines())


# The service


class Service:
    """The running service, and all that a test asks of it."""

    def __init__(
        self, client: TestClient[web.BaseRequest, None], ledger: Ledger, watched: Watched, clock: Clock
    ) -> None:
        self.ledger, self.watched, self.clock = ledger, watched, clock
        self._client = client
        self._keys: dict[tuple[str, str, Role], str] = {}

    @property
    def base_url(self) -> str:
        return str(self._client.make_url("/")).rstrip("/")

    async def key(self, contract: str, *, account: str = ACCOUNT, role: Role = Role.CLIENT) -> str:
        """The account's key for the contract, the same at every call."""
        wanted = (contract, account, role)
        if wanted not in self._keys:
            self._keys[wanted] = await self._issue(contract, account=account, role=role)
        return self._keys[wanted]

    async def revoke(self, contract: str) -> None:
        """The key that `ACCOUNT` has for the contract is dead from now on."""
        await self._revoke(await self.key(contract))

    async def revoked_key(self, contract: str) -> str:
        """Another key of `ACCOUNT`, which is dead already."""
        key = await self._issue(contract, account=ACCOUNT, role=Role.CLIENT)
        self.clock.advance(1)
        await self._revoke(key)
        return key

    async def _issue(self, contract: str, *, account: str, role: Role) -> str:
        at_us = self.clock()
        new = await self.ledger.keys.issue(account=account, contract=contract, role=role, by="test", at_us=at_us)
        return new.key

    async def _revoke(self, key: str) -> None:
        token = parse(key)
        assert token is not None
        await self.ledger.keys.revoke(token.key_id, by="test", at_us=self.clock())

    # Asking

    async def send(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Reply:
        """Send this and nothing else."""
        request = self._client.request(
            method,
            path,
            headers=headers,
            data=None if body is None else BytesIO(body),
            allow_redirects=False,
            skip_auto_headers=("Content-Type", "Accept", "User-Agent"),
        )
        async with request as response:
            return Reply(response.status, (await response.read()).decode(), response.headers)

    async def ask(
        self, contract: str, call: Call, *, prefix: str | None = None, account: str = ACCOUNT, **headers: str
    ) -> Reply:
        """Ask as a client of *contract*, under its prefix or another one; in *headers* underscores are hyphens."""
        told = shown(contract, await self.key(contract, account=account))
        told |= {name.replace("_", "-"): value for name, value in headers.items()}
        mount = f"/{contract}" if prefix is None else prefix
        return await self.send(call.method, mount + call.path, headers=told, body=call.body)

    async def query(self, contract: str, task: TaskId, *, prefix: str | None = None, account: str = ACCOUNT) -> Reply:
        return await self.ask(contract, query(contract, task), prefix=prefix, account=account)

    async def cancel(self, contract: str, task: TaskId, *, prefix: str | None = None, account: str = ACCOUNT) -> Reply:
        return await self.ask(contract, cancel(contract, task), prefix=prefix, account=account)

    async def curl(self, line: str, place: Mapping[str, str], *, prefix: str = "") -> Reply:
        """Send what a documented command line sends, with what *place* puts in place of the document's names."""
        for theirs, ours in place.items():
            assert theirs in line
            line = line.replace(theirs, ours)
        command, *words = shlex.split(line)
        assert command == "curl"
        method, url, headers, body = "GET", "", {}, None
        while words:
            match words.pop(0):
                case "-X":
                    method = words.pop(0)
                case "-H":
                    name, _, value = words.pop(0).partition(": ")
                    headers[name] = value
                case "-d":
                    body = words.pop(0).encode()
                case word:
                    url = word
        return await self.send(method, prefix + urlsplit(url).path, headers=headers, body=body)

    # The native API

    async def native(self, method: str, path: str, body: object = None, *, role: Role = Role.OPERATOR) -> Reply:
        return await self.send(
            method,
            f"/ledger/v1{path}",
            headers=shown("ledger", await self.key("ledger", role=role)),
            body=None if body is None else json.dumps(body).encode(),
        )

    async def seen(self, task: TaskId) -> dict[str, Any]:
        """The task as the operator sees it."""
        reply = await self.native("GET", f"/tasks/{Spelling.UUID.spell(task)}")
        assert reply.status == 200, reply
        seen: dict[str, Any] = reply.json()
        return seen

    async def types(self, task: TaskId) -> list[str]:
        """What happened to the task."""
        reply = await self.native("GET", f"/tasks/{Spelling.UUID.spell(task)}/events")
        assert reply.status == 200, reply
        return [event["type"] for event in reply.json()["events"]]

    async def make(self, contract: str, history: History = (), **fields: Any) -> TaskId:  # noqa: ANN401
        """A new task of `ACCOUNT`, to which *history* has happened; *fields* are those of its create."""
        body = {"account": ACCOUNT, "contract": contract, "model": MODELS[contract], **fields}
        if DeadlinePassed() in history:
            body.setdefault("expires_at", rfc3339(self.clock() + DEADLINE_SECONDS * US_PER_SECOND))
        reply = await self.native("POST", "/tasks", body, role=Role.WORKER)
        assert reply.status == 201, reply
        task = parse_any(reply.json()["id"])
        assert task is not None
        await self.go_on(task, *history)
        return task

    async def go_on(self, task: TaskId, *history: Step) -> None:
        """More happens to *task*."""
        for step in history:
            await self._step(task, step)

    async def _step(self, task: TaskId, step: Step) -> None:
        path = f"/tasks/{Spelling.UUID.spell(task)}"
        match step:
            case Reported(fields):
                reply = await self.native("POST", f"{path}/events", fields, role=Role.WORKER)
                assert reply.status == 200, reply
            case Later(seconds):
                self.clock.advance(seconds)
            case CancelAsked():
                reply = await self.native("POST", f"{path}/cancel")
                assert reply.status in {200, 202}, reply
            case DeadlinePassed():
                found = (await self.ledger.task(task, account=None)).task
                assert found.expires_at_us is not None
                self.clock.now_us = found.expires_at_us
                await self.ledger.handle(Expire(task_id=task, at_us=self.clock(), actor="sweep"))
            case UpdateAsked(configuration):
                await self.ledger.handle(
                    RequestUpdate(
                        task_id=task, at_us=self.clock(), actor="test", account=ACCOUNT, input=dict(configuration)
                    )
                )
            case DeleteAsked():
                await self.ledger.handle(Delete(task_id=task, at_us=self.clock(), actor="test", account=ACCOUNT))


class Served(BaseTestServer):
    """The service on a port, with its ledger."""

    def __init__(self, ledger: Ledger, books: Bookkeeper, callbacks: CallbackSender, server: web.Server) -> None:
        super().__init__()
        self._ledger, self._books, self._callbacks, self._server = ledger, books, callbacks, server

    async def _make_runner(self, **_: object) -> web.ServerRunner:
        return make_runner(self._server, drain_seconds=5)

    async def close(self) -> None:
        await super().close()
        await self._callbacks.close()
        await self._books.close()
        await self._ledger.close()


def caller(ledger: Ledger, folder: Path, clock: Callable[[], int], calls: Calls | None = None) -> CallbackSender:
    """What calls back for *ledger*, to receivers in the internet unless *calls* says otherwise."""
    calls = calls or CallbackSettings().calls()
    return CallbackSender(ledger, folder / "callbacks", contracts=CONTRACTS, clock=clock, calls=calls)


async def serve(engine: str, folder: Path, aiohttp_client: AiohttpClient) -> Service:
    """The service over a new log in an *engine* of `ENGINES`; it ends with the client."""
    watched, clock = Watched(await ENGINES[engine].open(folder)), Clock()
    ledger = Ledger(watched)
    books = Bookkeeper(watched, folder / "books")
    callbacks = caller(ledger, folder, clock)
    server = make_server(
        await ledger.start(), catalogue=CATALOGUE, books=books, callbacks=callbacks, clock=clock, entropy=Entropy()
    )
    client: TestClient[web.BaseRequest, None] = await aiohttp_client(Served(ledger, books, callbacks, server))
    return Service(client, ledger, watched, clock)
