"""A part of the log, quickly: whether each row follows on the one before, and says what its event says.

Whether, and not where: whoever is told no reads the log row by row, and that decides (`projections.audit.log`). Here a
row stays the columns that it is, events are decoded many at once, and content stays sealed: the fold of its task opens
it. What is no task's is handed on, for that is checked in the order of the log.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

from ledger.chain import GENESIS, link_of
from ledger.event_bytes import decode, decode_plain
from ledger.events import AnyEvent, Created, TaskEvent
from projections.replay.replay_sql import HASH_AT, SPAN
from projections.replay.task_pages import reading

BEGINNING = -(2**63)
"""Before every position that a damaged file may have."""
PAGE = 256
_OF_TASKS = frozenset(get_args(TaskEvent))
_WITH_AMOUNT = frozenset(kind for kind in get_args(AnyEvent) if "amount_micros" in kind.__struct_fields__)
_TAGS = {kind: kind.__struct_config__.tag for kind in get_args(AnyEvent)}


class Span(NamedTuple):
    """Positions from *first* on, and before *beyond*."""

    first: int
    beyond: int


class SiftedLog(NamedTuple):
    """What a span without faults comes to."""

    span: Span
    hash: bytes
    """Of its last row."""
    recorded_at_us: int
    others: list[tuple[Any, ...]]
    """Rows that are no task's, in the order of their columns."""


def sift_log(path: Path, span: Span) -> SiftedLog | None:
    """Look through the span; None: something may be wrong with it."""
    try:
        with reading(path) as db:
            link = GENESIS
            if span.first > 1:
                (link,) = db.execute(HASH_AT, (span.first - 1,)).fetchone()
            found = SiftedLog(span, link, 0, [])
            rows, at = db.execute(SPAN, (BEGINNING if span.first == 1 else span.first, span.beyond)), span.first
            while page := rows.fetchmany(PAGE):
                after = _sifted(page, at, found)
                if after is None:
                    return None
                found, at = after, at + len(page)
            return found if at == span.beyond else None
    except Exception:  # noqa: BLE001 - whatever damage makes of it, the audit names it
        return None


def _sifted(page: Sequence[tuple[Any, ...]], at: int, before: SiftedLog) -> SiftedLog | None:
    """What the log comes to after these rows, the first of which should stand at *at*."""
    span, previous, recorded_max_us, others = before
    facts = [row[11] for row in page]
    events = decode_plain(facts) or [decode(one.encode(), None) for one in facts]
    for row, event in zip(page, events, strict=True):
        position, lane, stream, version, tag, recorded_at_us, effective_at_us, account, amount_micros = row[:9]
        actor, request_id, data, payload, hashed = row[9:]
        columns = (position, lane, stream, version, tag, recorded_at_us, effective_at_us, account, amount_micros)
        if position != at or link_of(previous, *columns, actor, request_id, data.encode(), payload) != hashed:
            return None
        kind = type(event)
        if tag != _TAGS[kind] or effective_at_us != event.at_us:
            return None
        if amount_micros != (event.amount_micros if kind in _WITH_AMOUNT else None):  # type: ignore[union-attr]
            return None
        if kind not in _OF_TASKS:
            others.append(row)
        elif kind is Created and account != event.account:  # type: ignore[union-attr]
            return None
        at, previous = at + 1, hashed
        recorded_max_us = max(recorded_max_us, recorded_at_us)
    return SiftedLog(span, previous, recorded_max_us, others)
