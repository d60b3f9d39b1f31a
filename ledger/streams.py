"""Streams that are no task's: named by a digest of what they are about, and known from a task's by that. Pure."""

import hashlib

import msgspec

STREAM_BYTES = 16
_VERSION = 8
"""Of UUIDs that are made of a hash (RFC 9562)."""


def named_stream(what: bytes, *parts: str) -> bytes:
    """The name of the stream about *parts*; *what* kind of thing that is keeps it from other kinds' streams."""
    return stream_of(hashlib.sha256(b"task-ledger " + what + b"\x00" + msgspec.json.encode(parts)).digest())


def stream_of(digest: bytes) -> bytes:
    """The first 16 bytes of *digest* as a stream's name, marked as an id made of a hash."""
    name = bytearray(digest[:STREAM_BYTES])
    name[6] = _VERSION << 4 | (name[6] & 0x0F)
    name[8] = 0x80 | (name[8] & 0x3F)
    return bytes(name)


def is_task_stream(stream: object) -> bool:
    """Whether a stream is a task's, and not an account's, a break's or a statement's.

    By the version nibble of its name, whatever else of the row is damaged.
    """
    return not (isinstance(stream, bytes) and len(stream) == STREAM_BYTES and stream[6] >> 4 == _VERSION)
