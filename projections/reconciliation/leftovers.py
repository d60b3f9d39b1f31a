"""A statement's lines that no id matches: matched by model, amount and time while the period's tasks go by. Pure.

Lines of one model and one amount lie on a shelf, in the order of their times, so that a task finds the nearest without
looking at the others: a statement without ids takes little longer than one with them.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator, Sequence

from ledger.money import Rounding, rounded
from projections.books.booked import Booked
from projections.reconciliation.differences import Side
from projections.reconciliation.statements import Line

AMOUNTS_MAX = 64
"""Amounts looked at for a task, the nearest to its own: with a wide tolerance thousands may lie within it."""


class _Shelf:
    """Open lines of one model and one amount, the latest first: tasks come in order, and take them from the end."""

    __slots__ = ("lines", "times")

    def __init__(self) -> None:
        self.times: list[int] = []
        """Negative, and so in order: whole numbers are found twice as fast as pairs of them."""
        self.lines: list[Line] = []
        """The latest first, and of one time the last of the statement first."""

    def nearest(self, at_us: int) -> tuple[int, int]:
        """How far away the nearest line is, and its place."""
        times = self.times
        place = bisect_right(times, -at_us)
        if place == 0:
            return times[0] + at_us, 0
        later_us = -at_us - times[place - 1]
        if place == len(times) or later_us <= times[place] + at_us:
            return later_us, place - 1
        return times[place] + at_us, place

    def take(self, place: int) -> Line:
        del self.times[place]
        return self.lines.pop(place)


class Leftovers:
    """Lines without a task, to be matched by model, amount and time while the period's tasks go by in order of time.

    A line that names a task by our id is that task's or nobody's; and where line and task each go by an id of the
    provider's, it is not the same one, or they would have been matched by it. One in a currency that nobody agreed to
    has no amount to be matched by.
    """

    def __init__(self, lines: Sequence[Line], side: Side) -> None:
        """*lines* in the order of the statement."""
        self._terms = terms = side.terms
        self._is_exact = not terms.tolerance_micros and not terms.tolerance
        self._amounts: dict[tuple[str, bool], list[int]] = {}
        """The amounts for which there is a shelf, by model and whether the lines have an id of the provider's."""
        self._shelves: dict[tuple[str, bool, int], _Shelf] = {}
        times = [line.at_us or 0 for line in lines]
        order = sorted(range(len(lines)), key=times.__getitem__)
        timed = [(times[place], lines[place]) for place in order]
        self._rest = {line.number: line for _, line in timed}
        self._candidates = _Candidates(timed)
        for at_us, line in reversed(timed):
            if line.model and at_us and not line.our_task_id and not side.is_foreign(line):
                key = line.model, bool(line.provider_task_id), line.amount_micros
                shelf = self._shelves.get(key) or self._new_shelf(*key)
                shelf.times.append(-at_us)
                shelf.lines.append(line)

    def _new_shelf(self, model: str, has_id: bool, amount: int) -> _Shelf:  # noqa: FBT001 - parts of a key
        insort(self._amounts.setdefault((model, has_id), []), amount)
        shelf = self._shelves[model, has_id, amount] = _Shelf()
        return shelf

    def __bool__(self) -> bool:
        """Whether there is any line."""
        return bool(self._rest)

    def take(self, task: Booked, due_micros: int) -> Line | None:
        """The line that bills this task *due_micros*, and of several the nearest in time. It is taken out."""
        at_us = task.finished_at_us
        assert at_us is not None, "only what has ended is billed"
        best, best_us, place = None, self._terms.window_us + 1, 0
        for shelf in self._shelves_for(task, due_micros):
            apart_us, here = shelf.nearest(at_us)
            if apart_us < best_us:
                best, best_us, place = shelf, apart_us, here
        if best is None:
            return None
        line = best.take(place)
        del self._rest[line.number]
        if not best.times:
            self._clear(line)
        return line

    def _clear(self, line: Line) -> None:
        """Take away the shelf that *line* was the last one of."""
        sort = (line.model, bool(line.provider_task_id))
        del self._shelves[(*sort, line.amount_micros)]
        amounts = self._amounts[sort]
        del amounts[bisect_left(amounts, line.amount_micros)]

    def _shelves_for(self, task: Booked, due_micros: int) -> list[_Shelf]:
        """The lines of the task's model whose amounts agree with what is due."""
        model, shelves = task.model, self._shelves
        if self._is_exact:
            keys = (
                [(model, False, due_micros)]
                if task.identified
                else [(model, False, due_micros), (model, True, due_micros)]
            )
            return [shelves[key] for key in keys if key in shelves]
        sorts = (False,) if task.identified else (False, True)
        return [
            shelves[model, has_id, near] for has_id in sorts for near in self._near(model, due_micros, has_id=has_id)
        ]

    def _near(self, model: str, due_micros: int, *, has_id: bool) -> list[int]:
        """The amounts of that model's lines that agree with what is due."""
        terms, amounts = self._terms, self._amounts.get((model, has_id), [])
        above, below = abs(due_micros) * terms.tolerance.numerator, terms.tolerance.denominator
        share_micros = rounded(above, below, to=Rounding.DOWN).whole  # whole amounts within the share are within this
        reach_micros = max(terms.tolerance_micros, share_micros)
        middle = bisect_left(amounts, due_micros)
        first = max(bisect_left(amounts, due_micros - reach_micros), middle - AMOUNTS_MAX // 2)
        last = min(bisect_right(amounts, due_micros + reach_micros), middle + AMOUNTS_MAX // 2)
        return amounts[first:last]

    def pass_by(self, page: Iterable[Booked]) -> None:
        """Take note of tasks that ended in the period, matched or not; in the order of their ends."""
        self._candidates.pass_by(page)

    def rest(self) -> Iterator[tuple[Line, Booked | None]]:
        """The lines that stay without a task, each with the likeliest one."""
        for line in self._rest.values():
            yield line, self._candidates.of(line)


class _Candidates:
    """For each line, the task of its model that ended nearest to it."""

    def __init__(self, timed: Iterable[tuple[int, Line]]) -> None:
        """Lines with their times, and in the order of these."""
        self._queues: dict[str, _Queue] = {}
        self._found: dict[int, Booked] = {}
        for at_us, line in timed:
            if line.model and at_us:
                queue = self._queues.get(line.model)
                if queue is None:
                    queue = self._queues[line.model] = _Queue()
                queue.times.append(at_us)
                queue.numbers.append(line.number)

    def pass_by(self, page: Iterable[Booked]) -> None:
        queues, found = self._queues, self._found
        for task in page:
            queue, at_us = queues.get(task.model), task.finished_at_us
            if queue is None or at_us is None:
                continue
            times, place, last = queue.times, queue.place, queue.last
            while place < len(times) and times[place] <= at_us:
                last_is_nearer = last is not None and times[place] - queue.last_us <= at_us - times[place]
                found[queue.numbers[place]] = last if last is not None and last_is_nearer else task
                place += 1
            queue.place, queue.last, queue.last_us = place, task, at_us

    def of(self, line: Line) -> Booked | None:
        found = self._found.get(line.number)
        if found is None and line.model in self._queues:
            return self._queues[line.model].last
        return found


class _Queue:
    """The lines of one model, of which those before *place* have been passed by a task, and the last task that came."""

    __slots__ = ("last", "last_us", "numbers", "place", "times")

    def __init__(self) -> None:
        self.times: list[int] = []
        self.numbers: list[int] = []
        self.place = 0
        self.last: Booked | None = None
        self.last_us = 0
