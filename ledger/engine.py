"""What an engine is: a place that keeps events, and the rows folded from them in the same commit.

``tests/test_engines.py`` is the contract, and every engine passes it. The deciding is not done here: an engine
gets appends that carry the version they were decided against, and `plan`, shared by all, says which of them may
be written.

One append writes its events, its task's row, its claims and its API keys together or not at all, so that a reader
never lags, a refund is in the commit of its cancel, and an idempotency key exists exactly when its effect does.

Of an account's row an append carries what it changes: a task's events move sums up or down, whoever else moves them,
and an account's own events set its terms. New work was admitted by terms that another process may have changed since,
so its append names their version, and is stale when they are no longer those.

With the key under which a task's payloads are sealed it is the same: it is there with the first of them, and the event
`ERASES` itself takes it away. No append can say the one without the other.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from enum import StrEnum
from typing import Protocol

import msgspec
from msgspec.structs import replace

from ledger.chain import Place, link
from ledger.events import Deleted
from ledger.ids import TaskId
from ledger.lineage import Lineage
from ledger.log_end import LogEnd
from ledger.records import (
    SUM_MAX_MICROS,
    AccountRow,
    Append,
    ClaimId,
    ClaimRow,
    CreditTerms,
    Entry,
    Head,
    KeyRow,
    Move,
    Outcome,
    Placed,
    Recorded,
    Stale,
    TaskFilter,
)

ERASES = Deleted.__struct_config__.tag
"""The type of the event in whose commit the key of its task is destroyed."""


class Trouble(StrEnum):
    """What keeps a store from taking writes."""

    DEGRADED = "degraded"
    """The last commit failed; the next one may succeed."""
    READ_ONLY = "read-only"
    """It is damaged, and takes none until it has been restored."""


class Engine(Protocol):
    """Where the log lives. Every method may raise `StorageError`; then nothing was written."""

    @property
    def log_id(self) -> str:
        """A random name that this log keeps until it is restored: cursors of another log are refused by it."""

    @property
    def lineage(self) -> Lineage:
        """What it was called before it was restored, and up to where."""

    @property
    def pepper(self) -> bytes:
        """The key of the key digests."""

    @property
    def end(self) -> LogEnd:
        """The end of the log as this process knows it: `commit` moves it, and so may `head`."""

    @property
    def trouble(self) -> Trouble | None:
        """What keeps it from taking writes, as far as that has been met."""

    async def commit(self, batch: Sequence[Append]) -> list[Outcome]:
        """Write in one durable transaction what `plan` allows; an outcome for each append, in order."""

    async def tasks(self, ids: Sequence[TaskId]) -> dict[TaskId, Placed]:
        """The rows of those tasks that exist, as of the last commit."""

    async def page(self, wanted: TaskFilter) -> list[Placed]:
        """Rows of the tasks that fit, in the order that *wanted* names."""

    async def claims(self, ids: Sequence[ClaimId]) -> dict[ClaimId, ClaimRow]:
        """Those of the claims that have been taken."""

    async def claims_after(self, claim: ClaimId | None, limit: int) -> list[ClaimRow]:
        """At most *limit* claims beyond *claim*, in the order of their ids; None: from the first on."""

    async def key(self, key_id: str) -> KeyRow | None:
        """The API key, dead or alive."""

    async def keys(self, account: str | None) -> list[KeyRow]:
        """The API keys of an account, or all, oldest first."""

    async def accounts(self, names: Sequence[str] | None) -> dict[str, AccountRow]:
        """The rows of those accounts that have one; *names* None: of all, in the order of their names."""

    async def streams(self, names: Sequence[bytes]) -> list[Recorded]:
        """The events of these streams, stream by stream, oldest first."""

    async def after(self, position: int, limit: int) -> list[Recorded]:
        """At most *limit* events of the log beyond *position*, in order."""

    async def head(self) -> Head:
        """The end of the log."""

    async def damage(self) -> list[str]:
        """What is wrong with the store where none of these reads would meet it, as in an index; in its own words."""

    def snapshot(self) -> AbstractAsyncContextManager[None]:
        """While it is entered, all that is read is of one moment."""

    async def close(self) -> None:
        """Let go of the store. What was committed stays."""


class AccountChange:
    """All that a batch does to one account: sums that move, and terms if they change."""

    __slots__ = (
        "charged_micros",
        "expected_micros",
        "held_micros",
        "live_tasks",
        "position",
        "refunded_micros",
        "rests_on",
        "terms",
    )

    def __init__(self) -> None:
        self.position = 0
        self.held_micros = self.charged_micros = self.refunded_micros = self.expected_micros = 0
        self.live_tasks = 0
        self.terms: CreditTerms | None = None
        self.rests_on: int | None = None
        """The oldest version of the account's terms that anything written was admitted by."""

    def add(self, move: Move) -> None:
        self.held_micros += move.held_micros
        self.charged_micros += move.charged_micros
        self.refunded_micros += move.refunded_micros
        self.expected_micros += move.expected_micros
        self.live_tasks += move.live_tasks

    def applied(self, row: AccountRow) -> AccountRow:
        """The account's row after it."""
        terms = self.terms or CreditTerms(
            version=row.version, limit_micros=row.limit_micros, granted_micros=row.granted_micros
        )
        return AccountRow(
            account=row.account,
            position=self.position,
            version=terms.version,
            limit_micros=terms.limit_micros,
            granted_micros=terms.granted_micros,
            held_micros=_kept(row.held_micros + self.held_micros),
            charged_micros=_kept(row.charged_micros + self.charged_micros),
            refunded_micros=_kept(row.refunded_micros + self.refunded_micros),
            expected_micros=_kept(row.expected_micros + self.expected_micros),
            live_tasks=row.live_tasks + self.live_tasks,
        )


