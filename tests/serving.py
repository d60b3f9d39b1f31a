"""The service under test: in this process, over any engine, on a clock that the test moves."""

import asyncio
import io
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import msgspec
import structlog
from aiohttp import web

from api import logs
from api.app import make_runner, make_server
from api.bookkeeper import Bookkeeper
from api.callbacks import CallbackSender, Calls
from api.connections import Allowance, Connections
from api.contracts import CONTRACTS, parse_any
from api.contracts.shape import Act, Operation
from api.followers import Followers
from api.limits import Limits
from api.mounts import MOUNTS
from api.stays import StayLimits
from api.sweep import Sweeper
from api.traces import Traces
from ledger.catalogue import read
from ledger.commands import Expire
from ledger.engine import Engine
from ledger.ids import Digits, Spelling, TaskId
from ledger.keys import Role
from ledger.ledger import QUEUE_MAX, Ledger
from ledger.silence import Patience
from ledger.task import Status
from tests.builders import ACCOUNT, CREATED_US, STRANGER
from tests.http import MODELS, Call, Clock, caller
from tests.wire import Reply, Wire, request

__all__ = ["ACCOUNT", "CREDITED", "MODELS", "ROUTES", "STRANGER", "VENDORS", "Clock", "Route", "Service", "serving"]

VENDORS = tuple(CONTRACTS)
CREDITED = "initech"
"""The account of paths that name one."""
CATALOGUE = read()


class Route(NamedTuple):
    """A row of a contract's table, under the contract's prefix."""

    contract: str
    operation: Operation

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def method(self) -> str:
        return self.operation.method

    @property
    def path(self) -> str:
        return f"/{self.contract}{self.operation.path}"

    @property
    def has_id(self) -> bool:
        return "{id}" in self.path

    @property
    def about_keys(self) -> bool:
        return "/keys" in self.path

    @property
    def about_breaks(self) -> bool:
        return "/breaks/" in self.path

    @property
    def about_webhooks(self) -> bool:
        return "/webhooks/" in self.path

    @property
    def about_callbacks(self) -> bool:
        return "/callbacks/" in self.path

    @property
    def operator_only(self) -> bool:
        return isinstance(self.operation, Act) and self.operation.operator_only

    @property
    def spelling(self) -> Spelling:
        """How the ids are spelled that the path takes."""
        if self.about_webhooks:
            return Spelling("wh_", Digits.HEX)
        if self.about_callbacks:
            return Spelling("msg_", Digits.HEX)
        return MOUNTS[self.contract].contract.spelling

    def at(self, name: str) -> str:
        """The path with *name* in the place of the id, and an account that no task belongs to in that of an account."""
        return self.path.replace("{id}", name).replace("{account}", CREDITED)


ROUTES = [Route(name, operation) for name, mount in MOUNTS.items() for operation in mount.contract.operations]
"""Every route of every contract: a new row is under test without a line here."""


