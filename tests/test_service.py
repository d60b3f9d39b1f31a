"""The shell round every contract: request ids, the log, faults, health, settings."""

import asyncio
import errno
import io
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog

from api import logs, settings
from ledger import catalogue
from ledger.engine import Engine
from ledger.entropy import POOL_BYTES, Entropy
from ledger.errors import StorageError
from ledger.ids import Spelling
from ledger.keys import Role, parse
from ledger.memory import MemoryEngine
from ledger.records import KeyRow
from ledger.task import Status
from tests.builders import Watched
from tests.http import Call, cancel, query, spell
from tests.processes import ended, serve
from tests.samples import FILES, SAMPLES
from tests.serving import ACCOUNT, ROUTES, STRANGER, VENDORS, Route, Service, queued, serving, spelled
from tests.wire import Reply, Wire, request
from tests.worded import code_of

CONTRACTS = (*VENDORS, "ledger")
UNKNOWN = spelled("019ab1c2-7d04-78a5-9bcd-0123456789ab")


@pytest.fixture
def watched() -> Watched:
    return Watched(MemoryEngine())


@pytest.fixture
async def service(watched: Watched) -> AsyncIterator[Service]:
    async with serving(watched) as running:
        yield running
        watched.commit_gate.open()


async def hit(service: Service, call: Call, *, key: str, prefix: str = "", **headers: str) -> Reply:
    told = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return await service.ask(call.method, prefix + call.path, key=key, body=call.body or b"", headers=told)


async def ask_about(service: Service, contract: str, *, known: bool = True, **headers: str) -> Reply:
    """Read a task, or one that there is not, as *contract* has it."""
    task = spelled((await service.create())["id"]) if known else UNKNOWN
    if contract == "ledger":
        call, key = Call("GET", f"/v1/tasks/{Spelling.UUID.spell(task)}"), service.operator
    else:
        call, key = query(contract, task), await service.key(contract)
    return await hit(service, call, key=key, prefix=f"/{contract}", **headers)


# Request ids


@pytest.mark.parametrize("contract", CONTRACTS)
async def test_a_request_id_that_is_brought_comes_back(service: Service, contract: str) -> None:
    for known in (True, False):
        for name in ("r", "trace-7/1", "!~" * 64):
            reply = await ask_about(service, contract, known=known, X_Request_Id=name)
            assert reply.headers["x-request-id"] == name
            assert service.logged()[-1]["request_id"] == name


@pytest.mark.parametrize("contract", CONTRACTS)
async def test_a_request_without_an_id_gets_one_of_its_own(service: Service, contract: str) -> None:
    names = [(await ask_about(service, contract)).headers["x-request-id"] for _ in range(5)]
    assert all(re.fullmatch("req_[0-9A-HJKMNP-TV-Z]{26}", name) for name in names)
    assert len(set(names)) == 5


@pytest.mark.parametrize("name", ["", "x" * 129, "a b", "a\tb", "ключ", '"\\u0000"' * 20])
async def test_a_request_id_that_no_log_should_carry_is_replaced(service: Service, name: str) -> None:
    reply = await ask_about(service, "lemondata", X_Request_Id=name)
    assert reply.headers["x-request-id"].startswith("req_")


async def test_the_request_id_stands_with_the_events_that_it_caused(service: Service) -> None:
    task = (await service.create())["id"]
    await service.native("POST", f"/tasks/{task}/events", {"type": "started"}, X_Request_Id="r-7")
    assert (await service.history(task))[-1]["request_id"] == "r-7"


# The log

LINE = {
    "event",
    "level",
    "timestamp",
    "request_id",
    "contract",
    "method",
    "route",
    "status",
    "refusal",
    "key_id",
    "account",
    "took_us",
}


