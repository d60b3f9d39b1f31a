"""A task's life, one event at a time: each with the task before it and after it. Pure."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from ledger.errors import DamagedError
from ledger.events import TaskEvent
from ledger.ids import TaskId
from ledger.records import Recorded
from ledger.task import NO_TASK, Task, evolve


class Step(NamedTuple):
    """An event, and what it made of the task."""

    row: Recorded
    event: TaskEvent
    before: Task
    after: Task


def steps_of(task: TaskId, rows: Sequence[Recorded]) -> Iterator[Step]:
    """The events of *task*, folded one by one.

    Raises:
        DamagedError: an event cannot be decoded, or cannot follow on those before it.
    """
    before = replace(NO_TASK, task_id=task)
    for row in rows:
        try:
            event: TaskEvent = row.event  # type: ignore[assignment]
            after = evolve(before, event)
        except Exception as error:
            raise DamagedError(f"the event at position {row.position} cannot be read: {error}") from error
        yield Step(row, event, before, after)
        before = after
