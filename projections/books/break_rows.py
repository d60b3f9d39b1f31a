"""The breaks as they are listed: one row each in the books, folded from the events of their streams."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import aiosqlite
import msgspec

from ledger.breaks import Break, Life, break_stream, evolve_break
from ledger.errors import DamagedError
from ledger.events import BreakCorrected, BreakEvent, BreakExplained, BreakKind, BreakOpened
from ledger.records import SUM_MAX_MICROS, Recorded
from projections.books.booked import Asked
from projections.books.books_sql import BREAK, BREAKS_COUNTED, BREAKS_LISTED, LOW_BITS, PUT_BREAK
from projections.facts import event_of, not_as_its_row_says

TYPES = frozenset({"break-opened", "break-explained", "break-corrected"})
PAGE_MAX = 500

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Break)


class Wanted(NamedTuple):
    """Which breaks to list, in the order of their ids, after which one."""

    life: Life | None = None
    kind: BreakKind | None = None
    provider: str | None = None
    after: str = ""
    limit: int = PAGE_MAX


class Count(NamedTuple):
    """How many breaks of a kind, and the micro-credits at stake in all of them."""

    breaks: int
    at_stake_micros: int


def together(*counts: Mapping[BreakKind, Count]) -> dict[BreakKind, Count]:
    """All of them added up, by kind."""
    added: dict[BreakKind, Count] = {}
    for kind, count in (pair for one in counts for pair in one.items()):
        breaks, micros = added.get(kind, Count(0, 0))
        added[kind] = Count(breaks + count.breaks, micros + count.at_stake_micros)
    return added


async def post_breaks(file: aiosqlite.Connection, rows: Iterable[Recorded]) -> None:
    """Fold these events into the rows of their breaks, inside the transaction that is open."""
    changed: dict[bytes, Break] = {}
    for row in rows:
        if row.entry.type not in TYPES:
            continue
        event = _event(row)
        old = changed.get(row.stream) or await _row(file, row.stream)
        if old is None and not isinstance(event, BreakOpened):
            raise DamagedError(f"the event at position {row.position} is about a break that was never opened")
        changed[row.stream] = evolve_break(old, event)
    await file.executemany(PUT_BREAK, [_values(stream, known) for stream, known in changed.items()])


async def list_breaks(books: Asked, wanted: Wanted) -> list[Break]:
    """The breaks that are *wanted*."""
    values = {
        "after": break_stream(wanted.after) or b"",
        "life": wanted.life,
        "kind": wanted.kind,
        "provider": wanted.provider,
        "limit": wanted.limit,
    }
    return [_decoder.decode(row[0]) for row in await books.ask(BREAKS_LISTED, values)]


async def all_breaks(books: Asked, wanted: Wanted) -> AsyncIterator[list[Break]]:
    """The breaks that are *wanted* and all after them, page by page, as they are when their page comes."""
    while page := await list_breaks(books, wanted):
        yield page
        wanted = wanted._replace(after=page[-1].break_id)


async def count_breaks(books: Asked, *, life: Life, provider: str | None = None) -> dict[BreakKind, Count]:
    """How many breaks of each kind are in that state."""
    rows = await books.ask(BREAKS_COUNTED, {"life": life, "provider": provider})
    return {BreakKind(kind): Count(count, (high << LOW_BITS) + low) for kind, count, high, low in rows}


def _event(row: Recorded) -> BreakEvent:
    """The event of a break.

    Raises:
        DamagedError: it cannot be read, or is not the one that its row says.
    """
    event = event_of(row)
    if not isinstance(event, BreakOpened | BreakExplained | BreakCorrected):
        raise not_as_its_row_says(row)
    return event


async def _row(file: aiosqlite.Connection, stream: bytes) -> Break | None:
    rows = list(await file.execute_fetchall(BREAK, (stream,)))
    return _decoder.decode(rows[0][0]) if rows else None


def _values(stream: bytes, known: Break) -> Sequence[Any]:
    found = known.found
    counted_micros = min(found.at_stake_micros, SUM_MAX_MICROS)  # for sums, which then are of absurd amounts anyway
    return stream, found.provider, found.kind, known.life, counted_micros, _encoder.encode(known)
