"""Places in the log: its position at a time, and the hash there: what a figure names as the ground it rests on."""

import re
from typing import NamedTuple

from ledger.engine import Engine
from ledger.errors import DamagedError
from ledger.times import parse_rfc3339

_POSITION = re.compile(r"[0-9]{1,18}", re.ASCII)


class Place(NamedTuple):
    """A position of the log and the hash of the event there; position 0 is before the first."""

    position: int
    hash: bytes


class NoSuchPlaceError(ValueError):
    """What was given names no place of this log."""


async def place_of(engine: Engine, text: str | None) -> Place:
    """The place that *text* names: a position, or the last one recorded by an RFC 3339 time; None: the end.

    Raises:
        NoSuchPlaceError: it is neither, or beyond the end.
    """
    head = await engine.head()
    if text is None:
        return Place(head.position, head.hash)
    if _POSITION.fullmatch(text):
        if int(text) > head.position:
            raise NoSuchPlaceError(f"the log ends at position {head.position}, before {text}")
        return await _place(engine, int(text))
    at_us = parse_rfc3339(text)
    if at_us is None:
        raise NoSuchPlaceError(f"{text!r} is neither a position nor a time such as 2026-01-02T03:04:05Z")
    return await _place(engine, await _last_recorded_by(engine, at_us, end=head.position))


async def _place(engine: Engine, position: int) -> Place:
    if position == 0:
        return Place(0, b"")
    rows = await engine.after(position - 1, 1)
    if not rows or rows[0].position != position:
        raise DamagedError(f"the log has no event at position {position}: run `task-ledger verify`")
    return Place(position, rows[0].hash)


async def _last_recorded_by(engine: Engine, at_us: int, *, end: int) -> int:
    """By halving: recorded times never run backwards along the log."""
    known, beyond = 0, end + 1
    while beyond - known > 1:
        middle = (known + beyond) // 2
        rows = await engine.after(middle - 1, 1)
        if rows and rows[0].entry.recorded_at_us <= at_us:
            known = middle
        else:
            beyond = middle
    return known
