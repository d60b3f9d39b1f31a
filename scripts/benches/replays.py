"""Rows of replay: P5 against a bare scan, P6 against the `eventsourcing` library, P19 what a server notices of it.

Ours is what `task-ledger replay --verify` does of a long log: every task folded, content unsealed, its row compared to
the byte, and every account added up, in processes that have begun already. A log of seven events a task, two of them
with sealed content. The library keeps its events in SQLite as well, and is asked for each of its aggregates in turn.
"""

import asyncio
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import cycle, takewhile
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from ledger.credit import move_of
from ledger.events import (
    Charged,
    Completed,
    Created,
    Held,
    Payload,
    Progressed,
    Released,
    School,
    Started,
    TaskEvent,
    Terms,
)
from ledger.ids import ENTROPY_BYTES, task_id
from ledger.records import Append, Entry, entry
from ledger.seals import KEY_BYTES, NONCE_BYTES, seal
from ledger.sqlite import open_to_serve
from ledger.task import NO_TASK, fold
from ledger.views import row_of
from projections.replay.ranges import Until, replay_part
from projections.replay.replay import parts_of
from projections.replay.task_pages import Part, reading
from projections.replay.workers import NICE, Crew, spread, workers_for, workers_here
from scripts.benches.load import LoadError, Traffic, drive, request
from scripts.benches.measure import Effort, Figure, Pair, Row, by_turns, percentile
from scripts.benches.servers import ours

TASKS_MAX, TASKS_MIN = 60_000, 300
"""Of the log, if a side takes a second."""
LIBRARY_SHARE = 20
"""The library replays a task out of so many: it is slower, and the figure is a rate."""
BATCH = 2000
READ_TASKS = 256
P99 = 99
ACCOUNTS = 40
BEGAN_US, STEP_US = 1_767_225_600_000_000, 1_000_000
ESTIMATE_MICROS = 1_500_000
SCAN = "SELECT position, task, type, account, amount_micros, data FROM events ORDER BY position"
PROMPT = "A paper boat sails down a gutter in the rain"


def against_scan(effort: Effort) -> Iterator[Pair]:
    """Replay / a bare scan of six columns with Python's own driver."""
    with _log(_tasks(effort)) as log:
        yield from by_turns(effort, log.replayed, log.scanned)


def against_library(effort: Effort) -> Iterator[Pair]:
    """Replay / the library's, of the same history."""
    try:
        from scripts.benches.library import History  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise LoadError("P6 needs the library: pip install task-ledger[bench]") from error
    with _log(_tasks(effort)) as log:
        history = History(log.folder / "library.db", [life(number) for number in range(0, log.tasks, LIBRARY_SHARE)])
        yield from by_turns(effort, log.replayed, history.replayed)


def beside_a_server(effort: Effort) -> Iterator[Pair]:
    """The 99th percentile of 64 readers' latency while the log is replayed again and again / the same without."""
    tasks = _tasks(effort)
    with _log(tasks, nice=NICE) as log, ours(path=log.path) as server:
        paths = [f"/lemondata/v1/tasks/{task}" for task in server.create("lemondata", READ_TASKS)]
        asks = cycle([request("GET", path, key=server.client) for path in paths])

        def alone() -> Figure:
            (load,) = drive(server.address, Traffic(asks), seconds=effort.seconds)
            return Figure(percentile(load.latencies, P99) * 1000, load.busy)

        def among() -> Figure:
            with ThreadPoolExecutor(1) as thread:
                stop = threading.Event()
                replaying = thread.submit(log.replay_until, stop)
                try:
                    found = alone()
                finally:
                    stop.set()
                return found._replace(beside=replaying.result())

        yield from by_turns(effort, among, alone)


def _tasks(effort: Effort) -> int:
    return max(TASKS_MIN, min(TASKS_MAX, int(TASKS_MAX * effort.seconds)))


