"""Sending callbacks: the log is followed into a queue, and what waits in the queue is posted when it is due.

Nothing is posted because of a request: an outcome is in the log first, the follower finds it there, and each try is put
back into the log as an event. So whoever dies in between repeats a try and forgets none; its id tells the receiver that
it is the same. A callback is not begun again until the queue has seen what became of its last try. How one try is made
is in `api.callback_tries`, which line's turn it is in `api.callback_lines`.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self

from api.callback_lines import Bounds, Lines
from api.callback_tries import Tries
from api.contracts.shape import Contract
from api.egress import Egress, Posted, Poster, receiver_of
from api.faults import log_fault
from api.followers import Duty
from api.keepers import Keeper
from api.refusals import Unavailable
from ledger.engine import Engine
from ledger.ledger import Ledger
from ledger.log_end import LogEnd
from ledger.records import Head
from projections.callbacks.queue import CallbackQueue, Plan, open_queue
from projections.callbacks.rows import Delivery, Line

REST_SECONDS = 0.01
"""Between two looks at the log: what is committed meanwhile goes into the queue together."""
LOOK_SECONDS = 1.0
"""After so long it is looked anyway, and what could not be read is tried again."""
UNDER_WAY_MAX = 4096
"""Callbacks whose try the queue has not seen yet: when it takes no page, no more are begun."""


class CallbacksUnavailable(Unavailable):
    """The queue of callbacks cannot be kept just now; all else goes on."""


class Calls(NamedTuple):
    """How the service calls: where to, and how many at once."""

    egress: Egress
    bounds: Bounds


def plan_of(contracts: Mapping[str, Contract]) -> Plan:
    """What each contract tells, for the queue."""
    own = {name: one.telling.calling for name, one in contracts.items() if one.telling is not None}
    webhooks = {name: one.webhooks.calling for name, one in contracts.items() if one.webhooks is not None}
    return Plan(own, webhooks, receiver_of)


class CallbackSender(Keeper[CallbackQueue]):
    """Sends the callbacks of a ledger: entered, it posts what its queue holds, as far as that has followed the log.

    The queue is in the file at *path*.
    """

    unavailable = CallbacksUnavailable

    def __init__(
        self,
        ledger: Ledger,
        path: Path,
        *,
        contracts: Mapping[str, Contract],
        clock: Callable[[], int],
        calls: Calls,
    ) -> None:
        super().__init__(ledger.engine, path, self._open_queue)
        self._ledger, self._contracts, self._clock = ledger, contracts, clock
        self.egress = calls.egress
        self._lines = Lines(calls.bounds)
        self._tries: Tries | None = None
        self._followed: CallbackQueue | None = None
        """The queue that has been brought to the end of the log: before that it does not know what was delivered."""
        self._end = LogEnd()
        """Up to where in the log the queue has been, in all its lives."""
        self._wake = asyncio.Event()
        self._under_way: dict[str, asyncio.Task[None]] = {}
        """By callback, until the queue has seen what became of the try."""
        self._held: dict[Line, int] = {}
        """How many of a line these are."""
        self._waits_in: dict[str, set[Line]] = {}
        """The lines of each: that in which it was begun, and that to which its webhook has moved since."""
        self._pump: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._tries = Tries(self._ledger, Poster(self.egress), contracts=self._contracts, clock=self._clock)
        self._pump = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop at once: a try that is cut off is made again by the next process, under the same id."""
        under_way = [*self._under_way.values()]
        for task in (self._pump, *under_way):
            if task is not None:
                task.cancel()
        for task in (self._pump, *under_way):
            if task is not None:
                with suppress(asyncio.CancelledError):
                    await task
        if self._tries is not None:
            await self._tries.close()
        await super().__aexit__()

    # Following

    @property
    def duty(self) -> Duty:
        """How the service has the queue follow the log."""
        return Duty("callbacks", self.follow, REST_SECONDS)

    def look(self) -> None:
        """Look now at what is due: the clock has been moved."""
        self._wake.set()

    async def _open_queue(self, path: Path, engine: Engine) -> CallbackQueue:
        queue = await open_queue(path, engine, plan_of(self._contracts))
        queue.end = self._end
        return queue

    async def _catch_up(self, file: CallbackQueue, *, pause_seconds: float = 0) -> Head:
        """Bring the queue to the end of the log as it is now, and have what is new in it posted; that end."""
        head = await super()._catch_up(file, pause_seconds=pause_seconds)
        news = await file.news(head.position)  # not before: what waited may be delivered
        self._followed = file
        self._end.moved(head.position, recorded_at_us=head.recorded_at_us)
        for line, from_us in news.items():
            self._lines.look(line, from_us)
        self._wake.set()
        return head

    # Posting

    async def _run(self) -> None:
        """Begin tries as they fall due, until cancelled."""
        while True:
            self._wake.clear()
            queue = self._followed if self._followed is self._file else None
            has_room = len(self._under_way) < UNDER_WAY_MAX
            taken = self._lines.take(self._clock()) if has_room else None
            if queue is None or taken is None:
                await self._wait()
                continue
            line, room = taken
            try:
                await self._begin(queue, line, room)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is told, and tried again
                log_fault("callbacks.not_read", error)
                await asyncio.sleep(LOOK_SECONDS)
                self._lines.look(line, 0)

    async def _wait(self) -> None:
        """Until something may have changed, or the next one is due."""
        next_us = self._lines.next_us()
        seconds = LOOK_SECONDS
        if next_us is not None and next_us > (now_us := self._clock()):
            seconds = min((next_us - now_us) / 1_000_000, LOOK_SECONDS)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    async def _begin(self, queue: CallbackQueue, line: Line, room: int) -> None:
        """Begin what is due in the line, as far as there is room."""
        found = await queue.waiting(line, self._held.get(line, 0) + room + 1)
        if self._have_moved(found, line):  # behind them, others wait
            found = await queue.waiting(line, len(self._under_way) + room + 1)
            self._have_moved(found, line)
        now_us = self._clock()
        new = [one for one in found if one.callback_id not in self._under_way]
        due = [one for one in new[:room] if one.from_us <= now_us]
        for one in due:
            self._lines.begin(line)
            self._held[line] = self._held.get(line, 0) + 1
            self._waits_in[one.callback_id] = {line}
            self._under_way[one.callback_id] = asyncio.create_task(self._try(line, one))
        if len(new) > len(due):
            self._lines.look(line, new[len(due)].from_us)
        else:
            self._lines.rest(line)

    def _have_moved(self, found: Sequence[Delivery], line: Line) -> bool:
        """Whether any of these, of *line* now, were begun in another one; they will be looked for in this one."""
        moved = [one for one in found if line not in self._waits_in.get(one.callback_id, {line})]
        for one in moved:
            self._waits_in[one.callback_id].add(line)
        return bool(moved)

    async def _try(self, line: Line, one: Delivery) -> None:
        """One try, from the log into the log."""
        tries, posted, position = self._tries, Posted("broken"), 0
        assert tries is not None, "entered"
        try:
            tried = await tries.post(one)
            posted = tried.posted
            position = await tries.record(one, tried)
            await tries.disable_if_gone(one, tried)
        except Exception as error:  # noqa: BLE001 - as above; the line goes on, and finds it waiting still
            log_fault("callbacks.not_tried", error)
            await asyncio.sleep(LOOK_SECONDS)
        finally:
            self._lines.end(line, answered=posted.answered)
            self._wake.set()
        while self._end.position < position:  # meanwhile it waits still, as the queue has it, and is passed over
            await self._end.beyond(position - 1, seconds=LOOK_SECONDS)
        self._let_go(line, one)

    def _let_go(self, line: Line, one: Delivery) -> None:
        """What became of it is in the queue: it may be begun again, if it waits still."""
        del self._under_way[one.callback_id]
        self._held[line] -= 1
        if not self._held[line]:
            del self._held[line]
        for waits_in in self._waits_in.pop(one.callback_id):
            self._lines.look(waits_in, 0)
        self._wake.set()
