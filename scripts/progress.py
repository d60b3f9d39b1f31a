"""A progress bar that comes late and leaves no trace: on stderr, and only on a terminal."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from projections.follow import Progress, nobody

PATIENCE_SECONDS = 1.0
"""How long something runs before a bar appears."""


@contextmanager
def bar(title: str) -> Iterator[Progress]:
    """What moves a bar with this *title*; where there is no terminal, it moves nothing."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield nobody
        return
    one = _Bar(title)
    try:
        yield one.move
    finally:
        one.clear()


class _Bar:
    """A bar that appears when it is moved after `PATIENCE_SECONDS`."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._due = time.monotonic() + PATIENCE_SECONDS
        self._move: Progress | None = None

    def move(self, done: int, total: int) -> None:
        if self._move is None and time.monotonic() >= self._due:
            self._move = self._appear()
        if self._move is not None:
            self._move(done, total)

    def clear(self) -> None:
        if self._move is not None:
            self._bar.stop()

    def _appear(self) -> Progress:
        from rich.console import Console  # noqa: PLC0415 - most things are over before there is a bar
        from rich.progress import Progress as Bar  # noqa: PLC0415
        from rich.progress import ProgressColumn, Task  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        class Rate(ProgressColumn):
            """How much is done a second; what remains of the time stands beside it."""

            def render(self, task: Task) -> Text:
                return Text("" if task.speed is None else f"{task.speed:,.0f}/s")

        self._bar = Bar(*Bar.get_default_columns(), Rate(), console=Console(stderr=True), transient=True)
        self._bar.start()
        task = self._bar.add_task(self._title)
        return lambda done, total: self._bar.update(task, completed=done, total=total)
