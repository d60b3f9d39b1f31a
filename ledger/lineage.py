"""Lineage: what a log was called before it was restored or imported, and up to where each of them is this one.

A restored log lacks what was appended after its backup, and goes on with other events at the same positions. A cursor
that was given out before the loss would be taken for one of this history, and its reader would miss events without a
sign. So whatever is brought back goes on under a new name, an epoch, and remembers those before it, each with the last
position that they share and the hash there. A cursor of an earlier name is good up to that position, for up to there
both are one log, and is no cursor of this log beyond it. Alternatives beaten: to keep the name and refuse cursors ahead
of the head, which is blind once the head has passed them; and to refuse every earlier cursor, which sends all readers
back to the beginning although most of them have missed nothing.
"""

from collections.abc import Mapping, Sequence

import msgspec
from msgspec.structs import replace

ANCESTORS_MAX = 100
"""Names that are remembered, the last ones; cursors of older ones are refused."""


class Ancestor(msgspec.Struct, frozen=True, kw_only=True):
    """A name that the log had, and the end of what is left of it."""

    log_id: str
    position: int
    hash: str
    """In hex."""


Lineage = tuple[Ancestor, ...]
"""The oldest first."""

_decoder = msgspec.json.Decoder(Lineage)


def encode(lineage: Lineage) -> bytes:
    return msgspec.json.encode(lineage)


def decode(stored: bytes) -> Lineage:
    """What `encode` made.

    Raises:
        ValueError: it is nothing of the kind.
    """
    return _decoder.decode(stored)


def descended(before: Sequence[Ancestor], *, log_id: str, position: int, end: str) -> Lineage:
    """The lineage of a log that goes on after *position*, with the hash *end*, of the log called *log_id*."""
    here = Ancestor(log_id=log_id, position=position, hash=end)
    kept = [one if one.position <= position else replace(here, log_id=one.log_id) for one in before]
    return (*kept, here)[-ANCESTORS_MAX:]


def earlier(lineage: Sequence[Ancestor]) -> Mapping[str, int]:
    """By earlier name, the last position that it shares with this log."""
    return {one.log_id: one.position for one in lineage}
