"""What an audit finds, and how it reads what may be damaged.

Damage decides what an engine raises and what types it returns, so each reading passes through `sound`, and whoever
reads catches all exceptions: to the audit they are findings, and not its end.
"""

from collections.abc import AsyncIterator, Iterable
from enum import StrEnum
from typing import TypeVar

import msgspec

from ledger.chain import Place, link
from ledger.engine import Engine
from ledger.ids import Spelling, TaskId
from ledger.records import Recorded
from ledger.streams import is_task_stream
from projections.facts import brief
from projections.follow import Progress

FINDINGS_MAX = 100
"""Findings told in full; the others are counted."""
UNREADABLE_MAX = 100
"""Events passed over because they cannot be read, before the rest is given up."""
PAGE = 512

T = TypeVar("T")


class Check(StrEnum):
    """What was looked at when something was found."""

    CHAIN = "chain"
    POSITIONS = "positions"
    HEAD = "head"
    CHECKPOINT = "checkpoint"
    """What was signed of the log, and is kept elsewhere."""
    LINEAGE = "lineage"
    """What the log was called before."""
    EVENT = "event"
    KEYS = "keys"
    BREAKS = "breaks"
    CALLBACKS = "callbacks"
    COSTS = "costs"
    VERSIONS = "versions"
    HISTORY = "history"
    ROW = "row"
    MONEY = "money"
    CLAIMS = "claims"
    ACCOUNTS = "accounts"
    SEALS = "seals"
    STORE = "store"
    """What the engine finds under all of these: indexes, schema, guards."""
    UNREADABLE = "unreadable"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is not as it was written, or does not follow from what was written."""

    check: Check
    position: int | None = None
    """The event it shows at; of a row, the last event that the row should follow from."""
    task: str | None = None
    detail: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What an audit came to. *position* and *head* name the log's end: kept elsewhere, they prove what it was."""

    position: int
    head: str
    """The hash at the end, in hex."""
    events: int
    tasks: int
    found: int
    first_bad_position: int | None
    """Of the log, if the log is broken itself; else the first position whose rows are wrong."""
    findings: tuple[Finding, ...]


class Findings:
    """What was found so far."""

    def __init__(self) -> None:
        self.told: list[Finding] = []
        self.count = 0
        self.first_bad_position: int | None = None
        self.unreadable: set[int] = set()
        """Positions passed over, `UNREADABLE_MAX` at most."""

    def add(self, check: Check, detail: str, *, position: int | None = None, task: object = None) -> None:
        self.count += 1
        if position is not None and (self.first_bad_position is None or position < self.first_bad_position):
            self.first_bad_position = position
        if len(self.told) < FINDINGS_MAX:
            named = name_of(task) if task is not None and is_task_stream(task) else None
            self.told.append(Finding(check=check, position=position, task=named, detail=detail))


class Meter:
    """How far the audit is."""

    def __init__(self, progress: Progress, *, total: int) -> None:
        self._progress, self._done, self._total = progress, 0, total

    def add(self, events: int) -> None:
        self._done = min(self._done + events, self._total)
        self._progress(self._done, self._total)


# Reading


def sound(value: T, kind: type[T]) -> T:
    """*value*, which is what its type says.

    Raises:
        msgspec.ValidationError: it is not; a flipped bit can make NULL or text of what was bytes.
    """
    return msgspec.msgpack.decode(msgspec.msgpack.encode(value), type=kind)


async def log_pages(engine: Engine, found: Findings) -> AsyncIterator[list[Recorded]]:
    """The log in order, page by page. Of a page that cannot be read, the events that can."""
    position, limit = 0, PAGE
    while len(found.unreadable) < UNREADABLE_MAX:
        try:
            rows = sound(await engine.after(position, limit), list[Recorded])
        except Exception as error:  # noqa: BLE001 - see the top
            if limit == 1:
                position, limit = position + 1, PAGE
                found.unreadable.add(position)
                found.add(Check.UNREADABLE, f"the event cannot be read: {brief(error)}", position=position)
            else:
                limit = 1
            continue
        if not rows:
            return
        yield rows
        position = rows[-1].position
    found.add(Check.UNREADABLE, "too much cannot be read: the rest of the log is not checked", position=position + 1)


def link_of(previous: bytes, row: Recorded) -> bytes | None:
    """The link that the row gives after *previous*; None: a number of it is not even of the width that rows have."""
    try:
        return link(previous, Place(row.lane, row.position, row.stream, row.version, row.account), row.entry)
    except Exception:  # noqa: BLE001 - whatever damage makes an encoder raise
        return None


# Words


def differences(what: str, stands: msgspec.Struct | None, wanted: msgspec.Struct) -> Iterable[str]:
    """The fields in which a row is not what the events give, in words."""
    if stands is None:
        yield f"{what} is not there"
        return
    for field in wanted.__struct_fields__:
        have, want = getattr(stands, field), getattr(wanted, field)
        if have != want and isinstance(want, bytes):
            yield f"{what}: {field} is not what the events give"
        elif have != want:
            yield f"{what}: {field} is {have!r}, the events give {want!r}"


def name_of(task: object) -> str:
    """The task as the native API spells it, or whatever stands in its place."""
    return Spelling.UUID.spell(TaskId(task)) if isinstance(task, bytes) else repr(task)
