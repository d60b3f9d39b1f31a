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

_NUMBERS = struct.Struct(">HQ16sIqq?q")
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
    return link_of(
        previous,
        place.position,
        place.lane,
        place.stream,
        place.version,
        entry.type,
        entry.recorded_at_us,
        entry.effective_at_us,
        place.account,
        entry.amount_micros,
        entry.actor,
        entry.request_id,
        entry.facts,
        entry.payload,
    )


def link_of(  # noqa: PLR0913, PLR0917 - the columns of a row, in their order
    previous: bytes,
    position: int,
    lane: int,
    stream: bytes,
    version: int,
    kind: str,
    recorded_at_us: int,
    effective_at_us: int,
    account: str,
    amount_micros: int | None,
    actor: str,
    request_id: str,
    facts: bytes,
    payload: bytes | None,
) -> bytes:
    """As `link`, of the columns by themselves: whoever reads a whole log would make two structs of each row."""
    asked, has_amount = request_id.encode(), amount_micros is not None
    parts = [
        previous,
        _NUMBERS.pack(lane, position, stream, version, recorded_at_us, effective_at_us, has_amount, amount_micros or 0),
        _field(kind),  # few, and the same again and again; so are the next two
        _field(account),
        _field(actor),
        _LENGTH.pack(len(asked)),
        asked,
        _LENGTH.pack(len(facts)),
        facts,
    ]
    if payload is not None:
        parts += (_LENGTH.pack(len(payload)), payload)
    return hashlib.sha256(b"".join(parts)).digest()
