"""One try of a callback: read from the log, posted to the receiver, and put back into the log as an event.

A body is made when it is sent, of the task's history up to the event that is told: a task that has moved on since says
what was, in order, and one that has been erased says nothing that was erased. Alternative beaten: bodies in the queue,
which would have to be erased as well.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NamedTuple

from api.contracts.shape import Contract
from api.contracts.telling import Fact, Letter, Telling
from api.egress import Posted, Poster
from api.faults import log_fault
from ledger.callback_log import arranged_by
from ledger.callbacks import Arranged, ChangeWebhook, account_secret, callbacks_stream, due_us, open_secret
from ledger.commands import RecordCallback
from ledger.errors import DamagedError, Overloaded, StorageError, UnknownWebhook
from ledger.ledger import Ledger
from projections.callbacks.rows import Delivery, task_at

BY = "callbacks"
"""The actor of what is recorded here."""
AGAIN_SECONDS = 1.0
"""After so long what the store did not take is offered again."""


class Tried(NamedTuple):
    """What became of a try, whether it is the last one, and where it went, if anywhere."""

    posted: Posted
    gave_up: bool
    url: str | None = None


class _Undeliverable(Exception):
    """There is nothing that could be posted, for this reason; *for_good*: nor will there ever be."""

    def __init__(self, reason: str, *, for_good: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.for_good = reason, for_good


class Tries:
    """Makes the tries of a ledger's callbacks, worded by *contracts*; it closes *poster* with itself."""

    def __init__(
        self, ledger: Ledger, poster: Poster, *, contracts: Mapping[str, Contract], clock: Callable[[], int]
    ) -> None:
        self._ledger, self._poster, self._contracts, self._clock = ledger, poster, contracts, clock
        self._log = ledger.callbacks

    async def close(self) -> None:
        """Let go of the poster."""
        await self._poster.close()

    async def post(self, one: Delivery) -> Tried:
        """Post the callback once, to the address that it has by now.

        Raises:
            StorageError: what is to be posted could not be read.
        """
        telling = self._telling(one)
        if telling is None:
            return Tried(Posted("not told by this contract"), gave_up=True)
        is_last = due_us(telling.calling, one.callback_id, tried=one.tried + 1, failed_at_us=0) is None
        try:
            url, body, secrets = await self._composed(one, telling)
        except _Undeliverable as why:
            return Tried(Posted(why.reason), is_last or why.for_good)
        headers = telling.headers(Letter(one.callback_id, self._clock(), body, secrets))
        posted = await self._poster.post(url, body, headers, timeout_seconds=telling.timeout_seconds)
        if posted.gone and one.webhook is not None and await self._has_moved(one.account, one.webhook, url):
            posted = Posted(posted.error)  # it is the old address that wants no more
        return Tried(posted, posted.error is not None and (is_last or posted.gone), url)

    async def record(self, one: Delivery, tried: Tried) -> int:
        """Put the try into the log, however long the store may take for it; the position of that event."""
        command = RecordCallback(
            task_id=one.task,
            at_us=self._clock(),
            actor=BY,
            attempt=one.attempts + 1,
            delivered=tried.posted.error is None,
            error=tried.posted.error,
            about=one.about,
            gave_up=tried.gave_up,
            webhook=one.webhook,
        )
        while True:
            try:
                return (await self._ledger.handle(command)).position
            except (Overloaded, StorageError) as error:
                log_fault("callbacks.not_recorded", error)
                await asyncio.sleep(AGAIN_SECONDS)

    async def disable_if_gone(self, one: Delivery, tried: Tried) -> None:
        """Disable the webhook if its receiver has said that it is gone (410): nothing more is told to it there."""
        if one.webhook is None or not tried.posted.gone:
            return
        command = ChangeWebhook(at_us=self._clock(), webhook_id=one.webhook, enabled=False, if_url=tried.url)
        with suppress(UnknownWebhook):
            await self._log.carry_out(command, account=one.account, by=BY)

    async def _has_moved(self, account: str, webhook_id: str, url: str) -> bool:
        """Whether the webhook has another address than *url* by now."""
        webhook = (await self._log.arranged(account)).webhooks.get(webhook_id)
        return webhook is not None and webhook.url != url

    def _telling(self, one: Delivery) -> Telling | None:
        contract = self._contracts.get(one.contract)
        if contract is None:
            return None
        return contract.telling if one.webhook is None else contract.webhooks

    async def _composed(self, one: Delivery, telling: Telling) -> tuple[str, bytes, tuple[str, ...]]:
        """The address, the body, and the secrets that sign it, as they are now: all of it out of one read.

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
