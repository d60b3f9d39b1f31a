"""A statement's lines that no id matches: matched by model, amount and time while the period's tasks go by. Pure.

Lines of one model and one amount lie on a shelf, in the order of their times, so that a task finds the nearest without
looking at the others: a statement without ids takes little longer than one with them.
"""

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Iterable, Iterator

from projections.booked import Booked
from projections.statement_format import Terms
from projections.statements import Line

AMOUNTS_MAX = 64
"""Amounts looked at for a task, the nearest to its own: with a wide tolerance thousands may lie within it."""


class _Shelf:
    """Open lines of one model and one amount, the latest first: tasks come in order, and take them from the end."""

    def __init__(self) -> None:
        self._lines: list[tuple[int, int, Line]] = []

    def put(self, at_us: int, line: Line) -> None:
        """Lines come the latest first."""
        self._lines.append((-at_us, -line.number, line))

    def nearest(self, at_us: int, *, window_us: int) -> tuple[int, int] | None:
        """How far away the nearest line is, and its place; None when none is within the window."""
        right = bisect_left(self._lines, (-at_us, 0))
        far = [(abs(self._lines[place][0] + at_us), place) for place in (right - 1, right) if 0 <= place < len(self)]
        return min((one for one in far if one[0] <= window_us), default=None)

    def take(self, place: int) -> Line:
        return self._lines.pop(place)[2]

    def __len__(self) -> int:
        return len(self._lines)


class Leftovers:
    """Lines without a task, to be matched by model, amount and time while the period's tasks go by in order of time.

    A line that names a task by our id is that task's or nobody's; and where line and task each go by an id of the
    provider's, it is not the same one, or they would have been matched by it.
    """

    def __init__(self, lines: Iterable[Line], terms: Terms) -> None:
        self._terms = terms
        self._amounts: dict[tuple[str, bool], list[int]] = {}
        """The amounts for which there is a shelf, by model and whether the lines have an id of the provider's."""
        self._shelves: dict[tuple[str, bool, int], _Shelf] = {}
        ordered = sorted(lines, key=lambda line: (line.at_us or 0, line.number))
        self._rest = {line.number: line for line in ordered}
        for line in reversed(ordered):
            if line.model and line.at_us is not None and not line.our_task_id:
                self._put(line, line.at_us)
        self._candidates = _Candidates(self._rest.values())

    def _put(self, line: Line, at_us: int) -> None:
        sort = (line.model, bool(line.provider_task_id))
        if (*sort, line.amount_micros) not in self._shelves:
            insort(self._amounts.setdefault(sort, []), line.amount_micros)
        self._shelves.setdefault((*sort, line.amount_micros), _Shelf()).put(at_us, line)

    def take(self, task: Booked, due_micros: int) -> Line | None:
        """The line that bills this task *due_micros*, and of several the nearest in time. It is taken out."""
        assert task.finished_at_us is not None, "only what has ended is billed"
        found: list[tuple[int, int, _Shelf]] = []
        for shelf in self._shelves_for(task, due_micros):
            near = shelf.nearest(task.finished_at_us, window_us=self._terms.window_us)
            if near is not None:
                found.append((*near, shelf))
        if not found:
            return None
        _, place, shelf = min(found, key=lambda one: one[0])
        line = shelf.take(place)
        del self._rest[line.number]
        if not len(shelf):
            self._clear(line)
        return line

    def _clear(self, line: Line) -> None:
        """Take away the shelf that *line* was the last one of."""
        sort = (line.model, bool(line.provider_task_id))
        del self._shelves[(*sort, line.amount_micros)]
        amounts = self._amounts[sort]
        del amounts[bisect_left(amounts, line.amount_micros)]

    def _shelves_for(self, task: Booked, due_micros: int) -> Iterator[_Shelf]:
        """The lines of the task's model whose amounts agree with what is due."""
        terms = self._terms
        share = abs(due_micros) * terms.tolerance.numerator // terms.tolerance.denominator
        reach_micros = max(terms.tolerance_micros, share)
        for has_id in (False,) if task.identified else (False, True):
            amounts = self._amounts.get((task.model, has_id), [])
            middle = bisect_left(amounts, due_micros)
            first = max(bisect_left(amounts, due_micros - reach_micros), middle - AMOUNTS_MAX // 2)
            last = min(bisect_right(amounts, due_micros + reach_micros), middle + AMOUNTS_MAX // 2)
            for amount in amounts[first:last]:
                yield self._shelves[task.model, has_id, amount]

    def pass_by(self, task: Booked) -> None:
        """Take note of a task that ended in the period, matched or not; in the order of their ends."""
        self._candidates.pass_by(task)

    def rest(self) -> Iterator[tuple[Line, Booked | None]]:
        """The lines that stay without a task, each with the likeliest one."""
        for line in self._rest.values():
            yield line, self._candidates.of(line)


class _Candidates:
    """For each line, the task of its model that ended nearest to it."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self._waiting: dict[str, deque[Line]] = {}
        """Lines that no task has passed yet, by model, in the order of their times."""
        self._last: dict[str, Booked] = {}
        self._found: dict[int, Booked] = {}
        for line in lines:
            if line.model and line.at_us is not None:
                self._waiting.setdefault(line.model, deque()).append(line)

    def pass_by(self, task: Booked) -> None:
        waiting = self._waiting.get(task.model)
        if waiting is None or task.finished_at_us is None:
            return
        last = self._last.get(task.model)
        while waiting and (waiting[0].at_us or 0) <= task.finished_at_us:
            line = waiting.popleft()
            is_last = last is not None and _apart(line, last) <= _apart(line, task)
            self._found[line.number] = last if last is not None and is_last else task
        self._last[task.model] = task

    def of(self, line: Line) -> Booked | None:
        return self._found.get(line.number) or self._last.get(line.model)


def _apart(line: Line, task: Booked) -> int:
    """Microseconds between the ends of both."""
    return abs((line.at_us or 0) - (task.finished_at_us or 0))
