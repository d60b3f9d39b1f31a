"""What an engine is: a place that keeps events, and the rows folded from them in the same commit.

``tests/test_engines.py`` is the contract, and every engine passes it. The deciding is not done here: an engine
gets appends that carry the version they were decided against, and `plan`, shared by all, says which of them may
be written.

One append writes its events, its task's row, its claims and its API keys together or not at all, so that a reader
never lags, a refund is in the commit of its cancel, and an idempotency key exists exactly when its effect does.

With the key under which a task's payloads are sealed it is the same: it is there with the first of them, and the event
`ERASES` itself takes it away. No append can say the one without the other.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import msgspec

from ledger.chain import Place, link
from ledger.events import Deleted
from ledger.ids import TaskId
from ledger.records import (
    Append,
    ClaimId,
    ClaimRow,
    Entry,
    Head,
    KeyRow,
    Outcome,
    Placed,
    Recorded,
    Stale,
    TaskFilter,
)

ERASES = Deleted.__struct_config__.tag
"""The type of the event in whose commit the key of its task is destroyed."""


class Engine(Protocol):
    """Where the log lives. Every method may raise `StorageError`; then nothing was written."""

    @property
    def log_id(self) -> str:
        """A random name that this log keeps for life: cursors of another log are refused by it."""

    @property
    def pepper(self) -> bytes:
        """The key of the key digests."""

    async def commit(self, batch: Sequence[Append]) -> list[Outcome]:
        """Write in one durable transaction what `plan` allows; an outcome for each append, in order."""

    async def tasks(self, ids: Sequence[TaskId]) -> dict[TaskId, Placed]:
        """The rows of those tasks that exist, as of the last commit."""

    async def page(self, wanted: TaskFilter) -> list[Placed]:
        """Rows of the tasks that fit, in the order that *wanted* names."""

    async def claims(self, ids: Sequence[ClaimId]) -> dict[ClaimId, ClaimRow]:
        """Those of the claims that have been taken."""

    async def key(self, key_id: str) -> KeyRow | None:
        """The API key, dead or alive."""

    async def keys(self, account: str | None) -> list[KeyRow]:
        """The API keys of an account, or all, oldest first."""

    async def streams(self, names: Sequence[bytes]) -> list[Recorded]:
        """The events of these streams, stream by stream, oldest first."""

    async def after(self, position: int, limit: int) -> list[Recorded]:
        """At most *limit* events of the log beyond *position*, in order."""

    async def head(self) -> Head:
        """The end of the log."""

    def snapshot(self) -> AbstractAsyncContextManager[None]:
        """While it is entered, all that is read is of one moment."""

    async def close(self) -> None:
        """Let go of the store. What was committed stays."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a batch comes to: the rows to write, where the lane ends then, and an outcome for each append."""

    rows: list[Recorded]
    written: list[tuple[Append, int]]
    head: Head
    outcomes: list[Outcome]


def _recorded(place: Place, entry: Entry, link_hash: bytes) -> Recorded:
    return Recorded(
        lane=place.lane,
        position=place.position,
        stream=place.stream,
        version=place.version,
        account=place.account,
        entry=entry,
        hash=link_hash,
    )


def plan(batch: Sequence[Append], *, head: Head, versions: Mapping[bytes, int] | None) -> Plan:
    """Give each append its place after *head*, and pass over those decided on another version of their stream.

    What follows a stale append in its stream was decided on top of it, so it is stale as well.

    *versions* holds how many events each stream has (absent: 0). None: trust the appends, because the engine's own
    constraints would refuse a wrong one; they cannot refuse one without entries.
    """
    known = dict(versions) if versions is not None else {}
    stale: set[bytes] = set()
    rows: list[Recorded] = []
    written: list[tuple[Append, int]] = []
    outcomes: list[Outcome] = []
    position, last_hash, recorded_at_us = head.position, head.hash, head.recorded_at_us
    for append in batch:
        actual = known.get(append.stream, append.expected if versions is None else 0)
        if actual != append.expected or append.stream in stale:
            stale.add(append.stream)
            outcomes.append(Stale(actual))
            continue
        for version, entry in enumerate(append.entries, start=append.expected + 1):
            position += 1
            place = Place(head.lane, position, append.stream, version, append.account)
            last_hash = link(last_hash, place, entry)
            rows.append(_recorded(place, entry, last_hash))
            recorded_at_us = max(recorded_at_us, entry.recorded_at_us)
        known[append.stream] = append.expected + len(append.entries)
        written.append((append, position))
        outcomes.append(position)
    end = Head(lane=head.lane, position=position, hash=last_hash, recorded_at_us=recorded_at_us)
    return Plan(rows=rows, written=written, head=end, outcomes=outcomes)
