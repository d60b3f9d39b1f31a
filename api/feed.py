"""The log as it is read by those who follow it over HTTP: from a position on, in order, nothing missed or said twice.

A reader is at a position, and reads from there; nothing is queued for anyone. Those who are near the end share what
was read last: each event is read once and rendered once for all of them. Who is further behind reads the log itself, a
few at a time. What has been erased since it was read is taken out of what is shared before anyone reads on: the end
that a reader asks for is known before the erasure is answered.
"""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from msgspec.structs import replace

from api.feed_shapes import Form, render
from ledger.engine import ERASES, Engine
from ledger.errors import DamagedError
from ledger.records import Recorded

CHUNK = 64
"""Events that are read at once; each may have a megabyte of content."""
READS_MAX = 4
"""Of chunks at a time, by readers who are behind."""
RECENT_MAX = 4096
RECENT_MAX_BYTES = 16 * 2**20
"""As stored; rendered they take about as much again."""
OVERHEAD_BYTES = 512
REST_SECONDS = 0.05
"""Between two looks of one reader, however fast the log grows: what is read in larger pages costs less."""
LOOKED_AT_MAX = 4096
"""Events looked at for one page: a filter that few fit holds nobody up, and its reader is further on all the same."""


class EventFilter(NamedTuple):
    """Which events are read, and as what they are shown."""

    types: frozenset[str] | None = None
    """None: all."""
    account: str | None = None
    form: Form = Form.NATIVE

    def fits(self, row: Recorded) -> bool:
        return self.account in (None, row.account) and (self.types is None or row.entry.type in self.types)


class Shown:
    """An event, rendered when it is first asked for."""

    __slots__ = ("_rendered", "row", "weight_bytes")

    def __init__(self, row: Recorded) -> None:
        self.row = row
        self.weight_bytes = OVERHEAD_BYTES + len(row.entry.facts) + len(row.entry.payload or b"")
        self._rendered: dict[Form, bytes] = {}

    def told(self, form: Form, log_id: str) -> bytes:
        """The event as JSON.

        Raises:
            DamagedError: its payload is not what was sealed.
        """
        told = self._rendered.get(form)
        if told is None:
            told = self._rendered[form] = render(self.row, form, log_id)
        return told


class FeedEvent(NamedTuple):
    """An event as a reader gets it."""

    position: int
    body: bytes


class Page(NamedTuple):
    """Events that fit, in order, and how far the log has been looked through for them."""

    events: list[FeedEvent]
    beyond: int
    is_end: bool


class Feed:
    """The log, and what was read of its end."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._recent: list[Shown] = []
        """The events after position `_start`, without a hole."""
        self._start = 0
        self._weight_bytes = 0
        self._refreshing = asyncio.Lock()
        self._reads = asyncio.Semaphore(READS_MAX)

    async def page(self, position: int, wanted: EventFilter, *, events_max: int, bytes_max: int) -> Page:
        """What fits beyond *position*: at most *events_max*, and of *bytes_max* together unless it is a single one.

        Raises:
            DamagedError: the log has a hole, or cannot be read.
            StorageError: it could not be read just now.
        """
        events: list[FeedEvent] = []
        left_bytes, looked_at = bytes_max, 0
        while looked_at < LOOKED_AT_MAX:
            some = await self._beyond(position)
            if not some:
                return Page(events, position, is_end=True)
            for shown in some:
                if wanted.fits(shown.row):
                    if len(events) == events_max:
                        return Page(events, position, is_end=False)
                    body = shown.told(wanted.form, self._engine.log_id)
                    if events and len(body) > left_bytes:
                        return Page(events, position, is_end=False)
                    events.append(FeedEvent(shown.row.position, body))
                    left_bytes -= len(body)
                position = shown.row.position
            looked_at += len(some)
            await asyncio.sleep(0)  # others have their turn
        return Page(events, position, is_end=False)

    async def _beyond(self, position: int) -> Sequence[Shown]:
        """Some of the events after *position*; none at the end of the log."""
        if position >= self._start:
            async with self._refreshing:  # one reads for all
                await self._refresh()
        if position >= self._start:
            at = position - self._start
            return self._recent[at : at + CHUNK]
        async with self._reads:
            return [Shown(row) for row in await self._read(position)]

    async def _refresh(self) -> None:
        """Read on to the end of the log as it is known."""
        end = self._engine.end.position
        if end - self._start - len(self._recent) > RECENT_MAX:  # nobody has followed for long
            self._recent, self._start, self._weight_bytes = [], end, 0
        while (position := self._start + len(self._recent)) < end:
            self._take(await self._read(position))

    async def _read(self, position: int) -> list[Recorded]:
        rows = await self._engine.after(position, CHUNK)
        if [row.position for row in rows] != [*range(position + 1, position + 1 + len(rows))]:
            raise DamagedError(f"the log has a hole after position {position}: run `task-ledger verify`")
        if not rows and position < self._engine.end.position:
            raise DamagedError(f"the log ends at {position}, before its end")
        return rows

    def _take(self, rows: Sequence[Recorded]) -> None:
        """Share *rows*, the next of the log; what they erase is shared no longer, nor what is too much."""
        erased = {row.stream for row in rows if row.entry.type == ERASES}
        taken = [Shown(row) for row in rows]
        self._recent += taken
        self._weight_bytes += sum(shown.weight_bytes for shown in taken)
        if erased:
            self._recent = [
                Shown(replace(shown.row, seal_key=None)) if shown.row.stream in erased else shown
                for shown in self._recent
            ]
        dropped = 0
        while len(self._recent) - dropped > RECENT_MAX or self._weight_bytes > RECENT_MAX_BYTES:
            self._weight_bytes -= self._recent[dropped].weight_bytes
            dropped += 1
        del self._recent[:dropped]
        self._start += dropped