class Service:
    """A running service and all that a test does with it."""

    def __init__(
        self, ledger: Ledger, clock: Clock, port: int, lines: logs.Lines, out: io.StringIO, *, sweeper: Sweeper
    ) -> None:
        self.ledger, self.clock, self.port = ledger, clock, port
        self.sweeper = sweeper
        self._lines, self._out = lines, out
        self._idle: list[Wire] = []
        self._keys: dict[tuple[str, str, Role], str] = {}
        self.operator = self.worker = ""
        self.books_path = Path()
        self.callbacks: CallbackSender | None = None
        self.books: Bookkeeper | None = None
        self.connections = Connections(Allowance())

    # Keys

    async def key(self, contract: str, *, account: str = ACCOUNT, role: Role = Role.CLIENT) -> str:
        """A key of *account* for *contract*, the same at every call."""
        wanted = (contract, account, role)
        if wanted not in self._keys:
            new = await self.ledger.keys.issue(
                account=account, contract=contract, role=role, by="test", at_us=self.clock()
            )
            self._keys[wanted] = new.key
        return self._keys[wanted]

    async def key_for(self, route: Route) -> str:
        """A key that may take *route*."""
        return self.operator if route.contract == "ledger" else await self.key(route.contract)

    # Requests

    async def send(self, sent: bytes, *, method: str = "GET") -> Reply:
        """Send these very bytes."""
        wire = self._idle.pop() if self._idle else Wire("127.0.0.1", self.port)
        try:
            return await wire.send(sent, method=method)
        finally:
            self._idle.append(wire)

    async def ask(
        self,
        method: str,
        target: str | bytes,
        *,
        key: str | None = None,
        json: object = msgspec.UNSET,
        body: bytes = b"",
        headers: Iterable[tuple[str, str | bytes]] = (),
    ) -> Reply:
        """Ask with *key* as a bearer's."""
        told = [*headers]
        if key is not None:
            told.append(("Authorization", f"Bearer {key}"))
        if json is not msgspec.UNSET:
            body = msgspec.json.encode(json)
        return await self.send(request(method, target, headers=told, body=body), method=method)

    async def client(self, contract: str, call: Call, *headers: tuple[str, str]) -> Reply:
        """Ask as `ACCOUNT`, a client of *contract*."""
        path, key = f"/{contract}{call.path}", await self.key(contract)
        return await self.ask(call.method, path, key=key, body=call.body or b"", headers=headers)

    async def native(
        self, method: str, path: str, json: object = msgspec.UNSET, *, key: str | None = None, **headers: str
    ) -> Reply:
        """Ask the native API as the operator; *headers* with underscores for their hyphens."""
        told = [(name.replace("_", "-"), value) for name, value in headers.items()]
        return await self.ask(method, "/ledger/v1" + path, key=key or self.operator, json=json, headers=told)

    async def create(self, contract: str = "lemondata", **fields: Any) -> dict[str, Any]:  # noqa: ANN401
        """A new task of `ACCOUNT`, as the native API shows it."""
        body = {"account": ACCOUNT, "contract": contract, "model": MODELS[contract]} | fields
        reply = await self.native("POST", "/tasks", body, key=self.worker)
        assert reply.status == 201, reply
        task: dict[str, Any] = reply.json()
        return task

    async def report(self, task: str, kind: str, **fields: Any) -> Reply:  # noqa: ANN401 - fields of the report
        return await self.native("POST", f"/tasks/{task}/events", {"type": kind, **fields}, key=self.worker)

    async def reported(self, task: str, kind: str, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - as above
        """The task after a report that must be taken."""
        reply = await self.report(task, kind, **fields)
        assert reply.status == 200, reply
        shown: dict[str, Any] = reply.json()
        return shown

    async def task(self, task: str) -> dict[str, Any]:
        reply = await self.native("GET", f"/tasks/{task}")
        assert reply.status == 200, reply
        shown: dict[str, Any] = reply.json()
        return shown

    async def history(self, task: str) -> list[dict[str, Any]]:
        reply = await self.native("GET", f"/tasks/{task}/events")
        assert reply.status == 200, reply
        events: list[dict[str, Any]] = reply.json()["events"]
        return events

    async def bring(self, status: Status, contract: str = "lemondata", **fields: Any) -> dict[str, Any]:  # noqa: ANN401
        """A new task that has got as far as *status*."""
        task = (await self.create(contract, **fields))["id"]
        match status:
            case Status.RUNNING:
                await self.reported(task, "started")
            case Status.COMPLETED:
                await self.reported(task, "completed", output={"assets": []})
            case Status.FAILED:
                await self.reported(task, "failed", code="broke", message="It broke.")
            case Status.CANCELLED:
                assert (await self.native("POST", f"/tasks/{task}/cancel")).status == 200
            case Status.EXPIRED:
                await self._expire(task)
            case _:
                assert status is Status.QUEUED
        return await self.task(task)

    async def _expire(self, task: str) -> None:
        found = await self.ledger.task(spelled(task), account=None)
        deadline_us = found.task.expires_at_us
        assert deadline_us is not None, "only a task with a deadline expires"
        await self.ledger.handle(Expire(task_id=found.task.task_id, at_us=deadline_us, actor="sweep"))

    # What it left behind

    async def position(self) -> int:
        """The end of the log."""
        return (await self.ledger.engine.head()).position

    def output(self) -> str:
        """All that has been logged."""
        self._lines.flush()
        return self._out.getvalue()

    def logged(self, event: str = "http.answered") -> list[dict[str, Any]]:
        """The log's lines about *event*."""
        lines = [msgspec.json.decode(line) for line in self.output().splitlines()]
        return [line for line in lines if line["event"] == event]

    async def hang_up(self) -> None:
        for wire in self._idle:
            await wire.close()


def spelled(task: str) -> TaskId:
    """The id that is spelled *task*."""
    found = parse_any(task)
    assert found is not None
    return found


async def queued(service: Service, count: int) -> None:
    """Returns when so many commands wait for their turn."""
    async with asyncio.timeout(30):
        while service.ledger.writer.queued < count:  # noqa: ASYNC110 - the queue tells nobody how long it is
            await asyncio.sleep(0.001)


@asynccontextmanager
async def serving(
    engine: Engine,
    *,
    queue_max: int = QUEUE_MAX,
    limits: Limits | None = None,
    patience: Patience | None = None,
    waiting: StayLimits | None = None,
    allowance: Allowance | None = None,
    traces: Traces | None = None,
    log_format: logs.Format = logs.Format.JSON,
    is_followed: bool = False,
    now_us: int = CREATED_US,
    calls: Calls | None = None,
) -> AsyncIterator[Service]:
    """The service over *engine*, which it closes; nothing follows its log unless it *is_followed* or *calls* back."""
    out = io.StringIO()
    lines = logs.configure(out, log_format)
    async with AsyncExitStack() as ending:  # in the end all of it, whatever fails: a thread left behind is never done
        ending.callback(structlog.reset_defaults)
        ending.callback(lines.flush)
        ledger, clock = Ledger(engine, queue_max=queue_max), Clock()
        folder = ending.enter_context(TemporaryDirectory(prefix="task-ledger-"))
        await ending.enter_async_context(ledger)
        clock.now_us = now_us
        sweeper = Sweeper(ledger, Path(folder, "deadlines"), clock=clock, passed_us=clock.passed_us, patience=patience)
        await ending.enter_async_context(sweeper)
        books = await ending.enter_async_context(Bookkeeper(engine, Path(folder, "books")))
        callbacks = caller(ledger, Path(folder), clock, calls)
        ending.push_async_exit(callbacks.__aexit__)
        if calls is not None:
            await callbacks.__aenter__()
        duties = [books.duty, sweeper.duty] if is_followed else []
        following = Followers(engine, duties if calls is None else [*duties, callbacks.duty])
        await ending.enter_async_context(following)
        server = make_server(
            ledger,
            catalogue=CATALOGUE,
            books=books,
            callbacks=callbacks,
            followers=following,
            sweeper=sweeper,
            limits=limits,
            waiting=waiting,
            allowance=allowance,
            traces=traces,
            clock=clock,
        )
        runner = make_runner(server, drain_seconds=5)
        await runner.setup()
        ending.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        service = Service(ledger, clock, runner.addresses[0][1], lines, out, sweeper=sweeper)
        ending.push_async_callback(asyncio.sleep, 0)
        ending.push_async_callback(service.hang_up)
        service.books_path, service.connections = books.path, server.connections_open
        service.callbacks, service.books = callbacks, books
        service.worker = await service.key("ledger", role=Role.WORKER)
        service.operator = await service.key("ledger", role=Role.OPERATOR)
        yield service
