"""Reconciliation: what comparisons find becomes breaks, and what a statement bills becomes cost, both in the log.

Breaks first, then the costs, and last that the statement was read. A run that was killed between any two commits is
carried on by the next: what is in the log already is not written again, and changes nothing of what is found.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from ledger.break_log import CHUNK_MAX, BreakLog
from ledger.breaks import Break, Difference, Life, OpenBreak
from ledger.events import BreakKind, StatementRead
from projections.books_snapshot import snapshot
from projections.break_rows import Count
from projections.comparison import Billed, Comparison
from projections.cost_log import CostLog
from projections.follow import Progress, nobody

OF_OURSELVES = frozenset({BreakKind.UNSETTLED, BreakKind.STATUS_CONFLICT, BreakKind.AMOUNT})
"""What the ledger's own check of its tasks finds."""


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

    async def read(self, billed: Billed, costs: CostLog, *, progress: Progress = nobody) -> None:
        """Compare a statement to its end; then post what it bills, and put on record that it was read.

        Raises:
            NotAStatementError: as `Comparison`.
        """
        async with snapshot(costs.books) as books:  # what others post meanwhile is not what was billed before
            comparison = Comparison(books, billed)
            async for found in comparison.differences(progress=progress):
                await self.take(found, billed=billed)
        if self._writes:
            await costs.post(comparison.owed(), billed.source, by=self._by, now_us=self._now_us)
            await self._has_read(billed, position=books.position)

    async def _has_read(self, billed: Billed, *, position: int) -> None:
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
        await self._log.read(event, by=self._by)
