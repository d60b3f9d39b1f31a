"""The hash chain: each row's hash covers the hash before it and every stored byte of the row.

The encoding is fixed-width numbers and length-prefixed bytes, so no two different rows encode alike, and nothing
formatted (a float, a time text) enters a hash. SQLite's own integrity checks pass over a flipped bit in a payload;
this does not.
"""

import hashlib
import struct
from functools import lru_cache
from typing import NamedTuple

from ledger.records import Entry

GENESIS = hashlib.sha256(b"task-ledger log, first version").digest()
"""What stands before the first row of a lane."""

FIELDS_MAX = 4096
"""Encoded texts that are kept."""

_PLACE = struct.Struct(">HQ16sIqq")
_AMOUNT = struct.Struct(">?q")
_LENGTH = struct.Struct(">I")


class Place(NamedTuple):
    """Where a row stands: in its lane, and in its stream."""

    lane: int
    position: int
    stream: bytes
    version: int
    account: str


@lru_cache(maxsize=FIELDS_MAX)
def _field(text: str) -> bytes:
    field = text.encode()
    return _LENGTH.pack(len(field)) + field


def link(previous: bytes, place: Place, entry: Entry) -> bytes:
    """The hash of the row that puts *entry* at *place*, after the row whose hash is *previous*."""
    amount = entry.amount_micros
    parts = [
        previous,
        _PLACE.pack(*place[:4], entry.recorded_at_us, entry.effective_at_us),
        _AMOUNT.pack(amount is not None, amount or 0),
    ]
    parts += (_field(entry.type), _field(place.account), _field(entry.actor))  # few, and the same again and again
    request_id = entry.request_id.encode()
    parts += (_LENGTH.pack(len(request_id)), request_id)
    parts += (_LENGTH.pack(len(entry.facts)), entry.facts)
    if entry.payload is not None:
        parts += (_LENGTH.pack(len(entry.payload)), entry.payload)
    return hashlib.sha256(b"".join(parts)).digest()
