"""A progress bar for verbs that may take long."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

Move: TypeAlias = Callable[[int, int], None]
"""Told how much is done, and of how much."""

PATIENCE_SECONDS = 1.0
"""How long a verb runs before its bar appears."""


@contextmanager
def progress_bar(name: str) -> Iterator[Move]:
    """A bar on stderr, if that is a terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield _unseen
        return
    bar = _Bar(name)
    try:
        yield bar.move
    finally:
        bar.clear()


def _unseen(_done: int, _total: int) -> None:
    pass


class _Bar:
    """A progress bar that comes late and leaves no trace."""

    def __init__(self, name: str) -> None:
        self._name, self._due = name, time.monotonic() + PATIENCE_SECONDS
        self._move: Move | None = None

    def move(self, done: int, total: int) -> None:
        if self._move is None and time.monotonic() >= self._due:
            self._move = self._appear()
        if self._move is not None:
            self._move(done, total)

    def clear(self) -> None:
        if self._move is not None:
            self._bar.stop()

    def _appear(self) -> Move:
        from rich.console import Console  # noqa: PLC0415 - most runs are over before there is a bar
        from rich.progress import Progress  # noqa: PLC0415

        self._bar = Progress(console=Console(stderr=True), transient=True)
        self._bar.start()
        task = self._bar.add_task(self._name)
        return lambda done, total: self._bar.update(task, completed=done, total=total)
