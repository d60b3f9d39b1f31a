"""The real server under power cuts, stops, rivals and a full disk: what was answered is there, and nothing else."""

import asyncio
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from signal import SIGKILL
from typing import Any

import msgspec
import pytest

from ledger.engine import Engine
from ledger.ids import Spelling, TaskId
from ledger.keys import Role
from ledger.records import Recorded
from ledger.sqlite import open_to_read, open_to_serve
from ledger.task import Status
from tests.builders import ENGINES
from tests.http import MODELS, cancel, query
from tests.invariants import common_invariant
from tests.processes import ROOT, Server, ended, keys_in, serve
from tests.serving import ACCOUNT, VENDORS, serving, spelled
from tests.wire import Cut, Wire, request
from tests.worded import code_of

CLIENTS = 8
CUTS, SOAK_CUTS = 6, 50
KEYS = (("ledger", Role.WORKER), ("ledger", Role.OPERATOR), ("bytespike", Role.CLIENT))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
async def server(path: Path) -> AsyncIterator[Server]:
    async with Server(path) as real:
        yield real


@asynccontextmanager
async def reading(path: Path) -> AsyncIterator[Engine]:
    engine = await open_to_read(path)
    try:
        yield engine
    finally:
        await engine.close()


# Load


class Client:
    """Takes tasks through their lives, one request at a time, and remembers what it was told."""

    def __init__(self, number: int, keys: Sequence[str], answers: asyncio.Semaphore) -> None:
        self._name, self._random = f"client-{number}", Random(number)
        self._worker, self._operator, self._customer = keys
        self._answers = answers
        self._sent = 0
        self.told: dict[str, int | None] = {}
        """By request id, the version of the task that the answer showed, if it showed one."""
        self.open: tuple[str, bytes] | None = None
        """The id of the request that has had no answer, and the request."""

    async def work(self, server: Server) -> None:
        """Go on until the connection ends. What had no answer is sent once more first, the very same bytes."""
        async with server.wire() as wire:
            try:
                if self.open is not None:
                    await self._send(wire, *self.open)
                while True:
                    await self._life(wire)
            except Cut:
                return

    async def _life(self, wire: Wire) -> None:
        contract = self._random.choice(VENDORS)
        body = {"account": ACCOUNT, "contract": contract, "model": MODELS[contract]}
        task = (await self._post(wire, "/ledger/v1/tasks", self._worker, body))["id"]
        native = f"/ledger/v1/tasks/{task}"
        for percent in range(10, 10 * self._random.randint(1, 4), 10):
            await self._post(wire, f"{native}/events", self._worker, {"type": "progressed", "percent": percent})
        match self._random.choice(("complete", "fail", "operator cancels", "customer cancels", "leave")):
            case "complete":
                await self._post(wire, f"{native}/events", self._worker, {"type": "completed"})
            case "fail":
                await self._post(wire, f"{native}/events", self._worker, {"type": "failed", "code": "broke"})
            case "operator cancels":
                await self._post(wire, f"{native}/cancel", self._operator, {})
            case "customer cancels":
                await self._post(wire, f"/bytespike{cancel('bytespike', spelled(task)).path}", self._customer, {})
            case _:
                return

    async def _post(self, wire: Wire, path: str, key: str, body: dict[str, Any]) -> dict[str, Any]:
        name = f"{self._name}-{self._sent}"
        self._sent += 1
        if "type" in body:
            body = {**body, "event_id": name}
        headers = [("Authorization", f"Bearer {key}"), ("X-Request-Id", name), ("Idempotency-Key", name)]
        return await self._send(wire, name, request("POST", path, headers=headers, body=msgspec.json.encode(body)))

    async def _send(self, wire: Wire, name: str, sent: bytes) -> dict[str, Any]:
        self.open = name, sent
        reply = await wire.send(sent)
        assert reply.status in {200, 201, 202}, reply
        shown: dict[str, Any] = reply.json()
        self.told[name], self.open = shown.get("version"), None
        self._answers.release()
        return shown


