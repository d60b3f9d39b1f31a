"""Reconciliation: the ledger against itself and against a provider's statement, line by line.

Totals are never compared: two faults that cancel each other out are two breaks. Memory is the statement's and a page
of tasks: what is found is handed on in chunks. What the statement's ids name is looked up; then the provider's tasks of
the period go by in order, for the lines that name none, and to find those that the statement has left out.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import NamedTuple

import msgspec

from ledger.break_log import CHUNK_MAX, BreakLog
from ledger.breaks import Break, Difference, Life, OpenBreak
from ledger.events import BreakKind, StatementRead
from ledger.ids import TaskId
from projections.booked import Asked, by_end, by_ids, by_provider_ids
from projections.break_rows import Count
from projections.follow import Progress, nobody
from projections.leftovers import Leftovers
from projections.matching import Assigned, Side, assign, compare, duplicate, missing_here, missing_there
from projections.statement_format import StatementFormat, whole_period
from projections.statements import NotAStatementError, Statement

LINES_PAGE = 500
"""Tasks compared before others have a turn."""


OF_OURSELVES = frozenset({BreakKind.UNSETTLED, BreakKind.STATUS_CONFLICT, BreakKind.AMOUNT})
"""What the ledger's own check of its tasks finds."""


class Billed(NamedTuple):
    """A statement, whose it is, and which period it covers; without a period, the one that its lines lie in."""

    provider: str
    statement: Statement
    form: StatementFormat = StatementFormat()
    since_us: int | None = None
    until_us: int | None = None


class Told(NamedTuple):
    """A difference, and its break as it was before this was found; None: it is new."""

    found: Difference
    known: Break | None

    @property
    def life(self) -> Life:
        """Where its break is now."""
        return Life.OPEN if self.known is None else self.known.life


Tell = Callable[[Told], None]


class Tally(msgspec.Struct):
    """What a reconciliation has come to so far, by kind of break."""

    found: dict[BreakKind, Count] = {}
    """All that differs, explained and corrected before included."""
    open: dict[BreakKind, Count] = {}
    new: dict[BreakKind, Count] = {}

    def add(self, told: Told) -> None:
        """Count one more."""
        _count(self.found, told.found)
        if told.known is None:
            _count(self.new, told.found)
        if told.life is Life.OPEN:
            _count(self.open, told.found)


def _count(counts: dict[BreakKind, Count], found: Difference) -> None:
    breaks, micros = counts.get(found.kind, Count(0, 0))
    counts[found.kind] = Count(breaks + 1, micros + found.at_stake_micros)


class Clerk:
    """Takes what comparisons find to the log; *writes* false: only tells it."""

    def __init__(self, log: BreakLog, *, by: str, now_us: int, writes: bool, tell: Tell) -> None:
        self._log, self._by, self._now_us, self._writes, self._tell = log, by, now_us, writes, tell
        self.tally = Tally()
        self._told: set[str] = set()
        """Breaks of tasks that the statement has told: the ledger's own check may find them as well."""

    async def take(self, found: Sequence[Difference], *, billed: Billed | None = None) -> None:
        """Open the breaks that are new, durable when this returns, and count and tell all of them."""
        statement = None if billed is None else billed.statement.digest
        owner = None if billed is None else billed.form.owner
        found = [one for one in found if one.break_id not in self._told]
        self._told.update(one.break_id for one in found if billed is not None and one.kind in OF_OURSELVES)
        for start in range(0, len(found), CHUNK_MAX):
            some = found[start : start + CHUNK_MAX]
            known = await self._log.known([one.break_id for one in some])
            if self._writes:
                orders = [OpenBreak(at_us=self._now_us, found=one, statement=statement, owner=owner) for one in some]
                await self._log.open(orders, by=self._by)
            for one in some:
                told = Told(one, known.get(one.break_id))
                self.tally.add(told)
                self._tell(told)

    async def has_read(self, billed: Billed, *, position: int) -> None:
        """Put on record that the statement was compared to its end."""
        statement = billed.statement
        event = StatementRead(
            at_us=self._now_us,
            statement=statement.digest,
            provider=billed.provider,
            lines=len(statement.lines),
            malformed=statement.malformed_count,
            billed_micros=statement.billed_micros,
            breaks=sum(count.breaks for count in self.tally.found.values()),
            position=position,
        )
        if self._writes:
            await self._log.read(event, by=self._by)


# A statement


def side_of(billed: Billed) -> Side:
    """What the statement is compared under.

    Raises:
        NotAStatementError: neither it nor whoever reads it tells its period.
    """
    since_us, until_us = billed.since_us, billed.until_us
    if since_us is None or until_us is None:
        times = [line.billed_at_us or line.at_us for line in billed.statement.lines]
        known = [at_us for at_us in times if at_us is not None]
        if not known:
            raise NotAStatementError("no line tells a time: name the period with since and until")
        first_us = whole_period(min(known), billed.form.period)[0]
        end_us = whole_period(max(known), billed.form.period)[1]
        since_us = first_us if since_us is None else since_us
        until_us = end_us if until_us is None else until_us
    form = billed.form
    return Side(billed.provider, billed.statement.currency, form, form.terms(), since_us, until_us)


async def against_statement(
    books: Asked, billed: Billed, *, progress: Progress = nobody
) -> AsyncIterator[list[Difference]]:
    """What differs between the books and the statement, in chunks.

    Raises:
        NotAStatementError: as `side_of`.
    """
    side, lines = side_of(billed), billed.statement.lines
    assigned = await _assigned(books, billed)
    yield [duplicate(repeat, side) for repeat in assigned.repeats]
    groups = list(assigned.groups.items())
    for start in range(0, len(groups), LINES_PAGE):
        some = groups[start : start + LINES_PAGE]
        yield [found for task, own in some for found in compare(assigned.tasks[task], own, side)]
        progress(start + len(some), len(lines))
    left = Leftovers(assigned.left, side.terms)
    async for found in _gone_by(books, assigned, left, side):
        yield found
    yield list(missing_here(left.rest(), side))
    progress(len(lines), len(lines))


async def _assigned(books: Asked, billed: Billed) -> Assigned:
    """The lines with the tasks that their ids name."""
    lines = billed.statement.lines
    provider_ids = list(dict.fromkeys(line.provider_task_id for line in lines if line.provider_task_id))
    ids: list[TaskId] = list(dict.fromkeys(line.task for line in lines if line.task is not None))
    by_provider_id = await by_provider_ids(books, billed.provider, provider_ids)
    by_id = {task: one for task, one in (await by_ids(books, ids)).items() if one.provider == billed.provider}
    return await asyncio.to_thread(assign, lines, by_provider_id, by_id)


async def _gone_by(books: Asked, assigned: Assigned, left: Leftovers, side: Side) -> AsyncIterator[list[Difference]]:
    """Let the provider's tasks of the period go by, in the order of their ends, page by page.

    Lines without ids may belong to tasks a window away from it; only those inside are missed when no line is theirs.
    """
    window_us = side.terms.window_us
    since_us, until_us = max(side.since_us - window_us, 0), side.until_us + window_us
    async for page in by_end(books, side.provider, since_us=since_us, until_us=until_us):
        found: list[Difference] = []
        for task in page:
            left.pass_by(task)
            if task.task in assigned.groups or task.net_micros <= 0:
                continue
            line = left.take(task)
            if line is not None:
                found += compare(task, [line], side)
            elif side.since_us <= (task.finished_at_us or 0) < side.until_us:
                found.append(missing_there(task))
        yield found
