"""What follows the log while the service runs: each by itself, none in the way of another or of a request.

A follower is brought to the end of the log, rests, and waits for the log to grow. One that cannot go on is logged as
``follower.failed``, once until it has been well, and shown by ``/readyz``; it is tried again, and the others do not
notice. Its checkpoint is its own, saved with what it made of the events (`projections.follow`), so whenever and
however it dies it goes on from there. Alternative beaten: one loop for all, in which the slowest sets the pace.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import NamedTuple, Self

from api.faults import fault_text, log_fault
from ledger.engine import Engine

LOOK_SECONDS = 1.0
"""After so long without news it is looked anyway: another process may have appended. And so long after a failure."""


class Duty(NamedTuple):
    """A follower by its *name*, and how it is brought to the end of the log."""

    name: str
    follow: Callable[[], Awaitable[int]]
    """Bring it to the end of the log as it is now; the position of that end."""
    rest_seconds: float
    """Between two looks at least, however fast the log grows: what is read in larger pages costs less."""


class State(NamedTuple):
    """How a follower is."""

    name: str
    position: int
    """Up to where it has followed, at the least; 0 before it has first caught up."""
    lag: int
    """How many events it is known to be behind."""
    failure: str | None
    """Why it cannot go on; None: it can."""


class _Following:
    """One follower at its duty."""

    def __init__(self, engine: Engine, duty: Duty) -> None:
        self._engine, self._duty = engine, duty
        self._position = 0
        self._failure: str | None = None

    @property
    def state(self) -> State:
        lag = max(self._engine.end.position - self._position, 0)
        return State(self._duty.name, self._position, lag, self._failure)

    async def run(self) -> None:
        """Follow the log until cancelled."""
        while True:
            try:
                self._position = await self._duty.follow()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is told, and tried again
                self._failed(error)
                await asyncio.sleep(LOOK_SECONDS)
            else:
                self._failure = None
                await asyncio.sleep(self._duty.rest_seconds)
                await self._engine.end.beyond(self._position, seconds=LOOK_SECONDS)

    def _failed(self, error: Exception) -> None:
        """Log *error*, unless it is still the one before."""
        if fault_text(error) != self._failure:
            self._failure = fault_text(error)
            log_fault("follower.failed", error, follower=self._duty.name)


class Followers:
    """All that follows one log. Entered, they follow it until it is left."""

    def __init__(self, engine: Engine, duties: Sequence[Duty]) -> None:
        self._following = [_Following(engine, duty) for duty in duties]
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(one.run()) for one in self._following]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task

    @property
    def states(self) -> list[State]:
        """How each of them is."""
        return [one.state for one in self._following]
