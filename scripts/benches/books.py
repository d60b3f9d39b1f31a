"""Rows of the books: P12 what a report's totals take, P13 how fast the log is followed.

In process, on a store that is built for the run, the larger the longer a side is to be measured; no load but ourselves.
"""

import asyncio
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import NamedTuple

import uvloop

from ledger.engine import Engine
from ledger.events import Charged, Created, Held, Payload, Released, School, Terms
from ledger.ids import ENTROPY_BYTES, task_id
from ledger.records import Append, entry
from ledger.sqlite import open_to_read, open_to_serve
from projections.books.books import Books, open_books
from projections.follow import catch_up
from projections.reports.report import Wanted, draw
from scripts.benches.load import LoadError
from scripts.benches.measure import Effort, Figure, Pair, Row, by_turns

MOVEMENTS_MAX = 1_000_000
FOLLOWED_MAX = 200_000
"""Movements of the log that is followed, anew in each round. Both are had when a side takes a second."""
BATCH = 2000
"""Tasks that are written in one commit."""
ACCOUNTS, MODELS = 40, ("seedance-2.0", "seedance-1.5-pro", "sora-2", "wan-2.6", "veo-3.1")
BEGAN_US = 1_767_225_600_000_000
STEP_US = 1_000_000
ESTIMATE_MICROS = 1_500_000
BY_ACCOUNT = "SELECT account, type, sum(amount_micros) FROM events GROUP BY account, type"
SCAN = "SELECT position, task, type, account, amount_micros, data FROM events ORDER BY position"


def totals(effort: Effort) -> Iterator[Pair]:
    """A report by account, drawn from books that are up to date / the same sums over the log itself."""
    with _log(_movements(effort, MOVEMENTS_MAX)) as log:
        yield from by_turns(effort, log.drawn, lambda: log.read(BY_ACCOUNT, log.movements))


def followed(effort: Effort) -> Iterator[Pair]:
    """The log followed into new books / a bare scan of six of its columns."""
    with _log(_movements(effort, FOLLOWED_MAX)) as log:
        yield from by_turns(effort, log.followed, lambda: log.read(SCAN, log.events))


def _movements(effort: Effort, most: int) -> int:
    return max(BATCH, min(most, int(most * effort.seconds)))


class _Log(NamedTuple):
    """A log, and books that are up to date with it."""

    runner: asyncio.Runner
    path: Path
    engine: Engine
    books: Books
    movements: int
    events: int
    numbers: Iterator[int]

    def drawn(self) -> Figure:
        """Movements a second."""
        began_at = time.perf_counter()
        report = self.runner.run(draw(self.engine, self.books, Wanted()))
        seconds = time.perf_counter() - began_at
        if report.total.movements != self.movements:
            raise LoadError(f"{report.total.movements} movements are in the books, {self.movements} in the log")
        return Figure(self.movements / seconds)

    def followed(self) -> Figure:
        """Events a second."""
        path = self.path.with_name(f"books-{next(self.numbers)}")
        books = self.runner.run(open_books(path, self.engine))
        began_at = time.perf_counter()
        self.runner.run(catch_up(self.engine, books))
        seconds = time.perf_counter() - began_at
        self.runner.run(books.close())
        path.unlink()
        return Figure(self.events / seconds)

    def read(self, statement: str, rows: int) -> Figure:
        """*rows* a second, of the log that a statement reads in one go with Python's own driver."""
        with closing(sqlite3.connect(self.path)) as db:
            began_at = time.perf_counter()
            for _ in db.execute(statement):
                pass
            return Figure(rows / (time.perf_counter() - began_at))


@contextmanager
def _log(movements: int) -> Iterator[_Log]:
    """A log with so many movements, or a few more, and a third as many tasks."""
    tasks = -(-movements // 3)
    with tempfile.TemporaryDirectory(prefix="task-ledger-bench-") as folder:
        path = Path(folder, "ledger.db")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_fill(path, tasks))
            engine = runner.run(open_to_read(path))
            books = runner.run(open_books(path.with_name("books"), engine))
            try:
                runner.run(catch_up(engine, books))
                yield _Log(runner, path, engine, books, 3 * tasks, 4 * tasks, count())
            finally:
                runner.run(books.close())
                runner.run(engine.close())


async def _fill(path: Path, tasks: int) -> None:
    engine = await open_to_serve(path)
    try:
        for first in range(0, tasks, BATCH):
            await engine.commit([_task(number) for number in range(first, min(first + BATCH, tasks))])
    finally:
        await engine.close()


def _task(number: int) -> Append:
    """A task that was held for, charged and released; its row, which no figure is made of, is left out."""
    at_us, account = BEGAN_US + number * STEP_US, f"account-{number % ACCOUNTS}"
    task = task_id(at_us=at_us, lane=0, entropy=number.to_bytes(ENTROPY_BYTES, "big"))
    actual_micros = ESTIMATE_MICROS - 1 - number % 1000
    created = Created(
        at_us=at_us,
        account=account,
        contract="lemondata",
        capability="text-to-video",
        model=MODELS[number % len(MODELS)],
        provider="volcengine",
        terms=Terms(school=School.HOLD, rate_version="bench", estimated_micros=ESTIMATE_MICROS, cancellable=True),
        payload=Payload(input={"prompt": "A paper boat sails down a gutter in the rain", "duration": 5}),
    )
    events = (
        created,
        Held(at_us=at_us, amount_micros=ESTIMATE_MICROS, key="hold:1", cause="created"),
        Charged(at_us=at_us, amount_micros=actual_micros, key="charge:1", cause="completed"),
        Released(at_us=at_us, amount_micros=ESTIMATE_MICROS - actual_micros, key="release:1", cause="completed"),
    )
    entries = tuple(entry(event, actor="bench", recorded_at_us=event.at_us) for event in events)
    return Append(stream=task, account=account, expected=0, entries=entries)


ROWS = (
    Row("P12", "report / GROUP BY over the log", "events/s", pass_line=0.50, goal=1.0, measure=totals),
    Row("P13", "books followed / six-column scan", "events/s", pass_line=0.08, goal=0.20, measure=followed),
)
