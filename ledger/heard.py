"""When workers were heard whose reports said nothing new: the log keeps what changes, and these change nothing.

In memory, the latest of each task, and bounded. What is lost with the process costs nobody anything: who wants to know
whether a worker is silent counts from when this process began to listen.
"""

from ledger.ids import TaskId

HEARD_MAX = 100_000
"""Tasks; of more, those heard longest ago are forgotten, and may count as silent until they report something new."""


class Heard:
    """The last report without news, by task, in Unix microseconds."""

    def __init__(self, *, heard_max: int = HEARD_MAX) -> None:
        self._at_us: dict[TaskId, int] = {}
        self._heard_max = heard_max

    def note(self, task: TaskId, at_us: int) -> None:
        """A report of *task* came, and changed nothing."""
        self._at_us.pop(task, None)
        self._at_us[task] = at_us
        if len(self._at_us) > self._heard_max:
            del self._at_us[next(iter(self._at_us))]

    def take(self, task: TaskId) -> int | None:
        """When *task* was last heard so, and forget it; None: it was not."""
        return self._at_us.pop(task, None)
