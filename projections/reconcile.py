"""Reconciliation: what comparisons find becomes breaks, and what a statement bills becomes cost, both in the log.

Breaks first, then the costs, and last that the statement was read. A run that was killed between any two commits is
carried on by the next: what is in the log already is not written again, and changes nothing of what is found.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from ledger.break_log import CHUNK_MAX, BreakLog
from ledger.breaks import Break, CorrectBreak, Difference, Life, OpenBreak
from ledger.events import BreakKind, StatementRead
from projections.booked import Asked
from projections.books_snapshot import snapshot
from projections.break_rows import Count, Wanted, list_breaks
from projections.comparison import Billed, Comparison
from projections.cost_log import CostLog
from projections.follow import Progress, nobody

GOING = (BreakKind.AMOUNT, BreakKind.MISSING_THERE)
"""What a later statement may put right: the rest of what is due, a line that comes late, or one that was corrected."""
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
    closed: dict[BreakKind, Count] = {}
    """Those that were open, and agree now."""

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

    def beside(self) -> "Clerk":
        """Another one, for what the ledger's own check finds beside a statement: counted apart, and not listed.

        So what is listed is what the statement shows. What this one has told, the other passes over.
        """
        other = Clerk(self._log, by=self._by, now_us=self._now_us, writes=self._writes, tell=lambda _: None)
        other._told = self._told
        return other

    async def take(self, found: Sequence[Difference], *, billed: Billed | None = None) -> None:
        """Open the breaks that are new, durable when this returns, and count and tell all of them."""
        statement = None if billed is None else billed.statement.digest
        owner = None if billed is None else billed.form.owner
        found = [one for one in found if one.break_id not in self._told]
        self._told.update(one.break_id for one in found if billed is not None and one.kind in OF_OURSELVES)
        for start in range(0, len(found), CHUNK_MAX):
            some = await self._covered(found[start : start + CHUNK_MAX])
            if self._writes:
                orders = [
                    OpenBreak(at_us=self._now_us, found=told.found, statement=statement, owner=owner) for told in some
                ]
                await self._log.open(orders, by=self._by)
            for told in some:
                self.tally.add(told)
                self._tell(told)

    async def _covered(self, found: Sequence[Difference]) -> list[Told]:
        """Each with the break that covers it; where those of its name are about other amounts, it takes a new one."""
        named, nth = list(found), 1
        while True:
            known = await self._log.known([one.break_id for one in named])
            told = [Told(one, known.get(one.break_id)) for one in named]
            past = [place for place, one in enumerate(told) if one.known and not one.known.covers(one.found)]
            if not past:
                return told
            nth += 1
            for place in past:
                named[place] = found[place].anew(nth)

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
            await self._close(comparison, costs.books)
            await self._has_read(billed, position=books.position)

    async def _close(self, comparison: Comparison, books: Asked) -> None:
        """Correct the breaks that a statement has opened, and of which the tasks agree with their bills now."""
        provider, statement = comparison.billed.provider, comparison.billed.statement.digest
        for kind in GOING:
            wanted = Wanted(life=Life.OPEN, kind=kind, provider=provider)
            while page := await list_breaks(books, wanted):
                gone = {one.break_id: one for one in page if one.statement is not None and comparison.agrees(one.found)}
                reason = f"task and bills agree, with statement {statement}"
                orders = [CorrectBreak(at_us=self._now_us, break_id=name, reason=reason, agrees=True) for name in gone]
                for name in await self._log.correct_all(orders, by=self._by):
                    _count(self.tally.closed, gone[name].found)
                wanted = wanted._replace(after=page[-1].break_id)

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
