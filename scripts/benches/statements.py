"""Rows of reconciliation: how fast a statement's lines are matched, P14 without ids of tasks, P15 with both.

In process, on a store that is built for the run. Ours is the comparison with the books alone, of a statement that has
been read; the yardstick splits the lines of the same file with Python's own reader and does nothing with them.
"""

import asyncio
import csv
import io
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import uvloop

from api.contracts import parse_any
from ledger.engine import Engine
from ledger.events import Charged, Completed, Created, Held, Released, School, Started, Terms
from ledger.ids import ENTROPY_BYTES, Spelling, TaskId, task_id
from ledger.money import credits_text
from ledger.records import Append, entry
from ledger.sqlite import open_to_serve
from ledger.times import US_PER_SECOND, rfc3339
from projections.books.books import Books, open_books
from projections.follow import catch_up
from projections.reconciliation.comparison import Billed, Comparison
from projections.reconciliation.statement_format import COLUMNS, StatementFormat
from projections.reconciliation.statements import Statement, read_statement
from scripts.benches.load import LoadError
from scripts.benches.measure import Effort, Figure, Pair, Row, by_turns

LINES_MAX = 100_000
"""Lines of the statement, and as many tasks. They are had when a side takes a second."""
LINES_MIN = 2000
BATCH = 2000
PROVIDER, MODELS = "volcengine", ("seedance-2.0", "seedance-1.5-pro", "seedream-5.0")
BEGAN_US = 1_767_225_600_000_000
STEP_US = 20 * US_PER_SECOND
ESTIMATE_MICROS = 1_500_000
PRICES = 500
"""Different amounts, so that lines without ids have a few tasks each that they could be."""


def without_ids(effort: Effort) -> Iterator[Pair]:
    """Lines that name no task, matched by model, amount and time / split by a bare reader."""
    yield from _matched(effort, named=False)


def with_ids(effort: Effort) -> Iterator[Pair]:
    """Lines that name their tasks by the provider's id and by ours / split by a bare reader."""
    yield from _matched(effort, named=True)


def _matched(effort: Effort, *, named: bool) -> Iterator[Pair]:
    with _month(max(LINES_MIN, min(LINES_MAX, int(LINES_MAX * effort.seconds))), named=named) as month:
        yield from by_turns(effort, month.compared, month.split)


class _Month(NamedTuple):
    """Tasks in the books, and a statement with a line for each of them."""

    runner: asyncio.Runner
    books: Books
    text: str
    statement: Statement

    def compared(self) -> Figure:
        """Lines a second."""
        began_at = time.perf_counter()
        found = self.runner.run(self._differences())
        seconds = time.perf_counter() - began_at
        if found:
            raise LoadError(f"{found} differences in a statement that has none")
        return Figure(len(self.statement.lines) / seconds)

    async def _differences(self) -> int:
        comparison = Comparison(self.books, Billed(PROVIDER, self.statement))
        return sum([len(found) async for found in comparison.differences()])

    def split(self) -> Figure:
        """The same."""
        began_at = time.perf_counter()
        lines = sum(1 for _ in csv.reader(io.StringIO(self.text)))
        return Figure(lines / (time.perf_counter() - began_at))


@contextmanager
def _month(lines: int, *, named: bool) -> Iterator[_Month]:
    with tempfile.TemporaryDirectory(prefix="task-ledger-bench-") as folder:
        path = Path(folder, "ledger.db")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            engine = runner.run(open_to_serve(path))
            books = runner.run(open_books(path.with_name("books"), engine))
            try:
                runner.run(_fill(engine, books, lines))
                text = _statement(lines, named=named)
                read = read_statement(text.encode(), StatementFormat(), task_in=parse_any)
                yield _Month(runner, books, text, read)
            finally:
                runner.run(books.close())
                runner.run(engine.close())


async def _fill(engine: Engine, books: Books, tasks: int) -> None:
    for first in range(0, tasks, BATCH):
        await engine.commit([_task(number) for number in range(first, min(first + BATCH, tasks))])
    await catch_up(engine, books)


def _task_id(number: int) -> TaskId:
    return task_id(at_us=BEGAN_US + number * STEP_US, lane=0, entropy=number.to_bytes(ENTROPY_BYTES, "big"))


def _price(number: int) -> int:
    return ESTIMATE_MICROS - 1 - number * 7919 % PRICES


def _task(number: int) -> Append:
    """A completed task; its row, which no figure is made of, is left out."""
    at_us, price = BEGAN_US + number * STEP_US, _price(number)
    created = Created(
        at_us=at_us,
        account=f"account-{number % 40}",
        contract="lemondata",
        capability="text-to-video",
        model=MODELS[number % len(MODELS)],
        provider=PROVIDER,
        terms=Terms(school=School.HOLD, rate_version="bench", estimated_micros=ESTIMATE_MICROS),
    )
    events = (
        created,
        Held(at_us=at_us, amount_micros=ESTIMATE_MICROS, key="hold:1", cause="created"),
        Started(at_us=at_us, provider_task_id=f"job-{number}"),
        Completed(at_us=at_us + STEP_US),
        Charged(at_us=at_us + STEP_US, amount_micros=price, key="charge:1", cause="completed"),
        Released(at_us=at_us + STEP_US, amount_micros=ESTIMATE_MICROS - price, key="release:1", cause="completed"),
    )
    entries = tuple(entry(event, actor="bench", recorded_at_us=event.at_us) for event in events)
    return Append(stream=_task_id(number), account=created.account, expected=0, entries=entries)


def _statement(lines: int, *, named: bool) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for number in range(lines):
        ended = rfc3339(BEGAN_US + number * STEP_US + STEP_US)
        ids = (f"job-{number}", Spelling.UUID.spell(_task_id(number))) if named else ("", "")
        told = (MODELS[number % len(MODELS)], "completed", credits_text(_price(number)), "credits")
        writer.writerow((f"L{number}", *ids, *told, "", ended, ended))
    return out.getvalue()


ROWS = (
    Row("P14", "lines matched, no ids / csv.reader", "lines/s", pass_line=0.08, goal=0.20, measure=without_ids),
    Row("P15", "lines matched by ids / csv.reader", "lines/s", pass_line=0.05, goal=0.20, measure=with_ids),
)
