"""Callbacks, live: who follows the log into the queue, and who posts what waits in it.

Nothing is posted because of a request: an outcome is in the log first, the follower finds it there, and each try is put
back into the log as an event. So whoever dies in between repeats a try and forgets none; its id tells the receiver that
it is the same. A callback is not begun again until the queue has seen what became of its last try.

A body is made when it is sent, of the task's history up to the event that is told: a task that has moved on since says
what was, in order, and one that has been erased says nothing that was erased. Alternative beaten: bodies in the queue,
which would have to be erased as well.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self

from api.callback_lines import Bounds, Lines
from api.contracts.shape import Contract
from api.contracts.telling import Fact, Letter, Telling
from api.egress import Egress, Posted, Poster, receiver_of
from api.faults import log_fault
from api.followers import Duty
from api.keepers import Keeper
from api.refusals import Unavailable
from ledger.callback_log import arranged_by
from ledger.callbacks import Arranged, ChangeWebhook, account_secret, callbacks_stream, due_us, open_secret
from ledger.commands import RecordCallback
from ledger.engine import Engine
from ledger.errors import DamagedError, Overloaded, StorageError, UnknownWebhook
from ledger.ledger import Ledger
from ledger.log_end import LogEnd
from ledger.records import Head
from projections.callback_queue import CallbackQueue, Plan, open_queue
from projections.callback_rows import Delivery, Line, task_at

BY = "callbacks"
"""The actor of what is recorded here."""
REST_SECONDS = 0.01
"""Between two looks at the log: what is committed meanwhile goes into the queue together."""
LOOK_SECONDS = 1.0
"""After so long it is looked anyway, and what could not be written is tried again."""
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


class _Tried(NamedTuple):
    """What became of a try, whether it is the last one, and where it went, if anywhere."""

    posted: Posted
    gave_up: bool
    url: str | None = None


class _Undeliverable(Exception):
    """There is nothing that could be posted, for this reason; *for_good*: nor will there ever be."""

    def __init__(self, reason: str, *, for_good: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.for_good = reason, for_good


class Caller(Keeper[CallbackQueue]):
    """The callbacks of a ledger. Entered, it posts what its queue holds, as far as its duty has followed the log."""

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
        self._log = ledger.callbacks
        self._lines = Lines(calls.bounds)
        self._poster: Poster | None = None
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
        self._poster = Poster(self.egress)
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
        if self._poster is not None:
            await self._poster.close()
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
        posted, position = Posted("broken"), 0
        try:
            tried = await self._posted(one)
            posted = tried.posted
            position = await self._recorded(one, posted, gave_up=tried.gave_up)
            if posted.gone and one.webhook is not None:
                await self._disable(one.account, one.webhook, url=tried.url)
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

    async def _posted(self, one: Delivery) -> _Tried:
        """One try, as far as the receiver."""
        telling = self._telling(one)
        if telling is None:
            return _Tried(Posted("not told by this contract"), gave_up=True)
        is_last = due_us(telling.calling, one.callback_id, tried=one.tried + 1, failed_at_us=0) is None
        try:
            url, body, secrets = await self._told(one, telling)
        except _Undeliverable as why:
            return _Tried(Posted(why.reason), is_last or why.for_good)
        headers = telling.headers(Letter(one.callback_id, self._clock(), body, secrets))
        assert self._poster is not None, "entered"
        posted = await self._poster.post(url, body, headers, timeout_seconds=telling.timeout_seconds)
        if posted.gone and one.webhook is not None and await self._has_moved(one.account, one.webhook, url):
            posted = Posted(posted.error)  # it is the old address that wants no more
        return _Tried(posted, posted.error is not None and (is_last or posted.gone), url)

    async def _has_moved(self, account: str, webhook_id: str, url: str) -> bool:
        """Whether the webhook has another address than *url* by now."""
        webhook = (await self._log.arranged(account)).webhooks.get(webhook_id)
        return webhook is not None and webhook.url != url

    def _telling(self, one: Delivery) -> Telling | None:
        contract = self._contracts.get(one.contract)
        if contract is None:
            return None
        return contract.telling if one.webhook is None else contract.webhooks

    async def _told(self, one: Delivery, telling: Telling) -> tuple[str, bytes, tuple[str, ...]]:
        """Where to what is told, and what it is signed with: as of now, and all of it out of one read.

        Raises:
            _Undeliverable: the history cannot be read, or not be worded, or its secret not be opened.
            StorageError: the store did not answer.
        """
        stream = callbacks_stream(one.account)
        rows = await self._ledger.engine.streams([one.task, stream])
        url, secrets = self._addressed(one, arranged_by([row for row in rows if row.stream == stream]))
        try:
            task = task_at([row for row in rows if row.stream != stream], one.about)
            return url, telling.body(task, Fact(one.callback_id, one.type, one.fact_at_us)), secrets
        except Exception as error:
            log_fault("callbacks.not_worded", error)
            raise _Undeliverable("not to be told") from error

    def _addressed(self, one: Delivery, arranged: Arranged) -> tuple[str, tuple[str, ...]]:
        """The address, and the secrets that sign what is posted there."""
        pepper = self._log.pepper
        if one.webhook is None:
            generations = arranged.generations(self._clock())
            return one.url, tuple(account_secret(pepper, one.account, number) for number in generations)
        webhook = arranged.webhooks.get(one.webhook)
        if webhook is None or not webhook.enabled:
            raise _Undeliverable("webhook disabled", for_good=True)
        try:
            secret = open_secret(webhook.sealed_secret, pepper=pepper, webhook_id=webhook.webhook_id)
        except DamagedError:
            raise _Undeliverable("secret not readable") from None
        return webhook.url, (secret,)

    async def _recorded(self, one: Delivery, posted: Posted, *, gave_up: bool) -> int:
        """The try as an event, however long the store may take for it; its position."""
        command = RecordCallback(
            task_id=one.task,
            at_us=self._clock(),
            actor=BY,
            attempt=one.attempts + 1,
            delivered=posted.error is None,
            error=posted.error,
            about=one.about,
            gave_up=gave_up,
            webhook=one.webhook,
        )
        while True:
            try:
                return (await self._ledger.handle(command)).position
            except (Overloaded, StorageError) as error:
                log_fault("callbacks.not_recorded", error)
                await asyncio.sleep(LOOK_SECONDS)

    async def _disable(self, account: str, webhook_id: str, *, url: str | None) -> None:
        """The receiver at *url* has said that it is gone (410): nothing more is told to it there."""
        command = ChangeWebhook(at_us=self._clock(), webhook_id=webhook_id, enabled=False, if_url=url)
        with suppress(UnknownWebhook):
            await self._log.carry_out(command, account=account, by=BY)
