"""The sieve: a whole store looked through quickly, in parts and by several processes, before any audit.

It tells whether something may be wrong, and nothing else. If nothing is, that is the report; if anything is, or cannot
even be read, the audit goes through all of it and names what, at which position. So what is found is what the audit
finds, and a store that is sound, as nearly all are, is verified in a fraction of the time. All that the sieve has to be
is no coarser than the audit: `tests/test_mutations.py` holds it to each of a thousand mutations.

All is as of one position, the end of the log in the snapshot of the engine; what others write meanwhile lies beyond it.
Measured in time of the processor, on a simulated history: 16 us an event (a third of it the chain, a half the tasks),
which two processes share, where the audit takes 31 in one, and a bare six-column scan 0.9.

Alternative beaten: an audit that takes the quick way through what is right and the slow one through the rest, which
would save a broken store's second reading, for two ways in each of its checks.
"""

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import NamedTuple, TypeAlias

from ledger.chain import GENESIS
from ledger.engine import Engine
from ledger.notes import Checkpoint
from ledger.records import Head
from ledger.sqlite_rows import read_event
from projections.audit import audit, head_of, look_under
from projections.audit_accounts import AccountBooks
from projections.audit_findings import Check, Findings, Meter, Report, differences
from projections.audit_lineage import compare_lineage
from projections.audit_log import LogPass
from projections.audit_tree import TreeCheck
from projections.follow import Progress, nobody
from projections.parts import NICE, spread, workers_for
from projections.replay import PART_EVENTS, parts_of
from projections.replay_ranges import Until
from projections.replay_sql import HASHES, STRAYS
from projections.sieve_log import SiftedLog, Span, sift_log
from projections.sieve_tasks import SiftedTasks, sift_tasks
from projections.task_pages import FIRST, LAST, Part, reading

OTHERS_MAX = 10_000
"""Events of no task that wait for their turn while the engine is busy with what lies under it."""

_Work: TypeAlias = Span | Part


class Means(NamedTuple):
    """By what a store is verified."""

    workers: int
    """Processes, of a long log."""
    nice: int = NICE
    """How much they give way to others."""
    checkpoints: Sequence[Checkpoint] = ()
    """What was signed of the log."""


async def verify(engine: Engine, path: Path, means: Means, *, progress: Progress = nobody) -> Report:
    """As `projections.audit.audit`, of the engine of that file."""
    report = await sift(engine, path, means, progress=progress)
    return report or await audit(engine, checkpoints=means.checkpoints, progress=progress)


async def sift(engine: Engine, path: Path, means: Means, *, progress: Progress = nobody) -> Report | None:
    """The report of a store in which nothing is wrong; None: something may be."""
    try:
        return await _sift(engine, path, means, progress)
    except Exception:  # noqa: BLE001 - whatever damage makes of it, the audit names it
        return None


async def _sift(engine: Engine, path: Path, means: Means, progress: Progress) -> Report | None:
    found = Findings()
    async with engine.snapshot():
        head = await head_of(engine, found)
        if head is None or not await _ends_there(engine, head):
            return None
        under = asyncio.create_task(look_under(engine, found))  # beside the others: it is read in a thread of its own
        try:
            sieve = _Sieve(engine, path, head, found, Meter(progress, total=2 * head.position))
            with workers_for(head.position, means.workers, nice=means.nice) as executor:
                is_clean = await sieve.look(executor, under)
        finally:
            await under
        if not is_clean:
            return None
        await sieve.compare(means.checkpoints)
    if found.count:
        return None
    return Report(
        position=head.position,
        head=head.hash.hex(),
        events=head.position,
        tasks=sieve.tasks,
        found=0,
        first_bad_position=None,
        findings=(),
    )


async def _ends_there(engine: Engine, head: Head) -> bool:
    """Whether the last event stands where the head says; of an empty log there is none."""
    rows = await engine.after(head.position - 1, 2)
    return [row.position for row in rows] == ([head.position] if head.position else [])


class _Sieve:
    """What has been looked through so far, of the log up to *head*."""

    def __init__(self, engine: Engine, path: Path, head: Head, found: Findings, meter: Meter) -> None:
        self.tasks = 0
        self._engine, self._path, self._head, self._found, self._meter = engine, path, head, found, meter
        self._books = AccountBooks(found)
        self._log = LogPass(head, found, meter, self._books, TreeCheck((), found))
        self._waiting: dict[int, SiftedLog] = {}
        """Spans by their first position, whose events of no task have not had their turn."""
        self._turn = 1
        self._of_tasks = head.position
        """Events of tasks that have been met in the log, and not in a task's history; in the end."""
        self._end = Head(lane=head.lane, position=0, hash=GENESIS)
        """What the head should be, going by what has had its turn."""

    async def look(self, executor: Executor, under: asyncio.Task[None]) -> bool:
        """Look through all parts; whether nothing is wrong with any."""
        results = spread(executor, _sifted, ((work, (self._path, self._head.position, work)) for work in self._work()))
        while (one := await asyncio.to_thread(next, results, None)) is not None:
            _, sifted = one
            if sifted is None:
                return False
            if isinstance(sifted, SiftedTasks):
                self.tasks += sifted.tasks
                self._of_tasks -= sifted.events
                self._books.part(sifted.sums)
                self._meter.add(sifted.events)
            else:
                self._waiting[sifted.span.first] = sifted
                self._of_tasks -= len(sifted.others)
                self._meter.add(sifted.span.beyond - sifted.span.first)
                if under.done() or sum(len(span.others) for span in self._waiting.values()) > OTHERS_MAX:
                    await self._take_turns()
        await self._take_turns()
        return True

    def _work(self) -> Iterator[_Work]:
        """All of the log, and all of the tasks."""
        end = self._head.position + 1
        with reading(self._path) as db:
            parts: list[_Work] = [*parts_of(db, self._head.position)]
        spans: list[_Work] = [
            Span(first, min(first + PART_EVENTS, end)) for first in range(1, max(end, 2), PART_EVENTS)
        ]
        return iter([*spans, *parts])

    async def _take_turns(self) -> None:
        """Fold the events of no task in the order of the log, as far as all before them are there."""
        while self._turn in self._waiting:
            sifted = self._waiting.pop(self._turn)
            for row in sifted.others:
                recorded = read_event((*row, None))
                self._log.beside(recorded, recorded.event)
            await self._log.compare_costs(self._engine)
            self._end = Head(
                lane=self._head.lane,
                position=sifted.span.beyond - 1,
                hash=sifted.hash,
                recorded_at_us=max(self._end.recorded_at_us, sifted.recorded_at_us),
            )
            if sifted.span.first == sifted.span.beyond:
                return  # the log is empty
            self._turn = sifted.span.beyond

    async def compare(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Compare what was gathered with what is kept beside the log, and with what was signed of it."""
        for detail in differences("the head", self._head, self._end):
            self._found.add(Check.HEAD, detail)
        if self._of_tasks:
            self._found.add(Check.ROW, f"the log holds {self._of_tasks:+} events against the histories of all tasks")
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


def _sifted(path: Path, until: int, work: _Work) -> SiftedLog | SiftedTasks | None:
    """What a process does for it."""
    return sift_log(path, work) if isinstance(work, Span) else sift_tasks(path, work, Until(until))