@pytest.mark.parametrize("route", ROUTES, ids=str)
async def test_a_request_is_one_line_with_its_route_and_not_its_path(service: Service, route: Route) -> None:
    key = await service.key_for(route)
    before = len(service.logged())
    reply = await service.ask(route.method, route.at("some-id"), key=key, body=b"{}" if route.method == "POST" else b"")
    (line,) = service.logged()[before:]
    assert line.keys() == LINE
    assert (line["route"], line["method"], line["contract"]) == (route.path, route.method, route.contract)
    assert (line["status"], line["account"]) == (reply.status, ACCOUNT)
    assert (line["level"], line["key_id"] in key) == ("info", True)
    assert line["request_id"] == reply.headers["x-request-id"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z", line["timestamp"])
    assert "some-id" not in service.output()


REFUSED: list[tuple[str, str, str | None, int, str, str | None]] = [  # what is asked; then the line about it
    ("GET", "/lemondata/v1/tasks/x", None, 401, "Unauthenticated", "/lemondata/v1/tasks/{id}"),
    ("GET", "/beatra/v1/tasks/x", "nonsense", 401, "WrongKey", "/beatra/v1/tasks/{id}"),
    ("PUT", "/chunkr/task/x", None, 405, "MethodNotAllowed", None),
    ("GET", "/bytespike/nothing", None, 404, "UnknownRoute", None),
    ("GET", "/nothing", None, 404, "UnknownRoute", None),
    ("GET", "/v1/tasks/x", "nonsense", 401, "WrongKey", None),
]


@pytest.mark.parametrize(("method", "path", "key", "status", "refusal", "route"), REFUSED)
async def test_a_refused_request_is_one_line_with_its_reason(
    *, service: Service, method: str, path: str, key: str | None, status: int, refusal: str, route: str | None
) -> None:
    before = len(service.logged())
    await service.ask(method, path, key=key)
    (line,) = service.logged()[before:]
    assert (line["status"], line["refusal"], line["route"]) == (status, refusal, route)
    assert (line["key_id"], line["account"]) == (None, None)


SECRETS = ["tl_0123456789ab_" + "s3cr3t" * 8 + "x", "whsec_0123456789abcdef"]


@pytest.mark.parametrize("log_format", logs.Format)
async def test_no_secret_is_logged_wherever_it_is_sent(log_format: logs.Format) -> None:
    watched = Watched(MemoryEngine())
    async with serving(watched, log_format=log_format) as service:
        secrets = [await service.key("lemondata"), service.operator, *SECRETS]
        for secret in secrets:
            for sent in planted(secret, key=service.operator):
                await service.send(sent)
            for parts in torn(secret):
                await send_in_parts(service, parts)
            watched.read_faults.append(RuntimeError(f"cannot read with {secret}"))
            await ask_about(service, "ledger", known=False)
        said = service.output()
    assert said.count("http.answered") >= 4 * len(secrets)
    assert said.count("http.unreadable") == 4 * len(secrets)
    assert said.count("RuntimeError") >= len(secrets)
    for secret in secrets:
        assert secret.rpartition("_")[2] not in said


def planted(secret: str, *, key: str) -> list[bytes]:
    """Requests with *secret* in every place where somebody may put one; *key* is a good one."""
    opened = ("Authorization", f"Bearer {key}")
    path = "/lemondata/v1/tasks/x"
    return [
        *(
            request("GET", path, headers=[("Authorization", value)])
            for value in (secret, f"Bearer {secret}", f"Basic {secret}", f"bearer  {secret}", f"{secret} {secret}")
        ),
        request("GET", path, headers=[("x-api-key", secret), ("Cookie", f"key={secret}"), ("User-Agent", secret)]),
        request("GET", f"/bytespike/{secret}", headers=[("x-api-key", secret)]),
        request("GET", f"{path}?api_key={secret}", headers=[("Referer", f"https://example.com/?key={secret}")]),
        request("GET", f"/ledger/v1/tasks/{secret}", headers=[opened]),
        request("GET", f"/ledger/v1/tasks?status={secret}", headers=[opened]),
        request("GET", f"/{secret}", headers=[opened]),
        request("GET", "/ledger/v1/tasks", headers=[opened, ("X-Request-Id", secret)]),
        request("GET", "/ledger/v1/tasks", headers=[opened, ("Host", secret)]),
        request("DELETE", f"/ledger/v1/keys/{secret}", headers=[opened]),
        request("POST", "/ledger/v1/tasks", headers=[opened, ("Idempotency-Key", secret)], body=b'{"account":5}'),
        request("POST", "/ledger/v1/tasks", headers=[opened], body=b'{"account":"%b"}' % secret.encode()),
        request("POST", "/ledger/v1/tasks", headers=[opened], body=secret.encode()),
    ]


def torn(secret: str) -> list[tuple[bytes, ...]]:
    """What is no HTTP, with *secret* where a parser that quotes it would show it, whole or from its middle on."""
    middle = len(secret) // 2
    head = b"GET / HTTP/1.1\r\nHost: x\r\n"
    first, second = secret[:middle].encode(), secret[middle:].encode()
    return [
        (head + b"Authorization: Bearer " + first + second + b"\x01\r\n\r\n",),
        (head + b"Authorization: Bearer " + first, second + b"\x01\r\n\r\n"),
        (head + b"x-api-key: " + first, second + b"\x00\r\n\r\n"),
        (b"GET /?key=" + first, second + b"\xff HTTP/1.1\r\nHost: x\r\n\r\n"),
    ]


async def send_in_parts(service: Service, parts: Sequence[bytes]) -> None:
    """Send *parts*, each after the one before it has been read."""
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    for part in parts:
        writer.write(part)
        await asyncio.sleep(0.01)
    assert await reader.read()
    writer.close()
    await writer.wait_closed()


def test_what_is_called_a_secret_is_hidden_whatever_it_looks_like() -> None:
    names = ("authorization", "api_key", "x_api_key", "client_secret", "webhook_signature", "cookie", "access_token")
    hidden = logs.hide(None, "info", dict.fromkeys(names, "plain") | {"event": "e", "key_id": "k"})
    assert hidden == dict.fromkeys(names, "[hidden]") | {"event": "e", "key_id": "k"}


def test_lines_are_written_at_once_where_no_loop_runs() -> None:
    out = io.StringIO()
    logs.configure(out, logs.Format.JSON)
    structlog.get_logger().info("it.happened", count=3)
    structlog.reset_defaults()
    line = msgspec.json.decode(out.getvalue())
    assert (line["event"], line["count"], line["level"]) == ("it.happened", 3, "info")


def one_per_line(lines: Sequence[logs.Line]) -> str:
    return "".join(f"{line}\n" for line in lines)


async def test_lines_are_gathered_until_there_are_many_or_they_are_asked_for() -> None:
    out = io.StringIO()
    lines = logs.Lines(out, one_per_line)
    for _ in range(logs.LINES_MAX - 1):
        lines.write("x")
    assert not out.getvalue()
    lines.write("x")
    assert out.getvalue() == "x\n" * logs.LINES_MAX
    lines.write("y")
    lines.flush()
    assert out.getvalue().endswith("x\ny\n")


class Full(io.StringIO):
    """A file on a disk that is full."""

    def write(self, _: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


async def test_lines_that_cannot_be_written_are_dropped_and_disturb_nobody() -> None:
    lines = logs.Lines(Full(), one_per_line)
    for _ in range(2 * logs.LINES_MAX):
        lines.write("x")
    lines.flush()


def test_what_libraries_log_becomes_a_line_like_ours() -> None:
    out = io.StringIO()
    logs.configure(out, logs.Format.JSON)
    logs.configure(out, logs.Format.JSON)
    logging.getLogger("asyncio").error("a task ended badly: %s", SECRETS[0])
    structlog.reset_defaults()
    (line,) = [msgspec.json.decode(text) for text in out.getvalue().splitlines()]
    assert (line["event"], line["library"], line["level"]) == ("library.logged", "asyncio", "error")
    assert line["said"] == "a task ended badly: [hidden]"


# Faults


class Breaking(Watched):
    """An engine all of whose verbs fail while there is a *fault*, but that it still knows the keys of *holders*."""

    fault: Exception | None = None
    holders: frozenset[str] = frozenset()

    def _work(self) -> Engine:
        if self.fault is not None:
            raise self.fault
        return self.engine

    async def key(self, key_id: str) -> KeyRow | None:
        return await (self.engine if key_id in self.holders else self._work()).key(key_id)

    def __getattribute__(self, name: str) -> Any:  # noqa: ANN401 - any verb
        verbs = {"commit", "tasks", "page", "claims", "keys", "accounts", "streams", "after", "head"}
        return getattr(self._work(), name) if name in verbs else super().__getattribute__(name)


@pytest.fixture
def breaking() -> Breaking:
    return Breaking(MemoryEngine())


@pytest.fixture
async def fragile(breaking: Breaking) -> AsyncIterator[Service]:
    async with serving(breaking) as running:
        yield running
        breaking.fault = None


ASKING = [route for route in ROUTES if str(route) != "GET /ledger/metrics"]
"""Those that cannot answer without the store."""


async def test_metrics_are_told_whatever_becomes_of_the_store(fragile: Service, breaking: Breaking) -> None:
    breaking.holders = frozenset(row.key_id for row in await breaking.engine.keys(None))
    breaking.fault = StorageError("the disk is full")
    reply = await fragile.ask("GET", "/metrics", key=fragile.operator)
    assert reply.status == 200
    assert b"task_ledger_queue_depth 0.0" in reply.body


async def sensible(service: Service, route: Route) -> Callable[[], Awaitable[Reply]]:
    """A request that *route* can carry out, or could if its task were there: it has to ask the store."""
    key = await service.key_for(route)
    name = "0" * 32 if route.about_breaks else route.spelling.spell(UNKNOWN)
    body = b""
    if str(route) in FILES:
        query, kind, body = FILES[str(route)]
        headers = (("Content-Type", kind),)
        return lambda: service.ask(route.method, route.path + query, key=key, body=body, headers=headers)
    if route.method in {"POST", "PUT"}:
        sample = SAMPLES[str(route)][0]
        body = msgspec.json.encode({field: name if value == "-" else value for field, value in sample.items()})
    return lambda: service.ask(route.method, route.at(name), key=key, body=body)


@pytest.mark.parametrize("route", ASKING, ids=str)
async def test_a_bug_is_a_500_in_the_contracts_words_and_a_traceback_in_the_log_alone(
    fragile: Service, breaking: Breaking, route: Route
) -> None:
    ask = await sensible(fragile, route)
    breaking.holders = frozenset(row.key_id for row in await breaking.engine.keys(None))
    before = await ask()
    breaking.fault = ZeroDivisionError("the seventh planet")
    reply = await ask()
    assert reply.status == 500
    assert code_of(route.contract, reply)
    assert b"planet" not in reply.body
    (line,) = fragile.logged("http.broke")
    assert "Traceback" in line["exception"]
    assert "the seventh planet" in line["exception"]
    assert (line["request_id"], line["route"]) == (reply.headers["x-request-id"], route.path)
    assert fragile.logged()[-1]["refusal"] == "Broken"
    breaking.fault = None
    assert (await ask()).status // 100 == before.status // 100


@pytest.mark.parametrize("route", ASKING, ids=str)
async def test_a_store_that_fails_is_a_503_with_a_time_to_come_back(
    fragile: Service, breaking: Breaking, route: Route
) -> None:
    ask = await sensible(fragile, route)
    breaking.holders = frozenset(row.key_id for row in await breaking.engine.keys(None))
    before = await ask()
    breaking.fault = StorageError("the disk is full")
    reply = await ask()
    assert (reply.status, reply.headers["retry-after"]) == (503, "2")
    assert code_of(route.contract, reply)
    assert b"disk" not in reply.body
    (line,) = fragile.logged("store.failed")
    assert (line["fault"], line["level"]) == ("the disk is full", "warning")
    assert not fragile.logged("http.broke")
    breaking.fault = None
    assert (await ask()).status // 100 == before.status // 100


@pytest.mark.parametrize("fault", [StorageError("the disk is gone"), ZeroDivisionError("the seventh planet")])
@pytest.mark.parametrize("contract", VENDORS)
async def test_a_key_that_cannot_be_looked_up_is_no_wrong_key(
    fragile: Service, breaking: Breaking, contract: str, fault: Exception
) -> None:
    call, key = query(contract, UNKNOWN), await fragile.key(contract)
    breaking.fault = fault
    for prefix in (f"/{contract}", ""):
        reply = await hit(fragile, call, key=key, prefix=prefix)
        assert reply.status == (503 if isinstance(fault, StorageError) else 500)
        at_root = "beatra" if prefix else "lemondata"  # two contracts share this path, and the key tells nothing yet
        assert code_of(at_root if contract == "beatra" else contract, reply)


async def test_r21_behind_a_writer_that_stalls_without_a_bound_everybody_waits_who_is_refused_below(
    watched: Watched,
) -> None:
    """The control of the next test: as many as it has refused are taken, and wait."""
    async with serving(watched, queue_max=1000) as service:
        watched.commit_gate.shut()
        body = {"account": ACCOUNT, "contract": "chunkr", "model": "chunkr-parse"}
        taken = [asyncio.create_task(service.native("POST", "/tasks", body)) for _ in range(9)]
        await watched.commit_gate.someone_waits()
        await asyncio.sleep(0.1)
        assert not any(task.done() for task in taken)
        watched.commit_gate.open()
        assert {reply.status for reply in await asyncio.gather(*taken)} == {201}


async def test_r21_a_full_queue_is_a_503_with_a_time_to_come_back_and_forgets_nobody(watched: Watched) -> None:
    async with serving(watched, queue_max=2) as service:
        tasks = {vendor: (await service.create(vendor))["id"] for vendor in VENDORS}
        keys = {vendor: await service.key(vendor) for vendor in VENDORS}
        watched.commit_gate.shut()
        body = {"account": ACCOUNT, "contract": "chunkr", "model": "chunkr-parse"}
        taken = [asyncio.create_task(service.native("POST", "/tasks", body))]
        await watched.commit_gate.someone_waits()
        taken += [asyncio.create_task(service.native("POST", "/tasks", body)) for _ in range(2)]
        await queued(service, 2)
        position = await service.position()
        for vendor, task in tasks.items():
            reply = await hit(service, cancel(vendor, spelled(task)), key=keys[vendor], prefix=f"/{vendor}")
            assert (reply.status, reply.headers["retry-after"], bool(code_of(vendor, reply))) == (503, "1", True)
            assert (
                await hit(service, query(vendor, spelled(task)), key=keys[vendor], prefix=f"/{vendor}")
            ).status == 200
        for path, json in (("", body), ("/{}/events", {"type": "started"}), ("/{}/cancel", {})):
            reply = await service.native("POST", "/tasks" + path.format(tasks["beatra"]), json)
            assert (reply.status, reply.headers["retry-after"], code_of("ledger", reply)) == (503, "1", "overloaded")
        assert await service.position() == position
        watched.commit_gate.open()
        assert [reply.status for reply in await asyncio.gather(*taken)] == [201] * 3


# Health


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(("path", "status"), [("/healthz", "alive"), ("/readyz", "ready")])
async def test_health_is_told_to_whoever_asks(service: Service, method: str, path: str, status: str) -> None:
    reply = await service.ask(method, path)
    assert reply.status == 200
    if method == "GET":
        assert reply.json()["status"] == status


async def test_a_service_whose_store_fails_is_alive_and_not_ready(fragile: Service, breaking: Breaking) -> None:
    breaking.fault = StorageError("the disk is gone")
    assert (await fragile.ask("GET", "/healthz")).status == 200
    assert (await fragile.ask("GET", "/readyz")).status == 503
    breaking.fault = None
    assert (await fragile.ask("GET", "/readyz")).status == 200


# Headers


@pytest.mark.parametrize("contract", CONTRACTS)
async def test_no_answer_is_kept_on_its_way_and_none_tells_what_serves_it(service: Service, contract: str) -> None:
    for known in (True, False):
        reply = await ask_about(service, contract, known=known)
        assert reply.headers["cache-control"] == "no-store"
        assert reply.headers["server"] == "task-ledger"
        assert reply.headers["content-length"] == str(len(reply.body))
        assert {"content-type", "x-request-id", "date"} <= reply.headers.keys()
        assert reply.headers.keys() <= {
            "cache-control",
            "content-length",
            "content-type",
            "date",
            "etag",
            "server",
            "x-ratelimit-limit",
            "x-ratelimit-remaining",
            "x-ratelimit-reset",
            "x-request-id",
        }


async def test_a_connection_serves_many_requests(service: Service) -> None:
    task = (await service.create())["id"]
    async with Wire("127.0.0.1", service.port) as wire:
        sent = request("GET", f"/ledger/v1/tasks/{task}", headers=[("Authorization", f"Bearer {service.operator}")])
        replies = [await wire.send(sent * 1) for _ in range(20)]
        assert len({reply.body for reply in replies}) == 1
        assert {reply.headers.get("connection", "keep-alive") for reply in replies} == {"keep-alive"}


async def test_a_client_that_waits_to_be_asked_for_its_body_is_asked(service: Service) -> None:
    body = b'{"account":"acme","contract":"chunkr","model":"chunkr-parse"}'
    headers = [
        ("Authorization", f"Bearer {service.worker}"),
        ("Expect", "100-continue"),
        ("Content-Length", str(len(body))),
    ]
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(request("POST", "/ledger/v1/tasks", headers=headers))
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(body)
    assert await reader.readline() == b"HTTP/1.1 201 Created\r\n"
    writer.close()
    await writer.wait_closed()


# Prefix and root

AT_ROOT: list[tuple[str, str, str | None, int, str]] = [  # what is asked, with whose key; in whose words it is answered
    ("GET", "/v1/tasks/x", None, 401, "lemondata"),
    ("DELETE", "/v1/tasks/x", None, 401, "lemondata"),
    ("POST", "/v1/tasks/query", None, 401, "bytespike"),
    ("GET", "/task/x", None, 401, "chunkr"),
    ("POST", "/v1/tasks/x/cancel", None, 401, "beatra"),
    ("GET", "/nothing", None, 404, "ledger"),
    ("GET", "/v1/tasks", None, 401, "beatra"),
    ("GET", "/v1/tasks/x", "lemondata", 404, "lemondata"),
    ("GET", "/v1/tasks/x", "beatra", 404, "beatra"),
    ("GET", "/v1/tasks/x", "chunkr", 404, "chunkr"),
    ("GET", "/v1/tasks/x", "bytespike", 404, "bytespike"),
    ("DELETE", "/v1/tasks/x", "beatra", 405, "beatra"),
    ("POST", "/v1/tasks/query", "bytespike", 400, "bytespike"),
    ("GET", "/nothing", "beatra", 404, "beatra"),
    ("GET", "/v1/tasks/x", "ledger", 404, "ledger"),
]


@pytest.mark.parametrize(("method", "path", "whose", "status", "contract"), AT_ROOT)
async def test_at_the_bare_root_the_key_decides_the_words_and_without_one_the_route(
    *, service: Service, method: str, path: str, whose: str | None, status: int, contract: str
) -> None:
    role = Role.OPERATOR if whose == "ledger" else Role.CLIENT
    key = None if whose is None else await service.key(whose, role=role)
    reply = await service.ask(method, path, key=key, body=b"{}" if method == "POST" else b"")
    assert reply.status == status
    assert code_of(contract, reply)


@pytest.mark.parametrize("contract", VENDORS)
async def test_under_a_prefix_any_client_key_of_the_account_is_taken(service: Service, contract: str) -> None:
    task = spelled((await service.create(contract))["id"])
    for whose in VENDORS:
        reply = await hit(service, query(contract, task), key=await service.key(whose), prefix=f"/{contract}")
        assert reply.status == 200


async def test_a_task_is_shown_as_it_stands_although_its_answer_was_kept(service: Service) -> None:
    task = (await service.create("beatra"))["id"]
    key = await service.key("beatra")
    call = query("beatra", spelled(task))
    for status in (Status.QUEUED, Status.RUNNING):
        for _ in range(3):
            assert (await hit(service, call, key=key, prefix="/beatra")).json()["status"] == status
        await service.reported(task, "started")


async def test_a_get_that_is_repeated_is_held_against_its_key_its_host_and_its_body_anew(service: Service) -> None:
    task = (await service.create("chunkr"))["id"]
    path, key = f"/chunkr/task/{task}", await service.key("chunkr")
    theirs = await service.key("chunkr", account=STRANGER)
    for _ in range(2):
        assert (await service.ask("GET", path, key=key)).status == 200
        assert (await service.ask("GET", path, key=theirs)).status == 404
        assert (await service.ask("GET", path)).status == 401
        assert (await service.ask("GET", path, key=key, body=b"x" * 70_000)).status == 413
        assert (await service.ask("GET", path + "?include_chunks=no", key=key)).status == 400
        for host in ("a.example", "b.example"):
            shown = (await service.ask("GET", path, key=key, headers=[("Host", host)])).json()
            assert shown["task_url"] == f"http://{host}/chunkr/api/v1/task/{task}"
    token = parse(key)
    assert token is not None
    assert (await service.native("DELETE", f"/keys/{token.key_id}")).status == 200
    assert (await service.ask("GET", path, key=key)).status == 401


async def test_what_is_asked_at_length_is_answered_and_not_remembered(service: Service) -> None:
    task = (await service.create("lemondata"))["id"]
    path, key = f"/lemondata/v1/tasks/{spell('lemondata', spelled(task))}", await service.key("lemondata")
    seen = await service.ledger.task(spelled(task), account=None)
    for query_text, host in (("?" + "x" * 5000, "a.example"), ("", "a" * 5000)):
        assert (await service.ask("GET", path + query_text, key=key, headers=[("Host", host)])).status == 200
        assert not seen.answers
    assert (await service.ask("GET", path, key=key)).status == 200
    assert len(seen.answers) == 1


async def test_what_no_answer_reads_of_a_query_makes_no_other_answer_to_be_kept(service: Service) -> None:
    task = (await service.create("chunkr"))["id"]
    path, key = f"/chunkr/task/{task}", await service.key("chunkr")
    seen = await service.ledger.task(spelled(task), account=None)
    before = service.ledger.views._weight_bytes
    replies = [await service.ask("GET", f"{path}?{text}", key=key) for text in ("", *(f"q={n}" for n in range(20)))]
    assert {reply.status for reply in replies} == {200}
    (answer,) = seen.answers.values()
    assert service.ledger.views._weight_bytes - before == len(answer.body) + len("http://ledger.test/chunkr")
    for flags in ("include_chunks=false", "base64_urls=true", "base64_urls=true&include_chunks=false"):
        assert (await service.ask("GET", f"{path}?{flags}", key=key)).status == 200
    assert len(seen.answers) == 4


# Settings and catalogue

MODEL = """
[[model]]
contract = "lemondata"
name = "m"
capability = "c"
provider = "p"
school = "hold"
price_credits = "1"
"""

SETTINGS = [  # a file; what the message names beside the file
    ("queue_max = 0", "queue_max"),
    ('queue_max = "many"', "queue_max"),
    ("batch_max = -1", "batch_max"),
    ("views_max_bytes = 1.5", "views_max_bytes"),
    ("nobody_knows = 1", "nobody_knows"),
    ("catalogue = 5", "catalogue"),
    ("queue_max = ", "Invalid value"),
    ("[queue_max]", "queue_max"),
]
CATALOGUES = [
    ('version = "1"', "model"),
    (MODEL, "version"),
    ('version = ""' + MODEL, "version"),
    ('version = "1"' + MODEL + MODEL, "twice"),
    ('version = "1"' + MODEL.replace('"1"', "1.5"), "price_credits"),
    ('version = "1"' + MODEL.replace('"1"', '"1.1234567"'), "m: '1.1234567'"),
    ('version = "1"' + MODEL.replace('"1"', '"-1"'), "m: '-1'"),
    ('version = "1"' + MODEL.replace("hold", "barter"), "school"),
    ('version = "1"' + MODEL + "cancel_credits_per_second = 1", "cancel_credits_per_second"),
    ('version = "1"' + MODEL + "point_of_no_return_percent = 101\noutput_seconds = 8", "point_of_no_return_percent"),
    ('version = "1"' + MODEL + "point_of_no_return_percent = 10", "output_seconds"),
    ('version = "1"' + MODEL + "nobody_knows = 1", "nobody_knows"),
    ('version = "1"' + MODEL + 'variants = { "c/hd" = "-1" }', "m: '-1'"),
    ('version = "1"' + MODEL + 'variants = { "c/hd" = 1.5 }', "variants"),
    ('version = "1"' + MODEL + 'resolves_by = { c = "x" }', "no model x for m to resolve to"),
    ('version = "1"' + MODEL.replace('name = "m"', ""), "name"),
    ("version = ", "Invalid value"),
]


@pytest.mark.parametrize(("text", "named"), SETTINGS)
def test_settings_that_make_no_sense_are_refused_by_name(tmp_path: Path, text: str, named: str) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match=re.escape(named)) as refused:
        settings.read(file)
    assert str(refused.value).startswith(str(file))


@pytest.mark.parametrize(("text", "named"), CATALOGUES)
def test_a_catalogue_that_makes_no_sense_is_refused_by_name(tmp_path: Path, text: str, named: str) -> None:
    file = tmp_path / "models.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match=re.escape(named)) as refused:
        catalogue.read(file)
    assert str(refused.value).startswith(str(file))


@pytest.mark.parametrize("read", [settings.read, catalogue.read])
def test_a_file_that_is_no_text_or_not_there_is_refused_by_name(tmp_path: Path, read: Callable[[Path], object]) -> None:
    file = tmp_path / "file.toml"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"file\.toml"):
        read(file)
    with pytest.raises(OSError, match=r"other\.toml"):
        read(tmp_path / "other.toml")


