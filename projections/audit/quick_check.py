"""The quick check: whether a whole store is sound, told in a fraction of the time that its audit takes.

The store is looked through in parts, by several processes. That tells whether something may be wrong, and nothing else:
if nothing is, that is the report; if anything is, or cannot even be read, the audit goes through all of it and names
what, at which position. So what is found is what the audit finds, and nearly all stores are sound. All that the quick
check has to be is no coarser than the audit: `tests/test_mutations.py` holds it to each of a thousand mutations.

Each event is read once, with its task, and its place in the chain is checked there; what is no task's is sought out in
the order of the log. That nothing was passed over shows in the count: positions are the log's primary key, so as many
events as the head says, none of which lies beyond it, are all that there are.

All is as of one position, the end of the log in the snapshot of the engine; what others write meanwhile lies beyond it.

Measured in time of the processor, on a simulated history and a machine that was in use, where a bare six-column scan
took 0.95 us an event: 16, which the workers share, and 2 for what lies under it. Of the 16, whole rows and those of
tasks are read in 3.3, decoded and cut into histories in 1.8, chained in 2.7 and folded in 3.3 (half of that opens what
is sealed); columns, order, life and money take 1.4, claims 1.2, accounts 0.5. So two cores come to a tenth of the scan,
and with all Python but the drivers, the decoders, the ciphers and the hashes gone, to a fifth.

Alternative beaten: an audit that takes the quick way through what is right and the slow one through the rest, which
would save a broken store's second reading, for two ways in each of its checks.
"""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ledger.chain import GENESIS
from ledger.engine import Engine
from ledger.notes import Checkpoint
from ledger.records import Head
from ledger.sqlite_rows import read_event
from projections.audit.accounts import AccountBooks
from projections.audit.audit import audit, head_of, look_under
from projections.audit.findings import Check, Findings, Meter, Report
from projections.audit.lineage import compare_lineage
from projections.audit.log import LogPass
from projections.audit.quick_log import CheckedLog, Span
from projections.audit.quick_tasks import CheckedTasks, Work, check_work
from projections.audit.tree import TreeCheck
from projections.follow import Progress, nobody
from projections.replay.replay import parts_of
from projections.replay.replay_sql import HASHES, STRAYS
from projections.replay.task_pages import FIRST, LAST, reading
from projections.replay.workers import NICE, Crew, spread, workers_for

PART_EVENTS = 5000
"""Of tasks in a part: a twentieth of a second, so that nobody waits long for the last."""
SPAN_EVENTS = 50_000
"""Of the log that are passed over for those that are no task's."""
OTHERS_MAX = 10_000
"""Events of no task that wait for their turn while the engine is busy with what lies under it."""


class Means(NamedTuple):
    """By what a store is verified."""

    workers: int
    """On a long log: a thread of this process, and other processes."""
    nice: int = NICE
    """How much they give way to others."""
    checkpoints: Sequence[Checkpoint] = ()
    """What was signed of the log."""


async def verify(engine: Engine, path: Path, means: Means, *, progress: Progress = nobody) -> Report:
    """As `projections.audit.audit`, of the engine of that file."""
    report = await quick_check(engine, path, means, progress=progress)
    return report or await audit(engine, checkpoints=means.checkpoints, progress=progress)


async def quick_check(engine: Engine, path: Path, means: Means, *, progress: Progress = nobody) -> Report | None:
    """The report of a store in which nothing is wrong; None: something may be."""
    try:
        return await _quick_check(engine, path, means, progress)
    except Exception:  # noqa: BLE001 - whatever damage makes of it, the audit names it
        return None


async def _quick_check(engine: Engine, path: Path, means: Means, progress: Progress) -> Report | None:
    found = Findings()
    async with engine.snapshot():
        head = await head_of(engine, found)
        if head is None or not await _ends_there(engine, head):
            return None
        under = asyncio.create_task(look_under(engine, found))  # beside the others: it is read in a thread of its own
        try:
            check = _QuickCheck(engine, path, head, found, Meter(progress, total=head.position))
            with workers_for(head.position, means.workers, nice=means.nice) as crew:
                is_clean = await check.look(crew, under)
        finally:
            await under
        if not is_clean:
            return None
        await check.compare(means.checkpoints)
    if found.count:
        return None
    return Report(
        position=head.position,
        head=head.hash.hex(),
        events=head.position,
        tasks=check.tasks,
        found=0,
        first_bad_position=None,
        findings=(),
    )


