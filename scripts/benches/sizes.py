"""Rows of large logs: P7 appends at a million events, P9 opening it, P10 what is kept, P21 a start after a kill.

They take minutes, for a log of that size has to be written first, so they are measured when they are asked for by name.
The log is decided by the real rules and committed by the real engine, in large batches. It is the smaller the shorter a
side is to be measured: a second stands for all of it.
"""

import asyncio
import os
import re
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import NamedTuple

import uvloop

from api.contracts import CONTRACTS
from ledger.batch import Batch
from ledger.catalogue import read
from ledger.commands import Claim, Create, TaskCommand
from ledger.entropy import Entropy
from ledger.ids import ENTROPY_BYTES, TaskId, task_id
from ledger.ledger import Ledger
from ledger.records import AccountRow
from ledger.sqlite import open_to_serve
from scripts.benches.load import STALL_SECONDS, LoadError, Traffic, drive, request
from scripts.benches.measure import Effort, Figure, Pair, Row, by_turns
from scripts.benches.servers import ACCOUNT, creates, ours, started

EVENTS_MAX, EVENTS_RESTARTED, EVENTS_SMALL = 1_000_000, 100_000, 10_000
EVENTS_A_TASK = 2
TASKS_MAX = 1_000_000
"""That are touched."""
BATCH = 2000
CREATES = 1000
"""In a round, on each side."""
CALLERS = 64
BEGAN_US = 1_767_225_600_000_000
STEP_US = 1000
READY_SECONDS, RESTARTED_SECONDS = 0.5, 2.0
WRITTEN_SECONDS = 0.2
"""Before the kill."""
RESIDENT_BYTES = 256 * 10**6
TOUCH_SECONDS_MAX = 3600.0
MODEL = "seedance-2.0"
_RESIDENT = re.compile(r"^VmRSS:\s+(\d+) kB$", re.MULTILINE)


class _Asker(NamedTuple):
    command: TaskCommand


def appended(effort: Effort) -> Iterator[Pair]:
    """Durable creates a second on a log of a million events / on one of ten thousand."""
    events = _scaled(EVENTS_MAX, effort)
    with (
        _runner() as runner,
        _store(runner, events) as large,
        _store(runner, min(EVENTS_SMALL, events)) as small,
        _serving(runner, large) as much,
        _serving(runner, small) as little,
    ):
        yield from by_turns(effort, lambda: runner.run(_creating(much)), lambda: runner.run(_creating(little)))


def opened(effort: Effort) -> Iterator[Pair]:
    """Seconds from opening a log of a million events until the first task was read and the first commit is durable."""
    with _runner() as runner, _store(runner, _scaled(EVENTS_MAX, effort)) as path:
        yield from by_turns(effort, lambda: runner.run(_opening(path)), lambda: Figure(READY_SECONDS))


def resident(effort: Effort) -> Iterator[Pair]:
    """Megabytes of the service after each of a million tasks was read once; measured once, whatever the rounds."""
    tasks, spelling = _scaled(TASKS_MAX, effort), CONTRACTS["lemondata"].spelling
    with _runner() as runner, _store(runner, tasks * EVENTS_A_TASK) as path, ours(path=path) as server:
        asks = (
            request("GET", f"/lemondata/v1/tasks/{spelling.spell(_id(number))}", key=server.client)
            for number in range(tasks)
        )
        (load,) = drive(server.address, Traffic(asks), seconds=TOUCH_SECONDS_MAX)
        if len(load.latencies) != tasks:
            raise LoadError(f"{len(load.latencies)} of {tasks} tasks were read")
        found = _RESIDENT.search(Path(f"/proc/{server.pid}/status").read_text(encoding="ascii"))
        if found is None:
            raise LoadError("this system does not tell how much memory a process has")
        yield Pair(Figure(int(found[1]) * 1024 / 1e6, load.busy), Figure(RESIDENT_BYTES / 1e6))


def restarted(effort: Effort) -> Iterator[Pair]:
    """Seconds from a start until `/readyz` answers, over 100,000 events that were being added to at a kill -9."""
    with _runner() as runner, _store(runner, _scaled(EVENTS_RESTARTED, effort)) as path:
        yield from by_turns(effort, lambda: _restarting(path), lambda: Figure(RESTARTED_SECONDS))


def _scaled(most: int, effort: Effort) -> int:
    return max(BATCH, min(most, int(most * effort.seconds)))


# A large log


@contextmanager
def _runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield runner


