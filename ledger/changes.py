"""Waiting for a task to change: a commit wakes those who wait for one of its own, and nobody else.

Who is woken is told that there is something to be seen, not what; he reads the task anew. So nothing is queued for
anyone, and a change between two looks is not missed as long as it is looked after the event has been cleared.
Alternative beaten: to wait for the end of the log, at which ten thousand would be woken by each commit in vain. How
many may wait is bounded where they are let in (`api.stays`).
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from ledger.ids import TaskId


class Changes:
    """Wakes those who wait for a task when it may have changed."""

    def __init__(self) -> None:
        self._waiting: dict[TaskId, set[asyncio.Event]] = {}

    @property
    def awaited(self) -> int:
        """How many tasks are waited for."""
        return len(self._waiting)

    @contextmanager
    def of(self, task: TaskId) -> Iterator[asyncio.Event]:
        """An event that is set, while this is entered, whenever *task* may have changed."""
        changed = asyncio.Event()
        waiting = self._waiting.setdefault(task, set())
        waiting.add(changed)
        try:
            yield changed
        finally:
            waiting.discard(changed)
            if not waiting:
                self._waiting.pop(task, None)

    def tell(self, task: TaskId) -> None:
        """*task* may have changed."""
        for changed in self._waiting.get(task, ()):
            changed.set()

    def tell_all(self) -> None:
        """Any task may have changed."""
        for task in self._waiting:
            self.tell(task)
