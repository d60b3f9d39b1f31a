"""The end of the log as this process knows it, so that those who follow it wait for what comes and do not ask for it.

Whoever waits is told that there is more, not what: he reads that from the log, from where he is. So nothing is queued
for anyone, a slow one holds up nobody, and what is missed while nobody waits is there at the next look. What another
process appends is not told here; who must learn of it looks again from time to time.

Its time comes along: what has ended by it does not begin again because a clock was set back.
"""

import asyncio
from contextlib import suppress


class LogEnd:
    """Where the log ends. Every engine has one, and moves it after each commit."""

    __slots__ = ("_moved", "position", "recorded_at_us")

    def __init__(self) -> None:
        self.position = 0
        """The last position known to be durable; 0: none is known yet."""
        self.recorded_at_us = 0
        """When that was written down, by the log's own clock, which never runs backwards."""
        self._moved = asyncio.Event()

    def moved(self, position: int, *, recorded_at_us: int) -> None:
        """The log is durable up to *position*, at least: wake those who wait."""
        if position > self.position:
            self.position, self.recorded_at_us = position, recorded_at_us
            self._moved.set()
            self._moved.clear()

    async def beyond(self, position: int, *, seconds: float) -> None:
        """Return once the log is known to go beyond *position*; after *seconds* in any case."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.position <= position:
                    await self._moved.wait()
