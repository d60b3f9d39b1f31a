"""Reconciliation: what comparisons find becomes breaks, and what a statement bills becomes cost, both in the log.

That another statement is replaced comes first, for it may be refused; then the breaks, the costs, and last that the
statement was read. A run that was killed between any two commits is carried on by the next: what is in the log already
is not written again, and changes nothing of what is found.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from ledger.break_log import CHUNK_MAX, BreakLog
from ledger.breaks import Break, CorrectBreak, Difference, Life, OpenBreak
from ledger.events import BreakKind, StatementRead, StatementReplaced
from ledger.statement_rules import decide_replaced, refuse_superseded
from projections.books.booked import Asked
from projections.books.break_rows import Count, Wanted, all_breaks
from projections.books.snapshot import snapshot
from projections.follow import Progress, nobody
from projections.reconciliation.comparison import Billed, Comparison
from projections.reconciliation.cost_log import CostLog
from projections.reconciliation.providers import refuse_unknown

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
        self._shown: set[str] = set()
        """All breaks that the statement shows."""

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
            self._shown.update(told.found.break_id for told in some if billed is not None)
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
            UnknownProvider, StatementSuperseded, NotReplaceable: before anything is written.
        """
        async with snapshot(costs.books) as books:  # what others post meanwhile is not what was billed before
            comparison = Comparison(books, billed)
            if billed.providers is not None:
                await refuse_unknown(books, billed.provider, billed.providers)
            await self._replace(billed, costs, position=books.position)
            async for found in comparison.differences(progress=progress):
                await self.take(found, billed=billed)
        if self._writes:
            await costs.post(comparison.owed(), billed.source, by=self._by, now_us=self._now_us)
            await self._close(comparison, costs.books)
            await self._close_replaced(comparison, costs.books)
            await self._has_read(billed, costs, position=books.position)

    async def _replace(self, billed: Billed, costs: CostLog, *, position: int) -> None:
        """Put on record which statement this one replaces; where nothing is written, only see whether it may.

        Raises:
            StatementSuperseded, NotReplaceable: in that order.
        """
        statements, until = costs.statements, None if self._writes else position
        statement, provider = billed.statement.digest, billed.provider
        if billed.replaces is None:
            refuse_superseded(await statements.replaced(provider, until=until), statement)
            return
        order = StatementReplaced(at_us=self._now_us, statement=billed.replaces, provider=provider, by=statement)
        if self._writes:
            await statements.replace(order, by=self._by)
        else:
            is_read = await statements.is_read(provider, billed.replaces, until=until)
            decide_replaced(await statements.replaced(provider, until=until), order, is_read=is_read)

    async def _close(self, comparison: Comparison, books: Asked) -> None:
        """Correct the breaks that a statement has opened, and of which the tasks agree with their bills now."""
        provider, statement = comparison.billed.provider, comparison.billed.statement.digest
        for kind in GOING:
            async for page in all_breaks(books, Wanted(life=Life.OPEN, kind=kind, provider=provider)):
                gone = [one for one in page if one.statement is not None and comparison.agrees(one.found)]
                await self._correct(gone, reason=f"task and bills agree, with statement {statement}")

    async def _close_replaced(self, comparison: Comparison, books: Asked) -> None:
        """Correct the breaks that only statements have shown which this one replaces."""
        statement, replaced = comparison.billed.statement.digest, comparison.replaced
        if not replaced:
            return
        async for page in all_breaks(books, Wanted(life=Life.OPEN, provider=comparison.billed.provider)):
            left = [one for one in page if one.statement in replaced and one.break_id not in self._shown]
            gone = [one for one in left if comparison.has_gone(one.found)]
            await self._correct(gone, reason=f"statement {statement} stands for the one that showed it")

    async def _correct(self, gone: Sequence[Break], *, reason: str) -> None:
        """Correct these, which differ no more."""
        found = {one.break_id: one.found for one in gone}
        orders = [CorrectBreak(at_us=self._now_us, break_id=name, reason=reason, agrees=True) for name in found]
        for name in await self._log.correct_all(orders, by=self._by):
            _count(self.tally.closed, found[name])

    async def _has_read(self, billed: Billed, costs: CostLog, *, position: int) -> None:
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
        await costs.statements.read(event, by=self._by)
