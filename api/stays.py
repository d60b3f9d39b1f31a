"""Requests that stay: long polls and streams, of which there are many at once, and most of them have nothing to do.

Each stays at a place of its own, counted in all and by account, and the feed's readers besides, for each commit wakes
those. One more than there is room for is refused with 503. While it waits it costs its connection and a timer. A stay
ends with what it waited for, with its time, or by *why* it must: its key is dead, its client has left, the service
stops. What must be looked for is looked for once for all of them: who has left, every second; the end of the log, in
case another process appends; and, when the log has grown, their keys, each once. Alternative beaten: aiohttp's
cancellation of handlers when their client leaves, which is for all requests or none, and would cancel writes as well.

Measured with the real server and 9,500 connections: long polls of as many tasks took 16 KiB each and, while nothing
happened, 1.7 % of a core together; ByteSpike's streams as much memory, and with their heartbeats 6 %.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from enum import StrEnum
from typing import Annotated, Self

import msgspec

from api.refusals import RevokedKey
from ledger.engine import Engine
from ledger.errors import Fault, Overloaded
from ledger.keys import is_dead
from ledger.records import KeyRow

LOOK_SECONDS = 1.0
KEYS_LOOKED_AT_MAX = 500
"""Keys that are read at one look, some 50 ms of work; when there are more, each has its turn."""
RETRY_AFTER_SECONDS = 5

Count = Annotated[int, msgspec.Meta(ge=1)]


class StayLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many requests may stay at a time, and for how long: the table ``[waiting]`` of the configuration."""

    requests_max: Count = 20_000
    """Long polls and streams in all."""
    account_max: Count = 10_000
    """Those of one account's keys."""
    feed_max: Count = 100
    """Those that read the feed."""
    wait_max_seconds: Count = 60
    """The longest ``wait``."""
    heartbeat_seconds: Count = 15
    """After so long without news a stream says that it is still there."""
    slow_seconds: Count = 10
    """How long a stream's client may take to make room for more before it is cut off."""


class Why(StrEnum):
    """Why a stay ended before its time."""

    SHUTDOWN = "shutdown"
    KEY_DEAD = "key_revoked"
    LEFT = "client_left"
    SLOW = "slow_reader"
    GONE = "task_gone"
    STORE = "store_unavailable"
    BROKEN = "internal_error"


class Stay:
    """One request's place, for as long as it is entered."""

    __slots__ = ("_patience", "_stays", "groups", "is_gone", "key_id", "why")

    def __init__(self, stays: "Stays", groups: tuple[str, ...], key_id: str, is_gone: Callable[[], bool]) -> None:
        self._stays, self.groups, self.key_id, self.is_gone = stays, groups, key_id, is_gone
        self.why: Why | None = None
        """Why it must end; None: it need not."""
        self._patience: asyncio.Timeout | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        """Give the place back."""
        self._stays.forget(self)

    def end(self, why: Why) -> None:
        """It must end, and *why*; what it waits for just now it waits for no longer."""
        if self.why is None:
            self.why = why
            if self._patience is not None and not self._patience.expired():
                self._patience.reschedule(asyncio.get_running_loop().time())

    async def wait(self, arrival: Awaitable[object], *, seconds: float) -> bool:
        """Whether *arrival* came within *seconds*, and before the stay had to end."""
        try:
            async with asyncio.timeout(0 if self.why else seconds) as self._patience:
                await arrival
        except TimeoutError:
            return False
        finally:
            self._patience = None
        return True

    def check(self) -> None:
        """Refuse what a dead key asked for.

        Raises:
            RevokedKey: it has died meanwhile.
        """
        if self.why is Why.KEY_DEAD:
            raise RevokedKey


class Stays:
    """All requests that stay."""

    def __init__(self, engine: Engine, *, clock: Callable[[], int], limits: StayLimits) -> None:
        self.limits = limits
        self._engine, self._clock = engine, clock
        self._stays: set[Stay] = set()
        self._counts: Counter[str] = Counter()
        self._keys: Counter[str] = Counter()
        self._rows: dict[str, KeyRow | None] = {}
        """The keys of those who stay, as they were read last."""
        self._unsure: dict[str, None] = {}
        """Keys that are to be read, in this order."""
        self._looked_at = 0
        self._looking: asyncio.Task[None] | None = None
        self._closing = False

    def __len__(self) -> int:
        return len(self._stays)

    def enter(self, *, account: str, key_id: str, is_gone: Callable[[], bool], follows_log: bool = False) -> Stay:
        """A place for a request of *account*; whether its client *is gone* is asked now and then.

        Raises:
            Overloaded: there is none, or the service stops.
        """
        groups = (f"account {account}", "feed") if follows_log else (f"account {account}",)
        bounds = (self.limits.account_max, self.limits.feed_max)
        full = any(self._counts[group] >= most for group, most in zip(groups, bounds, strict=False))
        if full or self._closing or len(self._stays) >= self.limits.requests_max:
            raise Overloaded("too many requests wait already", retry_after_seconds=RETRY_AFTER_SECONDS)
        stay = Stay(self, groups, key_id, is_gone)
        self._stays.add(stay)
        self._counts.update(groups)
        self._keys[key_id] += 1
        if key_id not in self._rows:
            self._unsure.setdefault(key_id)
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())
        return stay

    def forget(self, stay: Stay) -> None:
        """*stay* is over."""
        if stay not in self._stays:
            return
        self._stays.remove(stay)
        for group in stay.groups:
            self._counts[group] -= 1
            if not self._counts[group]:
                del self._counts[group]
        self._keys[stay.key_id] -= 1
        if not self._keys[stay.key_id]:
            del self._keys[stay.key_id]
            self._rows.pop(stay.key_id, None)
            self._unsure.pop(stay.key_id, None)

    def close(self) -> None:
        """Let all of them end, and no new one begin: the service stops."""
        self._closing = True
        if self._looking is not None:
            self._looking.cancel()
        for stay in [*self._stays]:
            stay.end(Why.SHUTDOWN)

    async def _look(self) -> None:
        """Every second, until nobody stays: end the stays whose client has left or whose key is dead."""
        while self._stays:
            await asyncio.sleep(LOOK_SECONDS)
            for stay in [one for one in self._stays if one.is_gone()]:
                stay.end(Why.LEFT)
            with suppress(Fault):  # then it is looked again: who has left must be noticed all the same
                await self._look_at_keys()
        self._looking = None

    async def _look_at_keys(self) -> None:
        head = await self._engine.head()  # and those who wait for the log to grow are woken by it
        if head.position != self._looked_at:
            self._looked_at = head.position
            self._unsure |= dict.fromkeys(self._keys)
        for key_id in [*self._unsure][:KEYS_LOOKED_AT_MAX]:
            row = await self._engine.key(key_id)
            self._unsure.pop(key_id, None)
            if key_id in self._keys:
                self._rows[key_id] = row
        now_us = self._clock()
        dead = {key_id for key_id, row in self._rows.items() if row is None or is_dead(row, now_us)}
        if dead:
            for stay in [one for one in self._stays if one.key_id in dead]:
                stay.end(Why.KEY_DEAD)
