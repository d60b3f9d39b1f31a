"""Which lines of a statement belong to which task in the books, by the ids that they name. Pure.

A line belongs to the task that goes by its provider's id; else to the one that our id on it names; else, where the line
names none, to the one that it was billed for before. What is left is matched by model, amount and time (`leftovers`).
Every line and every task is used once.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from ledger.ids import TaskId
from projections.books.booked import Booked
from projections.reconciliation.statements import Line


class Repeat(NamedTuple):
    """A line that says again what an earlier one has said, for the *nth* time."""

    earlier: Line
    line: Line
    nth: int


class Assigned(NamedTuple):
    """Which lines belong to which task, and which to none that an id names."""

    groups: dict[TaskId, Sequence[Line]]
    """Mostly of one line: a tuple, which Python's collector of garbage lets go of, as it never does of a list."""
    tasks: dict[TaskId, Booked]
    owners: dict[int, Booked]
    """Whose each line is, by its number."""
    left: list[Line]
    repeats: list[Repeat]
    """Lines whose line id an earlier one has; they are in no group."""


def assign(
    lines: Iterable[Line],
    by_provider_id: Mapping[str, Sequence[Booked]],
    by_id: Mapping[TaskId, Booked],
    *,
    kept: Mapping[int, Booked] = MappingProxyType({}),
) -> Assigned:
    """Match by ids: the provider's first, then ours. *by_id* holds only tasks of this provider.

    *kept* holds, by the numbers of lines, the tasks for which they were billed before and may stay.
    """
    groups: dict[TaskId, Sequence[Line]] = {}
    tasks: dict[TaskId, Booked] = {}
    owners: dict[int, Booked] = {}
    left: list[Line] = []
    repeats: list[Repeat] = []
    first: dict[str, Line] = {}
    times: Counter[str] = Counter()
    for line in lines:
        line_id = line.line_id
        if line_id:
            earlier = first.setdefault(line_id, line)
            if earlier is not line:
                times[line_id] += 1
                repeats.append(Repeat(earlier, line, times[line_id]))
                continue
        named = by_provider_id.get(line.provider_task_id)
        task = _named(line, named or (), by_id) if named is None or len(named) > 1 else named[0]
        if task is None:
            task = kept.get(line.number)
        if task is None:
            left.append(line)
            continue
        owners[line.number] = task
        own = groups.setdefault(task.task, (line,))
        if own[0] is line:
            tasks[task.task] = task
        elif isinstance(own, list):
            own.append(line)
        else:
            groups[task.task] = [*own, line]
    return Assigned(groups, tasks, owners, left, repeats)


def may_stay(line: Line, task: Booked) -> bool:
    """Whether a line that no id matches may be this task's: unless one of its ids names another.

    Our id on it does, and the provider's if the task goes by one, or they would have been matched by it.
    """
    return not line.our_task_id and not (line.provider_task_id and task.identified)


def _named(line: Line, tasks: Sequence[Booked], by_id: Mapping[TaskId, Booked]) -> Booked | None:
    """The task that an id on the line names. Of several that share a provider's id, the one that ours names too."""
    if tasks:
        return next((task for task in tasks if task.task == line.task), tasks[0])
    return None if line.task is None else by_id.get(line.task)


def without_repeats(lines: Sequence[Line]) -> tuple[list[Line], list[Repeat]]:
    """The lines without those that say again what an earlier one said, but for their line id; and those."""
    first: dict[tuple[object, ...], Line] = {}
    times: Counter[int] = Counter()
    kept, repeats = [], []
    for line in lines:
        said = (line.provider_task_id, line.our_task_id, line.status, line.amount_micros, line.currency)
        earlier = first.setdefault((*said, line.started_at_us, line.finished_at_us), line)
        if earlier is line:
            kept.append(line)
        else:
            times[earlier.number] += 1
            repeats.append(Repeat(earlier, line, times[earlier.number]))
    return kept, repeats
