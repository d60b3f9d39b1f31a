"""Rows of the log, quickly: whether each follows on the one before it, and says what its event says.

Whether, and not where: whoever is told no reads the log row by row, and that decides (`projections.audit.log`). A row
is held against the hash that the row before it has, wherever that lies, so rows are checked in any order: those of
tasks where their task is folded, and those that are no task's here. Nobody reads the log a second time for its chain;
that no position is left out shows in the count. Alternative beaten: the log in its own order beside the tasks. It asked
as much of the processor (15.8 us an event in all, against 16.2, by turns: rows are read the sooner in their own order),
but read and decoded each event twice, of a file that may be larger than memory.

The chain is 2.7 us of that, and `ledger.chain.link_of` 1.7, of which SHA-256 by itself takes 0.55. One call for the
three names of a row, its parts in a tuple, added up or formatted, or all of it in this loop: 1.63 to 1.76.

What is no task's is handed on, for that is checked in the order of the log.
"""

import sqlite3
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple, get_args

import msgspec

from ledger.chain import GENESIS, link_of
from ledger.event_bytes import decode, decode_plain
from ledger.events import AnyEvent
from ledger.sqlite_sql import EVENT_COLUMNS
from projections.replay.replay_sql import AUDITED, BESIDE, LINKS
from projections.replay.task_pages import Row, reading

BEGINNING = -(2**63)
"""Before every position that a damaged file may have."""
PAGE = 256
_WITH_AMOUNT = frozenset(kind for kind in get_args(AnyEvent) if "amount_micros" in kind.__struct_fields__)
_TAGS = {kind: kind.__struct_config__.tag for kind in get_args(AnyEvent)}
_POSITION, _FACTS, _RECORDED, _HASH = map(AUDITED.columns.index, ("position", "data", "recorded_at", "hash"))
_said = itemgetter(*map(AUDITED.columns.index, ("type", "effective_at", "amount_micros")))
_in_order = itemgetter(*map(AUDITED.columns.index, EVENT_COLUMNS))


class Span(NamedTuple):
    """Positions from *first* on, and before *beyond*."""

    first: int
    beyond: int


class CheckedLog(NamedTuple):
    """What a span without faults has that is no task's."""

    span: Span
    recorded_at_us: int
    """The latest; 0: there is nothing."""
    others: list[Row]
    """In the order of an event's columns."""


def check_log(path: Path, span: Span) -> CheckedLog | None:
    """Look through what is no task's in the span; None: something may be wrong with it."""
    found, recorded_at_us = list[Row](), 0
    try:
        with reading(path) as db:
            rows = db.execute(BESIDE, (BEGINNING if span.first == 1 else span.first, span.beyond))
            while page := rows.fetchmany(PAGE):
                facts = [row[_FACTS] for row in page]
                events = decode_plain(facts) or [decode(one.encode(), None) for one in facts]
                if not is_chained(db, page) or not is_said(events, *zip(*map(_said, page), strict=True)):
                    return None
                found += map(_in_order, page)
                recorded_at_us = max(recorded_at_us, *(row[_RECORDED] for row in page))
    except Exception:  # noqa: BLE001 - whatever damage makes of it, the audit names it
        return None
    return CheckedLog(span, recorded_at_us, found)


def is_chained(db: sqlite3.Connection, rows: Sequence[Row]) -> bool:
    """Whether the hash of each is what it gives after the row before it; their columns are `AUDITED`.

    Raises:
        KeyError: the row before one of them is not there.
    """
    links = {row[_POSITION]: row[_HASH] for row in rows}
    elsewhere = [position - 1 for position in links if position - 1 not in links]
    links |= db.execute(LINKS, (msgspec.json.encode(elsewhere).decode(),))
    links[0] = GENESIS
    for task, at, data, payload, version, recorded, account, kind, effective, amount, lane, actor, asked, link in rows:
        columns = (at, lane, task, version, kind, recorded, effective, account, amount, actor, asked)
        if link_of(links[at - 1], *columns, data.encode(), payload) != link:
            return False
    return True


def is_said(
    events: Sequence[AnyEvent], tags: Sequence[Any], effective_at_us: Sequence[Any], amounts: Sequence[Any]
) -> bool:
    """Whether these columns of their rows are what the events say."""
    kinds = [*map(type, events)]
    return (
        [_TAGS[kind] for kind in kinds] == [*tags]
        and [event.at_us for event in events] == [*effective_at_us]
        and [
            event.amount_micros if kind in _WITH_AMOUNT else None  # type: ignore[union-attr]
            for kind, event in zip(kinds, events, strict=True)
        ]
        == [*amounts]
    )
