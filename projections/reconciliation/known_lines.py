"""What a statement's lines have come to before it is compared: in this reading of it, an earlier one, or another's.

A statement that was read before tells nothing of what others have billed since it came (`ledger.statement_rules`): of a
line that one of them has moved, and of a task that one of them bills. They have told of it.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ledger.breaks import Difference
from ledger.costs import Known, Source
from ledger.ids import Spelling, TaskId
from ledger.statement_rules import Turn
from projections.books.booked import Asked, Booked
from projections.books.cost_rows import lines_known, lines_of, stream_version
from projections.books.statement_rows import replaced_by, turn_of
from projections.reconciliation.statements import Line


class Replaced(NamedTuple):
    """The statements that one stands for, now or before, and lines of theirs that it does not name."""

    statements: frozenset[str] = frozenset()
    gone: Sequence[Known] = ()


class KnownLines:
    """The lines of a statement that have been read before, and the tasks that were billed by them."""

    def __init__(self, turn: Turn, replaced: Replaced) -> None:
        self.turn, self.replaced = turn, replaced
        self._tasks: dict[int, list[TaskId]] = {}
        """For which task each line was billed, by its number."""
        self._counted: Counter[TaskId] = Counter()
        """Micro-credits that the tasks were billed before by these very lines, or by those that they stand for."""
        self._passed: set[int] = set()
        """The numbers of lines in which the statement has no say any more."""
        self._passed_ids: set[str] = set()
        """The ids that they have, or empty."""
        self._untold: set[TaskId] = set()
        """Tasks of which others tell."""
        for gone in replaced.gone:
            self._count(gone, _task_of(gone))

    def __bool__(self) -> bool:
        """Whether any has been read before."""
        return bool(self._tasks)

    @property
    def tells_all(self) -> bool:
        """Whether there is none of which others tell."""
        return not self.turn.is_read and not self._passed

    def take(self, line: Line, known: Known) -> None:
        """Take note of what the line comes to already."""
        self._tasks[line.number] = tasks = _task_of(known)
        if self.turn.has_say(known.came):
            self._count(known, tasks)
        else:
            self._passed.add(line.number)
            self._passed_ids.add(line.line_id)
            self._untold.update(tasks)

    def _count(self, known: Known, tasks: Sequence[TaskId]) -> None:
        for task in tasks:
            self._counted[task] += known.owed.micros

    def pass_repeat(self, earlier: Line, line: Line) -> None:
        """Leave a line that repeats an *earlier* one as it is, if that is left: whose it is was told with it."""
        if earlier.number in self._passed and line.number in self._tasks:
            self._passed.add(line.number)

    def is_passed(self, line: Line) -> bool:
        """Whether the statement has no say in the line any more."""
        return line.number in self._passed

    def own(self, lines: Sequence[Line]) -> Sequence[Line]:
        """Those in which it has a say."""
        return [line for line in lines if line.number not in self._passed] if self._passed else lines

    def tasks_of(self, line: Line) -> Sequence[TaskId]:
        """The task that the line was billed for, if it was for one and may be still."""
        return () if line.number in self._passed else self._tasks.get(line.number, ())

    def tells_of(self, task: Booked) -> bool:
        """Whether the statement tells of a task for which it has no line."""
        return task.task not in self._untold and self.turn.tells_of(task.billed_came)

    def told_by(self, task: Booked, lines: Sequence[Line]) -> Sequence[Line]:
        """Those of a task's lines by which the statement tells of it; none: others tell of it."""
        own = self.own(lines)
        if self.turn.tells_of(task.billed_came) and not (self.turn.is_read and len(own) < len(lines)):
            return own
        self._untold.add(task.task)
        return ()

    def leaves(self, found: Difference) -> bool:
        """Whether a difference is of a line or a task of which others tell."""
        return task_named(found.task) in self._untold or not self._passed_ids.isdisjoint(found.line_ids or ("",))

    def before_micros(self, task: Booked) -> int:
        """What other statements have billed for the task; also where all bills together come to nothing."""
        return task.billed_micros - self._counted.get(task.task, 0)


async def known_lines(
    books: Asked, source: Source, lines: Sequence[Line], names: Callable[[], Sequence[str]], *, replaces: str | None
) -> KnownLines:
    """Those of *lines* that the *books* have, for a statement that *replaces* another.

    What they are known by is asked for when anything is.
    """
    provider, statement = source.provider, source.statement
    before = set(await replaced_by(books, provider, statement))
    replaced = await _replaced(books, provider, names, before=before, replaces=replaces)
    comes_anew = replaces is not None and replaces not in before
    known = KnownLines(Turn() if comes_anew else await turn_of(books, provider, statement), replaced)
    if await stream_version(books, provider):
        same = await lines_known(books, provider, names())
        for line, name in zip(lines, names(), strict=True):
            if name in same:
                known.take(line, same[name])
    return known


async def _replaced(
    books: Asked, provider: str, names: Callable[[], Sequence[str]], *, before: set[str], replaces: str | None
) -> Replaced:
    statements = set(before)
    if replaces is not None:
        statements |= {replaces, *await replaced_by(books, provider, replaces)}
    if not statements:
        return Replaced()
    named, gone = set(names()), []
    async for page in lines_of(books, provider, statements):
        gone += [one for one in page if one.owed.line not in named]
    return Replaced(frozenset(statements), gone)


def task_named(spelled: str | None) -> TaskId | None:
    """The task that a difference or a line names."""
    return None if spelled is None else Spelling.UUID.parse(spelled)


def _task_of(known: Known) -> list[TaskId]:
    """The task that the line was billed for, if it was for one."""
    task = task_named(known.owed.whose.task)
    return [] if task is None else [task]