def test_without_a_file_the_defaults_hold(tmp_path: Path) -> None:
    empty = tmp_path / "settings.toml"
    empty.write_text("")
    assert settings.read(empty) == settings.read(None) == settings.Settings()
    assert settings.Settings().models() == catalogue.read()


def test_a_catalogue_of_ones_own_takes_the_place_of_the_one_that_comes_along(tmp_path: Path) -> None:
    (tmp_path / "models.toml").write_text('version = "7"' + MODEL)
    file = tmp_path / "settings.toml"
    file.write_text(f'catalogue = "{tmp_path / "models.toml"}"\nqueue_max = 7')
    found = settings.read(file)
    models = found.models()
    assert (found.queue_max, models.version) == (7, "7")
    assert models.find("lemondata", "m") is not None
    assert models.find("lemondata", "seedance-2.0") is None


def test_a_relative_catalogue_lies_beside_the_file_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, elsewhere = tmp_path / "etc", tmp_path / "elsewhere"
    for one in (folder, elsewhere):
        one.mkdir()
    (folder / "models.toml").write_text('version = "7"' + MODEL)
    (folder / "settings.toml").write_text('catalogue = "models.toml"')
    monkeypatch.chdir(elsewhere)
    assert settings.read(folder / "settings.toml").models().version == "7"
    monkeypatch.chdir(tmp_path)
    assert settings.read(Path("etc/settings.toml")).models().version == "7"


@pytest.mark.parametrize(
    ("text", "named"), [("queue_max = 0", "queue_max"), ('catalogue = "/no/such.toml"', "/no/such.toml")]
)
async def test_the_server_says_in_one_line_why_it_does_not_start(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / "settings.toml").write_text(text)
    options = ("--config", str(tmp_path / "settings.toml"))
    exit_code, (line,) = await ended(await serve(tmp_path / "ledger.db", *options, stdout=tmp_path / "out"))
    assert exit_code == 2
    assert line.startswith("task-ledger: ")
    assert named in line
    assert not (tmp_path / "out").read_text()
    assert not (tmp_path / "ledger.db").exists()


# Randomness


def test_randomness_that_is_fetched_by_the_pool_is_given_out_once() -> None:
    entropy = Entropy()
    given = [entropy(10) for _ in range(POOL_BYTES)]
    assert {len(one) for one in given} == {10}
    assert len(set(given)) == POOL_BYTES
    assert entropy(POOL_BYTES) != entropy(POOL_BYTES)