class Load:
    """Eight clients, and what they know together."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._answers = asyncio.Semaphore(0)
        self._clients = [Client(number, keys, self._answers) for number in range(CLIENTS)]

    @asynccontextmanager
    async def on(self, server: Server) -> AsyncIterator[None]:
        """While it is entered the clients work; at the end the server must have ended, and so they do."""
        async with asyncio.TaskGroup() as group:
            for client in self._clients:
                group.create_task(client.work(server))
            yield

    async def answers(self, count: int) -> None:
        """Returns after *count* more answers."""
        for _ in range(count):
            await self._answers.acquire()

    @property
    def told(self) -> dict[str, int | None]:
        return {name: version for client in self._clients for name, version in client.told.items()}

    @property
    def open(self) -> set[str]:
        return {client.open[0] for client in self._clients if client.open is not None}


async def caused(path: Path) -> dict[str, Recorded]:
    """The last event that each request caused, all of it to one task, in a log that has been found whole."""
    async with reading(path) as engine:
        histories = await common_invariant(engine)
    last: dict[str, Recorded] = {}
    for row in (row for rows in histories.values() for row in rows):
        before = last.setdefault(row.entry.request_id, row)
        assert (row.stream, row.version) in {(before.stream, before.version), (before.stream, before.version + 1)}
        last[row.entry.request_id] = row
    return last


def holds(path: Path, key: str) -> bool:
    """Whether the secret of *key* is in the file, or in what is beside it."""
    secret = key.rpartition("_")[2].encode()
    return any(secret in file.read_bytes() for file in path.parent.glob(f"{path.name}*"))


@pytest.mark.parametrize(
    "cuts", [CUTS, pytest.param(SOAK_CUTS, marks=[pytest.mark.soak, pytest.mark.timeout(SOAK_CUTS * 20)])]
)
async def test_r01_what_was_answered_survives_every_power_cut_and_nothing_else_was_written(
    path: Path, server: Server, cuts: int
) -> None:
    keys = await keys_in(path, *KEYS)
    load, random = Load(keys), Random(1)
    for _ in range(cuts):
        await server.start()
        async with load.on(server):
            await load.answers(random.randint(20, 200))
            await server.kill()
        events = await caused(path)
        assert load.told.keys() <= events.keys()
        assert events.keys() - load.told.keys() <= load.open
        assert len(load.open) <= CLIENTS
        shown = {name: version for name, version in load.told.items() if version is not None}
        assert {name: events[name].version for name in shown} == shown
    assert len(load.told) > 20 * cuts
    assert not any(holds(path, key) for key in keys)


async def test_r19_a_server_that_is_asked_to_stop_answers_all_that_it_took_and_takes_no_more(
    path: Path, server: Server
) -> None:
    keys = await keys_in(path, *KEYS)
    load = Load(keys)
    for _ in range(2):
        await server.start()
        async with load.on(server):
            await load.answers(150)
            assert await server.stop() == 0
        assert not path.with_name("ledger.db-wal").exists()
        assert (await caused(path)).keys() == load.told.keys()
    lines = [msgspec.json.decode(line) for line in server.logged().splitlines() if line.startswith("{")]
    answered = [line["request_id"] for line in lines if line["event"] == "http.answered"]
    assert sorted(answered) == sorted(load.told)
    assert len(server.stderr) == 2, "nothing is said but where it listens"
    assert not any(key.rpartition("_")[2] in server.logged() for key in keys)


async def test_r15_a_second_server_on_a_file_is_refused_in_one_line_and_the_first_serves_on(
    path: Path, server: Server
) -> None:
    (key,) = await keys_in(path, ("ledger", Role.WORKER))
    body = b'{"account":"acme","contract":"chunkr","model":"chunkr-parse"}'
    sent = request("POST", "/ledger/v1/tasks", headers=[("Authorization", f"Bearer {key}")], body=body)
    await server.start()
    exit_code, (line,) = await ended(await serve(path, stdout=path.with_name("rival.log")))
    assert exit_code == 3
    assert line.startswith(f"task-ledger: {path} is served by another process (pid ")
    assert not path.with_name("rival.log").read_text()
    async with server.wire() as wire:
        assert (await wire.send(sent)).status == 201
    await server.kill()
    await server.start()
    async with server.wire() as wire:
        assert (await wire.send(sent)).status == 201
    assert await server.stop() == 0


# Between two statements

DEATHS = [  # contract, model, reports before the cancel; what the cancel adds to the history
    ("lemondata", "seedance-2.0", (), ["cancel-requested", "cancelled", "released"]),
    ("bytespike", "veo-3.1", (50,), ["cancel-requested", "cancelled", "charged", "released"]),
    ("beatra", "suno-5.5", (), ["cancel-requested", "cancelled", "refunded"]),
]


@pytest.mark.parametrize(("contract", "model", "percents", "added"), DEATHS)
async def test_r02_s11_a_crash_at_any_statement_of_a_cancel_leaves_the_outcome_and_its_money_or_neither(
    *, path: Path, contract: str, model: str, percents: Sequence[int], added: list[str]
) -> None:
    async with serving(await open_to_serve(path)) as service:
        task = spelled((await service.create(contract, model=model))["id"])
        for percent in percents:
            await service.reported(Spelling.UUID.spell(task), "progressed", percent=percent)
        key = await service.key(contract)
    before = await types_of(path, task)
    after_commit, *at_statements, answered = await deaths(path.parent, contract, task, key)
    assert (after_commit, answered) == (-SIGKILL, 0)
    assert at_statements == [-SIGKILL] * len(at_statements)
    assert len(at_statements) >= len(added) + 4  # begin, head, an insert each, the view, commit
    for number in range(len(at_statements) + 2):
        copy = path.with_name(f"{number}.db")
        took = number in {0, len(at_statements) + 1}
        assert await types_of(copy, task) == (before + added if took else before), number
        async with serving(await open_to_serve(copy)) as service:
            again = await service.client(contract, cancel(contract, task))
        assert again.status in ({409} if took and contract == "lemondata" else {200, 202})
        assert await types_of(copy, task) == before + added


async def deaths(folder: Path, contract: str, task: TaskId, key: str) -> list[int]:
    """The exit codes of ``tests.dying``: of the death after the commit, at each statement, and of the survivor."""
    command = (sys.executable, "-m", "tests.dying", str(folder), contract, task.hex(), key)
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=PIPE)
    said, _ = await process.communicate()
    assert process.returncode == 0
    return [int(line.split()[1]) for line in said.splitlines()]


async def types_of(path: Path, task: TaskId) -> list[str]:
    """What has happened to *task*, in a log that has been found whole."""
    async with reading(path) as engine:
        return [row.entry.type for row in (await common_invariant(engine))[task]]


# A full disk


async def test_r05_on_a_full_disk_writes_are_refused_reads_are_served_and_space_is_all_it_takes(path: Path) -> None:
    engine = await open_to_serve(path)
    full = ENGINES["sqlite"].full
    assert full is not None
    async with serving(engine) as service:
        tasks = {vendor: (await service.create(vendor))["id"] for vendor in VENDORS}
        for vendor in VENDORS:
            await service.key(vendor)  # issued now, while there is space
        big = {"account": ACCOUNT, "contract": "chunkr", "model": "chunkr-parse", "input": {"text": "x" * 200_000}}
        async with full(engine):
            for _ in range(3):
                reply = await service.native("POST", "/tasks", big)
                assert (reply.status, reply.headers["retry-after"], code_of("ledger", reply)) == (503, "2", STORE)
            reply = await service.report(tasks["lemondata"], "completed", output={"text": "x" * 200_000})
            assert (reply.status, code_of("ledger", reply)) == (503, STORE)
            for vendor, task in tasks.items():
                assert (await service.client(vendor, query(vendor, spelled(task)))).status == 200
                assert (await service.task(task))["status"] == Status.QUEUED
            ready = await service.ask("GET", "/readyz")
            assert (ready.status, ready.json()["status"]) == (200, "degraded")
            assert len((await service.native("GET", "/tasks")).json()["tasks"]) == len(tasks)
        assert len(service.logged("store.failed")) == 4
        assert not service.logged("http.broke")
        assert (await service.native("POST", "/tasks", big)).status == 201
        assert (await service.ask("GET", "/readyz")).json()["status"] == "ready"
        for vendor, task in tasks.items():
            assert (await service.client(vendor, cancel(vendor, spelled(task)))).status in {200, 202}
        await common_invariant(engine)


STORE = "store_unavailable"