class _Log(NamedTuple):
    """A log, and processes that fold it."""

    folder: Path
    path: Path
    crew: Crew
    parts: Sequence[tuple[int, Part]]
    tasks: int
    events: int

    def replayed(self) -> Figure:
        """Events a second."""
        began_at = time.perf_counter()
        parts = [(number, (self.path, part, Until(self.events))) for number, part in self.parts]
        found = [one for _, one in spread(self.crew, replay_part, parts)]
        seconds = time.perf_counter() - began_at
        if sum(one.events for one in found) != self.events or any(one.differences for one in found):
            raise LoadError("the replay is not that of the log")
        return Figure(self.events / seconds)

    def replay_until(self, stop: threading.Event) -> float:
        """Replay part after part, and from the first again; events a second."""
        began_at, events = time.perf_counter(), 0
        parts = ((number, (self.path, part, Until(self.events))) for number, part in cycle(self.parts))
        for _, one in spread(self.crew, replay_part, takewhile(lambda _: not stop.is_set(), parts)):
            events += one.events
        return events / (time.perf_counter() - began_at)

    def scanned(self) -> Figure:
        """Events a second."""
        with closing(sqlite3.connect(self.path)) as db:
            began_at = time.perf_counter()
            for _ in db.execute(SCAN):
                pass
            return Figure(self.events / (time.perf_counter() - began_at))


@contextmanager
def _log(tasks: int, *, nice: int = 0) -> Iterator[_Log]:
    """*nice*: how much the replay gives way; beside a yardstick, which does not, not at all."""
    with tempfile.TemporaryDirectory(prefix="task-ledger-bench-") as folder:
        path = Path(folder, "ledger.db")
        asyncio.run(_fill(path, tasks))
        events = tasks * len(life(0))
        with reading(path) as db:
            parts = [*enumerate(parts_of(db, events))]
        with workers_for(events, workers_here(), nice=nice) as crew:
            yield _Log(Path(folder), path, crew, parts, tasks, events)


async def _fill(path: Path, tasks: int) -> None:
    engine = await open_to_serve(path)
    try:
        for first in range(0, tasks, BATCH):
            await engine.commit([_append(number) for number in range(first, min(first + BATCH, tasks))])
    finally:
        await engine.close()


def life(number: int) -> list[TaskEvent]:
    """What happens to a task that completes and is charged a little less than was held."""
    at_us = BEGAN_US + number * STEP_US
    actual_micros = ESTIMATE_MICROS - 1 - number % 1000
    asset = {"kind": "video", "url": f"https://cdn.example.test/{number}.mp4", "width": 1280, "height": 720}
    return [
        Created(
            at_us=at_us,
            account=f"account-{number % ACCOUNTS}",
            contract="lemondata",
            capability="text-to-video",
            model="seedance-2.0",
            provider="volcengine",
            terms=Terms(school=School.HOLD, rate_version="bench", estimated_micros=ESTIMATE_MICROS),
            payload=Payload(input={"prompt": PROMPT, "duration": 5}),
        ),
        Held(at_us=at_us, amount_micros=ESTIMATE_MICROS, key="hold:1", cause="created"),
        Started(at_us=at_us + 1, worker="w1", provider_task_id=f"cgt-{number}"),
        Progressed(at_us=at_us + 2, percent=40, stage="render"),
        Completed(at_us=at_us + 3, payload=Payload(output={"assets": [asset]}), usage={"video_seconds": 5}),
        Charged(at_us=at_us + 3, amount_micros=actual_micros, key="charge:settle:1", cause="completed"),
        Released(
            at_us=at_us + 3, amount_micros=ESTIMATE_MICROS - actual_micros, key="release:settle:1", cause="completed"
        ),
    ]


def _append(number: int) -> Append:
    """The whole life of a task, sealed, and its row."""
    events, key = life(number), number.to_bytes(KEY_BYTES, "big")
    stream = task_id(at_us=events[0].at_us, lane=0, entropy=number.to_bytes(ENTROPY_BYTES, "big"))
    task = fold(events, stream)
    entries = [_sealed(event, stream, key, version) for version, event in enumerate(events, start=1)]
    return Append(
        stream=stream,
        account=task.account,
        expected=0,
        entries=tuple(entries),
        task=row_of(task),
        seal_key=key,
        move=move_of(NO_TASK, task),
    )


def _sealed(event: TaskEvent, stream: bytes, key: bytes, version: int) -> Entry:
    told = entry(event, actor="bench", recorded_at_us=event.at_us)
    if told.payload is None:
        return told
    nonce = version.to_bytes(NONCE_BYTES, "big")
    payload = seal(told.payload, key=key, nonce=nonce, stream=stream, version=version)
    return replace(told, payload=payload)


ROWS = (
    Row("P5", "replay / six-column scan", "events/s", pass_line=0.80, goal=1.0, measure=against_scan),
    Row("P6", "replay / library's replay", "events/s", pass_line=8.0, goal=10.0, measure=against_library),
    Row(
        "P19",
        "GET p99 beside a replay / alone",
        "ms",
        pass_line=3,
        goal=2,
        measure=beside_a_server,
        more_is_better=False,
    ),
)
