"""Streams that are no task's: named by a digest of what they are about. Pure."""

import hashlib

import msgspec

STREAM_BYTES = 16


def named_stream(what: bytes, *parts: str) -> bytes:
    """The name of the stream about *parts*; *what* kind of thing that is keeps it from other kinds' streams."""
    return stream_of(hashlib.sha256(b"task-ledger " + what + b"\x00" + msgspec.json.encode(parts)).digest())


def stream_of(digest: bytes) -> bytes:
    """The first 16 bytes of *digest* as a stream's name, marked as an id made of a hash: UUID version 8 (RFC 9562)."""
    name = bytearray(digest[:STREAM_BYTES])
    name[6] = 0x80 | (name[6] & 0x0F)
    name[8] = 0x80 | (name[8] & 0x3F)
    return bytes(name)