def _kept(sum_micros: int) -> int:
    return min(sum_micros, SUM_MAX_MICROS)


def account_changes(written: Sequence[tuple[Append, int]]) -> dict[str, AccountChange]:
    """What these appends, each with its place, do to accounts: one change an account."""
    changes: dict[str, AccountChange] = {}
    for append, position in written:
        if append.move is None and append.terms is None:
            continue
        change = changes.get(append.account)
        if change is None:
            change = changes[append.account] = AccountChange()
        change.position = position
        if append.move is not None:
            change.add(append.move)
        if append.terms is not None:
            change.terms = append.terms
        if append.rests_on is not None and (change.rests_on is None or append.rests_on < change.rests_on):
            change.rests_on = append.rests_on
    return changes


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


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """How the log stands that a batch is planned for: events by stream, versions of terms by account (absent: 0)."""

    versions: Mapping[bytes, int]
    terms: Mapping[str, int]
    switched: bool = False
    """Rows have been replaced since this process last wrote: what was decided on a task in memory is stale."""


def _no_earlier_than(recorded_at_us: int, entry: Entry) -> Entry:
    """Recorded time never runs backwards along a lane, whoever appends: what was known at a time has one end."""
    return entry if entry.recorded_at_us >= recorded_at_us else replace(entry, recorded_at_us=recorded_at_us)


def plan(batch: Sequence[Append], *, head: Head, found: Found | None) -> Plan:
    """Give each append its place after *head*, and pass over those decided on another version of what they rest on.

    What follows a stale append in its stream was decided on top of it, so it is stale as well; and so is what was
    admitted to an account on top of one that was to move it.

    *found* None: trust the appends, because the engine's own constraints would refuse a wrong one; they cannot
    refuse one without entries.
    """
    known = dict(found.versions) if found is not None else {}
    terms = dict(found.terms) if found is not None else {}
    stale: set[bytes] = set()
    unmoved: set[str] = set()
    rows: list[Recorded] = []
    written: list[tuple[Append, int]] = []
    outcomes: list[Outcome] = []
    position, last_hash, recorded_at_us = head.position, head.hash, head.recorded_at_us
    for append in batch:
        actual = known.get(append.stream, append.expected if found is None else 0)
        switched = found is not None and found.switched and append.task is not None
        admitted = append.rests_on is None or (
            append.account not in unmoved and (found is None or terms.get(append.account, 0) == append.rests_on)
        )
        if actual != append.expected or append.stream in stale or not admitted or switched:
            stale.add(append.stream)
            unmoved.add(append.account)
            outcomes.append(Stale(actual, switched))
            continue
        if append.terms is not None:
            terms[append.account] = append.terms.version
        for version, offered in enumerate(append.entries, start=append.expected + 1):
            position += 1
            place = Place(head.lane, position, append.stream, version, append.account)
            entry = _no_earlier_than(recorded_at_us, offered)
            last_hash = link(last_hash, place, entry)
            rows.append(_recorded(place, entry, last_hash))
            recorded_at_us = entry.recorded_at_us
        known[append.stream] = append.expected + len(append.entries)
        written.append((append, position))
        outcomes.append(position)
    end = Head(lane=head.lane, position=position, hash=last_hash, recorded_at_us=recorded_at_us)
    return Plan(rows=rows, written=written, head=end, outcomes=outcomes)
