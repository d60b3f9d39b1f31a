"""The rows that an engine keeps: the log, and what is folded from it in the same commit.

Structs here and of the vocabulary are ``gc=False``: none is part of a cycle, and the collector
need not walk through them (it was estimated at a seventh of a create, before).
"""

from typing import TypeAlias

import msgspec

from ledger.event_bytes import decode, encode
from ledger.events import AnyEvent, amount_of, tag_of
from ledger.ids import TaskId
from ledger.seals import unseal


class Entry(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """An event ready to be written: all of its row but the place."""

    type: str
    recorded_at_us: int
    effective_at_us: int
    amount_micros: int | None
    actor: str
    request_id: str
    facts: bytes
    payload: bytes | None
    """As it is stored: sealed."""


def entry(event: AnyEvent, *, actor: str, recorded_at_us: int, request_id: str = "") -> Entry:
    """The event as its row, but for the place and the seal on its payload."""
    facts, payload = encode(event)
    return Entry(
        type=tag_of(event),
        recorded_at_us=recorded_at_us,
        effective_at_us=event.at_us,
        amount_micros=amount_of(event),
        actor=actor,
        request_id=request_id,
        facts=facts,
        payload=payload,
    )


class Recorded(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A row of the log."""

    lane: int
    position: int
    stream: bytes
    version: int
    account: str
    entry: Entry
    hash: bytes
    seal_key: bytes | None = None
    """What the stream's payloads open with; None: nothing was ever sealed, or it has been erased."""

    @property
    def is_erased(self) -> bool:
        """Whether there was a payload that nobody can open any more."""
        return self.entry.payload is not None and self.seal_key is None

    @property
    def payload(self) -> bytes | None:
        """The payload, opened; None if there was none, or it has been erased.

        Raises:
            DamagedError: it is not what was sealed.
        """
        if self.entry.payload is None or self.seal_key is None:
            return None
        return unseal(self.entry.payload, key=self.seal_key, stream=self.stream, version=self.version)

    @property
    def event(self) -> AnyEvent:
        """The fact itself, without its payload if that has been erased.

        Raises:
            DamagedError: as `payload`.
        """
        return decode(self.entry.facts, self.payload)


class TaskRow(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A task as it is listed, summed and read; ``view`` is the encoded `Task`."""

    task_id: TaskId
    account: str
    contract: str
    capability: str
    model: str
    status: str
    version: int
    created_at_us: int
    authorised_micros: int
    held_micros: int
    released_micros: int
    charged_micros: int
    refunded_micros: int
    view: bytes


class Placed(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A task's row, the position of the event that last changed it, and what its payloads open with, if anything."""

    row: TaskRow
    position: int
    seal_key: bytes | None = None


class KeyRow(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """An API key as it is looked up: the digest of its secret, never the secret. Revoked: dead from then on."""

    key_id: str
    account: str
    contract: str
    role: str
    digest: str
    issued_at_us: int
    revoked_at_us: int | None = None


SUM_MAX_MICROS = 2**63 - 1
"""What a sum over an account is kept at when it is more: nine trillion credits, the most that every engine holds."""


class Move(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """How a task's events move its account, up or down: its exposure, in micro-credits, and its tasks under way."""

    held_micros: int = 0
    charged_micros: int = 0
    refunded_micros: int = 0
    expected_micros: int = 0
    live_tasks: int = 0


class CreditTerms(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What an account was given, as of event *version* of its stream. None: no limit; nothing was ever granted."""

    version: int
    limit_micros: int | None
    granted_micros: int | None


class AccountRow(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What an account may spend, what its tasks may cost it, and how many are under way.

    *position* is the event that last changed any of that.
    *version* is that of the last event in its stream that changed its credit; 0: there was none.
    """

    account: str
    position: int = 0
    version: int = 0
    limit_micros: int | None = None
    granted_micros: int | None = None
    """All grants that stand; None: there never was one."""
    held_micros: int = 0
    charged_micros: int = 0
    refunded_micros: int = 0
    expected_micros: int = 0
    """What the live runs are estimated to cost that are charged only when they succeed."""
    live_tasks: int = 0
    """How many of its tasks are queued or running."""

    @property
    def unlimited(self) -> bool:
        return self.limit_micros is None and self.granted_micros is None

    @property
    def exposure_micros(self) -> int:
        """What its tasks have cost and may cost yet."""
        return self.held_micros + self.charged_micros - self.refunded_micros + self.expected_micros

    @property
    def available_micros(self) -> int:
        """What it may still spend; nobody asks when it is unlimited."""
        return (self.limit_micros or 0) + (self.granted_micros or 0) - self.exposure_micros


ClaimId: TypeAlias = tuple[str, str, str]
"""Account, operation, key."""


class ClaimRow(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """An idempotency key and where its first answer can be read: the task as of *version*."""

    account: str
    operation: str
    key: str
    fingerprint: str
    task_id: TaskId
    version: int
    appended: bool
    """Whether the request changed anything."""
    at_us: int

    @property
    def id(self) -> ClaimId:
        return self.account, self.operation, self.key


class Append(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Events of one stream, decided when it held *expected* events, and the rows that follow from them.

    A stream is a task's, named by its id, or an account's, which has no task row. No entries: only claims are written.
    *move* is what a task's events do to the account's row, *terms* is what an account's own events do to it.
    *seal_key* comes with the first payload of the stream.
    """

    stream: bytes
    account: str
    expected: int
    entries: tuple[Entry, ...]
    task: TaskRow | None = None
    keys: tuple[KeyRow, ...] = ()
    claims: tuple[ClaimRow, ...] = ()
    move: Move | None = None
    terms: CreditTerms | None = None
    rests_on: int | None = None
    """The version of the account's terms that an admission was decided on; None: it was decided on none."""
    seal_key: bytes | None = None


class Stale(msgspec.Struct, frozen=True, gc=False):
    """Nothing was written: the stream, which holds *actual* events, or the account is not as the append found it."""

    actual: int
    switched: bool = False
    """Rows that are folded from the log have been replaced since: what is in memory of them is to be read anew."""


Outcome: TypeAlias = int | Stale
"""The lane's position after the append, or why it was not written."""


class Head(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The end of a lane: the last position, 0 when empty, and the hash there."""

    lane: int
    position: int
    hash: bytes
    recorded_at_us: int = 0


class TaskFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which tasks to list, in order of creation, and from where; newest first unless *oldest_first*.

    At most *limit* of them, and none after those whose views have *bytes_max* together: at least one, if there is one.
    """

    account: str | None = None
    status: str | None = None
    model: str | None = None
    before: TaskId | None = None
    after: TaskId | None = None
    oldest_first: bool = False
    limit: int = 50
    bytes_max: int | None = None
