"""The row of the audit: P18 how fast `verify` goes through a log, with everything kept beside it.

On a simulated history, the larger the longer a side is to be measured; processes that are begun for it count as well.
"""

import asyncio
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import uvloop

from ledger.catalogue import read
from ledger.sqlite import open_to_read, open_to_serve
from projections.audit.quick_check import Means, verify
from projections.replay.workers import workers_here
from scripts.benches.books import SCAN
from scripts.benches.load import LoadError
from scripts.benches.measure import Effort, Figure, Pair, Row, by_turns
from scripts.simulation.history import Setting, history
from scripts.simulation.play import ledger_over, play

TASKS_PER_SECOND = 20_000
"""Of the history, for each second that a side is to take: some six events each."""
TASKS_MIN, TASKS_MAX = 50, 100_000
ACCOUNTS, DAYS = 300, 42
SINCE_US = 1_790_812_800_000_000


def audited(effort: Effort) -> Iterator[Pair]:
    """The whole audit / a bare scan of six columns of the same log."""
    tasks = min(max(TASKS_MIN, int(TASKS_PER_SECOND * effort.seconds)), TASKS_MAX)
    with tempfile.TemporaryDirectory(prefix="task-ledger-bench-") as folder:
        path = Path(folder, "ledger.db")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_fill(path, tasks))
            yield from by_turns(effort, lambda: runner.run(_audit(path)), lambda: _scan(path))


async def _fill(path: Path, tasks: int) -> None:
    setting = Setting(seed=7, tasks=tasks, accounts=ACCOUNTS, since_us=SINCE_US, days=DAYS)
    engine = await open_to_serve(path)
    try:
        ledger = await ledger_over(engine, setting).start()
        await play(ledger, history(setting, read()), made=lambda _: None)
        await ledger.writer.close()
    finally:
        await engine.close()


async def _audit(path: Path) -> Figure:
    """Events a second."""
    engine = await open_to_read(path)
    try:
        began_at = time.perf_counter()
        report = await verify(engine, path, Means(workers_here(), nice=0))  # the yardstick does not give way either
        seconds = time.perf_counter() - began_at
    finally:
        await engine.close()
    if report.found:
        raise LoadError(f"the audit finds {report.found} faults in a history that was just made")
    return Figure(report.events / seconds)


def _scan(path: Path) -> Figure:
    """Events a second, of what Python's own driver reads in one go."""
    with closing(sqlite3.connect(path)) as db:
        began_at = time.perf_counter()
        events = sum(1 for _ in db.execute(SCAN))
        return Figure(events / (time.perf_counter() - began_at))


ROWS = (Row("P18", "verify / six-column scan", "events/s", pass_line=0.05, goal=0.30, measure=audited),)
