"""The queue of callbacks: what is to be posted, what was, and what was given up, folded from the log.

It is a file of its own, and nothing is known only there: an outcome puts a callback in, the events of its tries tell
how it goes, and who throws the file away gets the same one again, with the same ids and the same times, and nothing is
posted by that. It holds no content and no secret in plain: what a callback says is made of the log when it is sent, so
what has been erased by then is not told.

What waits is told to those who post line by line (`projections.callbacks.rows.Line`). Alternative beaten: one queue by
time, in which those who do not answer stand before those who would.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import aiosqlite
import msgspec

from ledger.callbacks import Calling, Webhook, added_webhook, callback_id, changed_webhook, due_us
from ledger.engine import Engine
from ledger.events import (
    CallbackAttempted,
    CallbackResent,
    Created,
    WebhookAdded,
    WebhookChanged,
    WebhookRemoved,
)
from ledger.ids import TaskId
from ledger.log_end import LogEnd
from ledger.records import Recorded
from ledger.times import US_PER_DAY
from projections.callbacks import queue_sql as sql
from projections.callbacks.rows import Delivery, Line, Wanted, delivery_of
from projections.facts import event_of
from projections.follow import Checkpoint
from projections.side_file import SideFile, beside, open_side_file

KEPT_US = 30 * US_PER_DAY
"""How long a callback that was delivered is listed."""
FORGETS_EVERY = 1000
"""Events of the log."""

_encoder = msgspec.json.Encoder()
_webhook: msgspec.json.Decoder[Webhook] = msgspec.json.Decoder(Webhook)
_ARRANGING = {"webhook-added", "webhook-changed", "webhook-removed", "callback-resent"}


class Plan(NamedTuple):
    """How each contract tells: of the tasks' own addresses, and of webhooks."""

    own: Mapping[str, Calling]
    webhooks: Mapping[str, Calling]
    receiver_of: Callable[[str], str]
    """Who is behind an address."""

    def calling(self, contract: str, webhook: str | None) -> Calling | None:
        return (self.own if webhook is None else self.webhooks).get(contract)

    @property
    def told(self) -> frozenset[str]:
        """The tags that anybody is told."""
        return frozenset[str]().union(*(calling.tells for calling in (*self.own.values(), *self.webhooks.values())))


class _Page:
    """What of other tables a page of the log needs, read at once and kept up to date while it is gone through."""

    def __init__(self) -> None:
        self.addresses: dict[bytes, tuple[str, str]] = {}
        """Contract and address, by task."""
        self.webhooks: dict[str, dict[str, Webhook]] = {}
        """By account and id."""
        self.contracts: dict[bytes, str] = {}
        """Of the tasks of accounts that have webhooks."""


