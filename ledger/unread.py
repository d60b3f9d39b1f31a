"""Reports of tasks that could not be read: noted in memory until the sweep makes breaks of them.

Whoever sent one was told so, and has it still; what is missing is that anybody looks. A report that nobody can read is
not taken for work that goes on, and not for its end either: a break names the task and what was wrong, and somebody
decides. Alternative beaten: to keep what was sent as an event of the task, which any sender could then fill.
"""

from collections import OrderedDict
from typing import NamedTuple

from ledger.breaks import Difference
from ledger.events import BreakKind
from ledger.ids import Spelling, TaskId
from ledger.task import TERMINAL, Task

UNREAD_MAX = 1000
"""Tasks that are noted; of more the oldest are let go, counted, and noted again when their reports are sent again."""
REASON_MAX_CHARS = 200


class Unread(NamedTuple):
    """What was wrong with the last report of a task that could not be read, and when it came, in Unix microseconds."""

    reason: str
    at_us: int


class UnreadReports:
    """Those that nobody has been told of yet."""

    def __init__(self) -> None:
        self._noted: OrderedDict[TaskId, Unread] = OrderedDict()
        self.let_go = 0
        """How many of them, since the process began, nobody will be told of."""

    def note(self, task: TaskId, reason: str, *, at_us: int) -> None:
        """A report of *task* could not be read."""
        self._noted.pop(task, None)
        self._noted[task] = Unread(reason[:REASON_MAX_CHARS], at_us)
        while len(self._noted) > UNREAD_MAX:
            self._noted.popitem(last=False)
            self.let_go += 1

    def all(self) -> list[tuple[TaskId, Unread]]:
        """All that are noted, the oldest first."""
        return [*self._noted.items()]

    def done(self, task: TaskId, unread: Unread) -> None:
        """It has been told of; not what came since."""
        if self._noted.get(task) is unread:
            del self._noted[task]


def unread_truth(task: Task, unread: Unread) -> Difference | None:
    """That the fate of *task* is not known as long as nobody can read what was reported; None: it is over."""
    if task.status in TERMINAL:
        return None
    spelled = Spelling.UUID.spell(task.task_id)
    return Difference(
        provider=task.provider,
        kind=BreakKind.STATUS_CONFLICT,
        about=f"task {spelled} by a report that cannot be read",
        at_stake_micros=task.held_micros + task.net_micros or task.terms.estimated_micros,
        since_us=unread.at_us,
        detail=f"it is {task.status} here, and what was reported cannot be read: {unread.reason}",
        task=spelled,
    )
