"""Server-sent events as they are written (WHATWG HTML, "Server-sent events"). Pure.

A reader that is cut off comes back with the last ``id`` that it has seen, in ``Last-Event-ID``. An ``id`` without data
is no event to it, but is remembered.
"""

HEARTBEAT = b":\n\n"


def event(data: bytes, *, name: str = "", last_id: str = "") -> bytes:
    """One event; without a name it is a ``message``. The lines of *data* are put together again by the reader."""
    named = f"event: {name}\n".encode() if name else b""
    told = f"id: {last_id}\n".encode() if last_id else b""
    return b"%b%bdata: %b\n\n" % (told, named, data.replace(b"\n", b"\ndata: "))


def comment(text: str) -> bytes:
    """What every reader passes over."""
    return f": {text}\n\n".encode()


def heartbeat(last_id: str) -> bytes:
    """That the stream is still there, and how far it is."""
    return f":\nid: {last_id}\n\n".encode()
