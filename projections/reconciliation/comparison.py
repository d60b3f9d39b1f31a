"""A provider's statement against the books, line by line.

Totals are never compared: two faults that cancel each other out are two breaks. Memory is the statement's and a page
of tasks: what is found is handed on in chunks. What the statement's ids name is looked up; then the provider's tasks of
the period go by in order, for the lines that name none, and to find those that the statement has left out.

What other statements have billed for a task counts with what this one does; what this one has billed when it was read
before does not count twice, for its lines are known. Nor does what a statement has billed that this one replaces: what
of it is not billed here comes to nothing.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Container, Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

from msgspec.structs import replace

from ledger.breaks import Difference
from ledger.costs import Owed, Source, Whose
from ledger.events import BreakKind
from ledger.ids import Spelling, TaskId
from ledger.statement_rules import Turn
from projections.books.booked import Asked, Booked, by_end, by_end_but, by_ids, by_provider_ids
from projections.follow import Progress, nobody
from projections.reconciliation.differences import Side, compare, duplicate, missing_here, missing_there
from projections.reconciliation.known_lines import KnownLines, Replaced, known_lines, task_named
from projections.reconciliation.leftovers import Leftovers
from projections.reconciliation.line_names import names_of
from projections.reconciliation.matching import Assigned, assign, may_stay
from projections.reconciliation.statement_format import StatementFormat, whole_period
from projections.reconciliation.statement_records import NotAStatementError
from projections.reconciliation.statements import Line, Statement

BESIDE = frozenset({BreakKind.LATE, BreakKind.DUPLICATE})
"""What is told beside the task's own difference, if it has one."""
LINES_PAGE = 500
"""Tasks compared before others have a turn."""


class Billed(NamedTuple):
    """A statement, whose it is, and which period it covers; without a period, the one that its lines lie in."""

    provider: str
    statement: Statement
    form: StatementFormat = StatementFormat()
    since_us: int | None = None
    until_us: int | None = None
    replaces: str | None = None
    """The statement that this one stands for, by the SHA-256 of its file, in hex."""
    providers: Collection[str] | None = None
    """Providers that are told of outside the log: one that neither knows is refused. None: it may be a new one."""

    @property
    def source(self) -> Source:
        """Whose costs these are, and where it says so."""
        return Source(self.provider, self.statement.digest, self.form.credits_per_unit)


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