@contextmanager
def _store(runner: asyncio.Runner, events: int) -> Iterator[Path]:
    """A store with so many events, or a few more."""
    with tempfile.TemporaryDirectory(prefix="task-ledger-bench-") as folder:
        path = Path(folder, "ledger.db")
        runner.run(_fill(path, -(-events // EVENTS_A_TASK)))
        yield path


async def _fill(path: Path, tasks: int) -> None:
    engine = await open_to_serve(path)
    entropy = Entropy()
    try:
        for first in range(0, tasks, BATCH):
            batch: Batch[_Asker] = Batch(recorded_at_us=BEGAN_US, entropy=entropy)
            batch.accounts.learn([(await engine.accounts([ACCOUNT])).get(ACCOUNT, AccountRow(account=ACCOUNT))])
            for number in range(first, min(first + BATCH, tasks)):
                batch.decide(_Asker(_create(number)))
            await engine.commit(batch.appends)
    finally:
        await engine.close()


def _id(number: int) -> TaskId:
    entropy = number.to_bytes(ENTROPY_BYTES, "big")
    return task_id(at_us=BEGAN_US + number * STEP_US, lane=0, entropy=entropy)


def _create(number: int) -> Create:
    model = _CATALOGUE.find("lemondata", MODEL)
    return Create(
        task_id=_id(number),
        at_us=BEGAN_US + number * STEP_US,
        actor="bench",
        request_id=f"bench-{number}",
        claims=(Claim(account=ACCOUNT, operation="create", key=f"bench-{number}", fingerprint="0" * 64),),
        account=ACCOUNT,
        contract="lemondata",
        capability="text-to-video",
        model=MODEL,
        provider="unknown" if model is None else model.provider,
        terms=_CATALOGUE.terms["lemondata", MODEL],
        input={"prompt": "A paper boat sails down a gutter in the rain", "duration": 5, "resolution": "720p"},
        metadata={"order": "4711"},
    )


_CATALOGUE = read()


# What is done with it


@contextmanager
def _serving(runner: asyncio.Runner, path: Path) -> Iterator[Ledger]:
    async def start() -> Ledger:
        return await Ledger(await open_to_serve(path)).start()

    ledger = runner.run(start())
    try:
        yield ledger
    finally:
        runner.run(ledger.close())


_numbers = count(10 * TASKS_MAX)


async def _creating(ledger: Ledger) -> Figure:
    """Creates a second, by callers that each wait for their answer."""
    commands = iter([_create(next(_numbers)) for _ in range(CREATES)])

    async def caller() -> None:
        for command in commands:
            await ledger.handle(command)

    began_at = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return Figure(CREATES / (time.perf_counter() - began_at))


async def _opening(path: Path) -> Figure:
    began_at = time.perf_counter()
    ledger = await Ledger(await open_to_serve(path)).start()
    try:
        await ledger.task(_id(0), account=None)
        await ledger.handle(_create(next(_numbers)))
        return Figure(time.perf_counter() - began_at)
    finally:
        await ledger.close()


def _restarting(path: Path) -> Figure:
    with ours(path=path) as server:
        drive(server.address, Traffic(creates(server, "lemondata"), expects=201), seconds=WRITTEN_SECONDS)
        os.kill(server.pid, signal.SIGKILL)
    if not path.with_name(f"{path.name}-wal").stat().st_size:
        raise LoadError("the kill left nothing in the write-ahead log")
    began_at = time.perf_counter()
    with started(path) as address:
        drive(address, Traffic([request("GET", "/readyz", key="")], connections=1), seconds=STALL_SECONDS)
        return Figure(time.perf_counter() - began_at)


ROWS = (
    Row("P7", "append at 1M events / at 10k", "req/s", pass_line=0.85, goal=0.95, measure=appended, minutes=True),
    Row(
        "P9",
        "open to ready, 1M events / 0.5 s",
        "s",
        pass_line=1,
        goal=1,
        measure=opened,
        more_is_better=False,
        minutes=True,
    ),
    Row(
        "P10",
        "resident, 1M tasks read / 256 MB",
        "MB",
        pass_line=1,
        goal=1,
        measure=resident,
        more_is_better=False,
        minutes=True,
    ),
    Row(
        "P21",
        "kill -9 to ready, 100k events / 2 s",
        "s",
        pass_line=1,
        goal=1,
        measure=restarted,
        more_is_better=False,
        minutes=True,
    ),
)