async def _ends_there(engine: Engine, head: Head) -> bool:
    """Whether the last event stands where the head says, and has its hash; of an empty log there is none."""
    rows = await engine.after(head.position - 1, 2)
    wanted = [(head.position, head.hash)] if head.position else []
    return [(row.position, row.hash) for row in rows] == wanted and (bool(rows) or head.hash == GENESIS)


class _QuickCheck:
    """What has been looked through so far, of the log up to *head*."""

    def __init__(self, engine: Engine, path: Path, head: Head, found: Findings, meter: Meter) -> None:
        self.tasks = 0
        self._engine, self._path, self._head, self._found, self._meter = engine, path, head, found, meter
        self._books = AccountBooks(found)
        self._log = LogPass(head, found, meter, self._books, TreeCheck((), found))
        self._waiting: dict[int, CheckedLog] = {}
        """Spans by their first position, whose events have not had their turn."""
        self._turn = 1
        self._left = head.position
        """Events that have not been met."""
        self._recorded_at_us = 0
        """The latest that has been met."""

    async def look(self, crew: Crew, under: asyncio.Task[None]) -> bool:
        """Look through all parts; whether nothing is wrong with any."""
        results = spread(crew, check_work, ((work, (self._path, self._head.position, work)) for work in self._work()))
        while (one := await asyncio.to_thread(next, results, None)) is not None:
            _, checked = one
            if checked is None:
                return False
            if isinstance(checked, CheckedTasks):
                self.tasks += checked.tasks
                self._meet(checked.events, checked.recorded_at_us)
                self._books.part(checked.sums)
            else:
                self._waiting[checked.span.first] = checked
                self._meet(len(checked.others), checked.recorded_at_us)
                if under.done() or sum(len(span.others) for span in self._waiting.values()) > OTHERS_MAX:
                    await self._take_turns()
        await self._take_turns()
        return True

    def _meet(self, events: int, recorded_at_us: int) -> None:
        self._left -= events
        self._recorded_at_us = max(self._recorded_at_us, recorded_at_us)
        self._meter.add(events)

    def _work(self) -> Iterator[Work]:
        """All of the log, and all of the tasks."""
        end = self._head.position + 1
        with reading(self._path) as db:
            parts: list[Work] = [*parts_of(db, self._head.position, events=PART_EVENTS)]
        spans: list[Work] = [Span(first, min(first + SPAN_EVENTS, end)) for first in range(1, max(end, 2), SPAN_EVENTS)]
        return iter([*spans, *parts])

    async def _take_turns(self) -> None:
        """Fold the events of no task in the order of the log, as far as all before them are there."""
        while self._turn in self._waiting:
            checked = self._waiting.pop(self._turn)
            for row in checked.others:
                recorded = read_event((*row, None))
                self._log.beside(recorded, recorded.event)
            await self._log.compare_costs(self._engine)
            if checked.span.first == checked.span.beyond:
                return  # the log is empty
            self._turn = checked.span.beyond

    async def compare(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Compare what was gathered with what is kept beside the log, and with what was signed of it."""
        if self._left:
            self._found.add(Check.POSITIONS, f"{self._left:+} events of the log were not met")
        if self._recorded_at_us != self._head.recorded_at_us:
            self._found.add(Check.HEAD, "the head is of another time than the last event")
        await compare_lineage(self._engine, self._found)
        await self._log.compare_keys(self._engine)
        await self._books.compare(self._engine)
        with reading(self._path) as db:
            if db.execute(STRAYS, (FIRST, LAST)).fetchone() is not None:
                self._found.add(Check.ROW, "the id of a task is none")
            if checkpoints:
                tree = TreeCheck(checkpoints, self._found)
                for position, link in db.execute(HASHES, (self._head.position,)):
                    tree.add(position, link)
                tree.compare(end=self._head.position)
