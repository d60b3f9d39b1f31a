"""Streams that are no task's: named by a digest of what they are about. Pure."""

import hashlib

import msgspec

STREAM_BYTES = 16


def named_stream(what: bytes, *parts: str) -> bytes:
    """The name of a stream: its version nibble is 8, so it is no task's, and *what* it is keeps it from others'."""
    name = bytearray(hashlib.sha256(b"task-ledger " + what + b"\x00" + msgspec.json.encode(parts)).digest())
    name[6] = 0x80 | (name[6] & 0x0F)
    name[8] = 0x80 | (name[8] & 0x3F)
    return bytes(name[:STREAM_BYTES])