class Comparison:
    """A statement held against the books: what differs, and after that which line is billed for which task.

    Raises:
        NotAStatementError: as `side_of`.
    """

    def __init__(self, books: Asked, billed: Billed) -> None:
        self.billed, self.side = billed, side_of(billed)
        self._books = books
        self._lines = billed.statement.lines
        self._owners: dict[int, Booked] = {}
        """Whose each line is, by its number; that of nobody's is not in it."""
        self._agreeing: set[TaskId] = set()
        """Tasks that have lines here, and agree with all that they were billed."""
        self._known = KnownLines(Turn(), Replaced())
        """What the lines come to already, once `differences` has begun."""
        self._tells_all = True
        """Whether it tells of all its lines: asked for each task, and so here."""
        self._kept: dict[int, Booked] = {}
        """For whom lines were billed before, and may be still, by their numbers."""

    @property
    def replaced(self) -> frozenset[str]:
        """The statements that this one stands for, once `differences` has begun."""
        return self._known.replaced.statements

    @cached_property
    def _names(self) -> list[str]:
        """What each line is known by: asked for when anything is known, or is to be."""
        return names_of(self._lines)

    async def differences(self, *, progress: Progress = nobody) -> AsyncIterator[list[Difference]]:
        """What differs between the books and the statement, in chunks."""
        assigned = await self._assigned()
        yield [duplicate(one, self.side) for one in assigned.repeats if not self._known.is_passed(one.line)]
        groups = list(assigned.groups.items())
        for start in range(0, len(groups), LINES_PAGE):
            some = groups[start : start + LINES_PAGE]
            yield [found for task, own in some for found in self._compared(assigned.tasks[task], own)]
            progress(start + len(some), len(self._lines))
        left = Leftovers(self._known.own(assigned.left), self.side)
        async for found in self._gone_by(assigned, left):
            yield found
        for earlier, line, _ in assigned.repeats:
            owner = self._kept.get(line.number) or self._owners.get(earlier.number)
            if owner is not None:
                self._owners[line.number] = owner
        yield list(missing_here(left.rest(), self.side))
        progress(len(self._lines), len(self._lines))

    def owed(self) -> Iterator[Owed]:
        """What each line bills for whom, once `differences` has come to its end.

        A line in a currency that nobody agreed to has no amount that could be owed, and one that had been billed before
        it was corrected to that is given back: chosen.
        """
        for line, name in zip(self._lines, self._names, strict=True):
            if self._known.is_passed(line):
                continue
            whose = _whose(line, self._owners.get(line.number))
            at_us = self.side.since_us if line.at_us is None else line.at_us
            if self.side.is_foreign(line):
                yield Owed(name, whose, 0, at_us)
            else:
                yield Owed(name, whose, line.amount_micros, at_us, line.rounded_from)
        for gone in self._known.replaced.gone:
            yield replace(gone.owed, micros=0)

    def has_gone(self, found: Difference) -> bool:
        """Whether *found*, which a statement that this one replaces has shown and this one does not, differs no more.

        A task without a line that ended outside this statement's period is missing still; and what others tell of is
        theirs.
        """
        if self._known.leaves(found):
            return False
        return found.kind is not BreakKind.MISSING_THERE or self.side.since_us <= found.since_us < self.side.until_us

    def agrees(self, found: Difference) -> bool:
        """Whether the task that *found* is about has lines here, and agrees with all that it was billed."""
        return task_named(found.task) in self._agreeing

    async def _assigned(self) -> Assigned:
        """The lines with the tasks that their ids name, or for which they were billed before."""
        books, lines, provider = self._books, self._lines, self.billed.provider
        known = await known_lines(books, self.billed.source, lines, lambda: self._names, replaces=self.billed.replaces)
        self._known, self._tells_all = known, known.tells_all
        provider_ids = list(dict.fromkeys([line.provider_task_id for line in lines]))
        by_provider_id = await by_provider_ids(books, provider, [name for name in provider_ids if name])
        ids: list[TaskId] = []
        if len(by_provider_id) < len(provider_ids):
            unknown = [line.task for line in lines if line.provider_task_id not in by_provider_id]
            ids = [task for task in dict.fromkeys(unknown) if task is not None]
        before = self._billed_before(by_provider_id)
        found = await by_ids(books, list(dict.fromkeys([*ids, *before.values()])))
        by_id = {task: one for task, one in found.items() if one.purpose.provider == provider}
        if before:
            stay = ((line, by_id.get(before[line.number])) for line in lines if line.number in before)
            self._kept = {line.number: task for line, task in stay if task is not None and may_stay(line, task)}
        assigned = await asyncio.to_thread(assign, lines, by_provider_id, by_id, kept=self._kept)
        self._owners = assigned.owners
        for earlier, line, _ in assigned.repeats:
            known.pass_repeat(earlier, line)
        return assigned

    def _billed_before(self, by_provider_id: Container[str]) -> dict[int, TaskId]:
        """For which tasks those lines were billed before that no id of the provider's matches, by their numbers."""
        if not self._known:
            return {}
        return {
            line.number: task
            for line in self._lines
            if line.provider_task_id not in by_provider_id
            for task in self._known.tasks_of(line)
        }

    async def _gone_by(self, assigned: Assigned, left: Leftovers) -> AsyncIterator[list[Difference]]:
        """Let the provider's tasks of the period go by, in the order of their ends, page by page.

        Lines without ids may belong to tasks a window away from it; only those inside are missed when no line is
        theirs, and none has been read before.
        """
        side, window_us = self.side, self.side.terms.window_us
        since_us, until_us = max(side.since_us - window_us, 0), side.until_us + window_us
        ended = by_end(self._books, side.provider, since_us=since_us, until_us=until_us)
        if not left:  # then nothing is asked of those that have lines
            ended = by_end_but(self._books, side.provider, assigned.groups, since_us=since_us, until_us=until_us)
        async for page in ended:
            found: list[Difference] = []
            left.pass_by(page)
            for task in page:
                if task.task in assigned.groups or not self._known.tells_of(task):
                    continue
                before_micros = self._known.before_micros(task)
                due_micros = task.net_micros - before_micros
                if due_micros <= 0:
                    continue
                line = left.take(task, due_micros) if left else None
                if line is not None:
                    self._owners[line.number] = task
                    found += self._compared(task, [line])
                elif not before_micros and side.since_us <= (task.finished_at_us or 0) < side.until_us:
                    found.append(missing_there(task))
            yield found

    def _compared(self, task: Booked, lines: Sequence[Line]) -> Sequence[Difference]:
        own = lines if self._tells_all else self._known.told_by(task, lines)
        if not own:
            return ()
        found = compare(task, own, self.side, before_micros=self._known.before_micros(task))
        if not found or BESIDE.issuperset(one.kind for one in found):
            self._agreeing.add(task.task)
        return found


def _whose(line: Line, task: Booked | None) -> Whose:
    if task is None:
        return Whose(model=line.model)
    account, contract, model, _, _ = task.purpose
    return Whose(Spelling.UUID.spell(task.task), account, contract, model)