class CallbackQueue(SideFile):
    """The queue of one log's callbacks. `open_queue` is the way to get it."""

    shape = sql.SHAPE

    def __init__(self, file: aiosqlite.Connection, engine: Engine, plan: Plan) -> None:
        super().__init__(file)
        self._engine, self._plan = engine, plan
        self._told = plan.told
        self._posted: dict[Line, int] = {}
        """What is new by the page that is being saved."""
        self._news: dict[Line, int] = {}
        self._applied = -1
        """Up to where this process has followed by itself, without a gap since it last knew all lines."""
        self.end = LogEnd()
        """Up to where in the log the queue is known to be."""

    # Following

    async def apply(self, rows: Sequence[Recorded], *, after: Checkpoint) -> bool:
        saved = await super().apply(rows, after=after)
        if saved:
            self._applied = rows[-1].position if self._applied == after.position else -1
            for line, at_us in self._posted.items():
                self._news[line] = min(at_us, self._news.get(line, at_us))
            self.end.moved(rows[-1].position, recorded_at_us=rows[-1].entry.recorded_at_us)
        return saved

    async def _post(self, rows: Sequence[Recorded]) -> None:
        """Put in and mark what *rows* say."""
        concerned = [row for row in rows if self._concerns(row)]
        page, self._posted = await self._page(concerned), {}
        for row in concerned:
            await self._fold(row, page, self._posted)
        if (rows[0].position - 1) // FORGETS_EVERY != rows[-1].position // FORGETS_EVERY:
            await self._file.execute(sql.FORGET, (rows[-1].entry.recorded_at_us - KEPT_US,))

    def _concerns(self, row: Recorded) -> bool:
        kind = row.entry.type
        if kind == "created":
            return b'"callback_url":' in row.entry.facts
        return kind in self._told or kind == "callback-attempted" or kind in _ARRANGING

    async def _page(self, rows: Sequence[Recorded]) -> _Page:
        page = _Page()
        if not rows:
            return page
        streams = list({row.stream.hex() for row in rows if row.entry.type in self._told})
        found = await self._read(sql.ADDRESSES, (_encoder.encode(streams).decode(),)) if streams else []
        for task, contract, url in found:
            page.addresses[bytes.fromhex(task)] = contract, url
        accounts = _encoder.encode(list({row.account for row in rows})).decode()
        for account, webhook_id, raw in await self._read(sql.WEBHOOKS, (accounts,)):
            page.webhooks.setdefault(account, {})[webhook_id] = _webhook.decode(raw)
        hooked = page.webhooks.keys() | {row.account for row in rows if row.entry.type == "webhook-added"}
        tasks = {TaskId(row.stream) for row in rows if row.account in hooked and row.entry.type in self._told}
        if tasks:
            placed = await self._engine.tasks(list(tasks))
            page.contracts = {task: one.row.contract for task, one in placed.items()}
        return page

    async def _fold(self, row: Recorded, page: _Page, news: dict[Line, int]) -> None:
        event = event_of(row)
        match event:
            case Created(contract=contract, callback_url=str(url)):
                page.addresses[row.stream] = contract, url
                await self._file.execute(sql.ADD_ADDRESS, (row.stream.hex(), contract, url))
            case CallbackAttempted():
                await self._attempted(row, event)
            case WebhookAdded() | WebhookChanged() | WebhookRemoved():
                await self._arranged(row, event, page, news)
            case CallbackResent(callback_id=name):
                await self._file.execute(sql.AGAIN, (row.entry.recorded_at_us, name))
                for raw in await self._read(sql.BY_ID, (name,)):
                    news[Line(row.account, self._plan.receiver_of(delivery_of(raw).url))] = 0
            case _:
                pass
        if row.entry.type in self._told:
            await self._put_in(row, page, news)

    async def _put_in(self, row: Recorded, page: _Page, news: dict[Line, int]) -> None:
        """The callbacks that the event causes."""
        kind, address = row.entry.type, page.addresses.get(row.stream)
        if address is not None:
            contract, url = address
            calling = self._plan.own.get(contract)
            if calling is not None and kind in calling.tells:
                await self._add(row, contract, url, None, news)
        for webhook in page.webhooks.get(row.account, {}).values():
            contract = page.contracts.get(row.stream, "")
            if webhook.enabled and webhook.contract == contract and kind in webhook.tells:
                await self._add(row, contract, webhook.url, webhook.webhook_id, news)

    async def _add(self, row: Recorded, contract: str, url: str, webhook: str | None, news: dict[Line, int]) -> None:
        line = Line(row.account, self._plan.receiver_of(url))
        name, due_at_us = callback_id(TaskId(row.stream), row.version, webhook), row.entry.recorded_at_us
        whose = (row.stream.hex(), webhook or "", row.version, name, row.account, contract, url, line.receiver)
        await self._file.execute(sql.ADD, (*whose, row.entry.type, row.entry.effective_at_us, row.position, due_at_us))
        news[line] = 0

    async def _attempted(self, row: Recorded, event: CallbackAttempted) -> None:
        if event.about:
            found = await self._read(sql.BY_ID, (callback_id(TaskId(row.stream), event.about, event.webhook),))
        else:  # from before events said it: the last one that there was to tell
            found = await self._read(sql.LAST_OF_TASK, (row.stream.hex(),))
        if not found:
            return
        one = delivery_of(found[0])
        name = one.callback_id
        calling = self._plan.calling(one.contract, one.webhook)
        due = None if calling is None else due_us(calling, name, tried=one.tried + 1, failed_at_us=event.at_us)
        statement = sql.FAILED
        if event.delivered:
            statement = sql.DELIVERED
        elif event.gave_up or due is None:
            statement = sql.GIVEN_UP
        values = {"id": name, "attempts": event.attempt, "at": event.at_us, "error": event.error, "due": due}
        await self._file.execute(statement, values)  # no news: whoever has made the try looks at its line by himself

    async def _arranged(
        self, row: Recorded, event: WebhookAdded | WebhookChanged | WebhookRemoved, page: _Page, news: dict[Line, int]
    ) -> None:
        of_account = page.webhooks.setdefault(row.account, {})
        match event:
            case WebhookAdded():
                await self._put_webhook(row.account, added_webhook(event), of_account)
            case WebhookChanged(webhook_id=webhook_id) if webhook_id in of_account:
                changed = changed_webhook(of_account[webhook_id], event)
                await self._put_webhook(row.account, changed, of_account)
                receiver = self._plan.receiver_of(changed.url)
                await self._file.execute(sql.MOVED, (changed.url, receiver, webhook_id))
                if not changed.enabled:
                    await self._file.execute(sql.DISABLED, (webhook_id,))
                news[Line(row.account, receiver)] = 0
            case WebhookRemoved(webhook_id=webhook_id):
                of_account.pop(webhook_id, None)
                await self._file.execute(sql.DROP_WEBHOOK, (row.account, webhook_id))
                await self._file.execute(sql.WITHDRAWN, (webhook_id,))
            case _:
                pass

    async def _put_webhook(self, account: str, webhook: Webhook, of_account: dict[str, Webhook]) -> None:
        of_account[webhook.webhook_id] = webhook
        await self._file.execute(sql.PUT_WEBHOOK, (account, webhook.webhook_id, _encoder.encode(webhook)))

    # Asking

    async def news(self, end: int) -> Mapping[Line, int]:
        """The lines in which something has changed since this was last asked, and from when on to look at each.

        All in which something waits, when another process has a part in it that the log was followed to *end*.
        """
        news, self._news = self._news, {}
        if self._applied == end:
            return news
        self._applied = end
        return {Line(account, receiver): due for account, receiver, due in await self.ask(sql.LINES)}

    async def waiting(self, line: Line, limit: int) -> list[Delivery]:
        """The first that wait in the line, the most urgent first; of each task and address only the eldest."""
        return [delivery_of(raw) for raw in await self.ask(sql.DUE, (*line, limit))]

    async def get(self, name: str) -> Delivery | None:
        """The callback of that id."""
        found = await self.ask(sql.BY_ID, (name,))
        return delivery_of(found[0]) if found else None

    async def listed(self, wanted: Wanted) -> list[Delivery]:
        position, name = wanted.before or (None, None)
        values = {"state": wanted.state, "account": wanted.account, "position": position, "id": name}
        statement = sql.LISTED if wanted.state is None else sql.LISTED_IN_STATE
        return [delivery_of(raw) for raw in await self.ask(statement, values | {"limit": wanted.limit})]

    async def of_webhook(self, account: str, webhook_id: str, *, limit: int, skip: int) -> tuple[list[Delivery], int]:
        """A page of what the webhook was told, the newest first, and how much that is in all."""
        async with self._turn:
            rows = await self._read(sql.OF_WEBHOOK, (webhook_id, account, limit, skip))
            (count,) = (await self._read(sql.COUNT_OF_WEBHOOK, (webhook_id, account)))[0]
        return [delivery_of(raw) for raw in rows], int(count)


def queue_of(ledger: Path) -> Path:
    """Where the queue of the ledger in that file is."""
    return beside(ledger, "callbacks")


async def open_queue(path: Path, engine: Engine, plan: Plan) -> CallbackQueue:
    """The queue of *engine*'s log in the file *path*, begun if there is none.

    Raises:
        CannotOpenError, StorageError: as `open_side_file`.
    """
    return await open_side_file(CallbackQueue, path, engine, make=lambda file: CallbackQueue(file, engine, plan))
