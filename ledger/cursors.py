"""Cursors: opaque text for a place in the log or in a list, bound to the log that gave it out."""

import base64
import binascii
from collections.abc import Mapping

from ledger.ids import ID_BYTES, TaskId

SEPARATOR = b"\x00"
POSITION_BYTES = 8
POSITION_MAX = 2**63 - 1
"""What a database can count to. A forged cursor may say more."""
NOT_RESTORED: Mapping[str, int] = {}


def cursor(log_id: str, place: bytes) -> str:
    """An opaque text for *place* in the log called *log_id*."""
    return base64.urlsafe_b64encode(log_id.encode() + SEPARATOR + place).decode().rstrip("=")


def place(log_id: str, text: str) -> bytes | None:
    """The place that *text* names in this very log, or None: it is no cursor, or another log's."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        return None
    prefix = log_id.encode() + SEPARATOR
    return raw.removeprefix(prefix) if raw.startswith(prefix) else None


def position_cursor(log_id: str, position: int) -> str:
    """The cursor after the event at *position*."""
    return cursor(log_id, position.to_bytes(POSITION_BYTES, "big"))


def position_of(log_id: str, text: str, *, earlier: Mapping[str, int] = NOT_RESTORED) -> int | None:
    """The position that a `position_cursor` stands for, of this log or of an *earlier* name of it.

    An earlier one is none beyond the position where the log was restored: what followed there is another history.
    """
    position = _position(place(log_id, text))
    if position is not None:
        return position
    for name, last in earlier.items():
        position = _position(place(name, text))
        if position is not None:
            return position if position <= last else None
    return None


def task_of(log_id: str, text: str) -> TaskId | None:
    """The task at which a list of this very log left off, by the cursor that it gave; None: it gave no such cursor."""
    raw = place(log_id, text)
    return TaskId(raw) if raw is not None and len(raw) == ID_BYTES else None


def _position(raw: bytes | None) -> int | None:
    if raw is None or len(raw) != POSITION_BYTES:
        return None
    position = int.from_bytes(raw, "big")
    return position if position <= POSITION_MAX else None
