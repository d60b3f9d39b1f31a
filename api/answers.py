"""An answer on the wire: a head made once for all answers that share it, sent with the body in one write.

aiohttp's own response collects, completes and serialises its headers for every request anew. Nothing here streams, is
compressed or sets cookies, and between two answers of a kind only the date and the request id differ, so the rest is
kept as bytes. What this rests on of aiohttp is public: `prepare`, `write_eof` and `keep_alive` of a response, which
the server calls, and `writer` of a request.
"""

from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

from aiohttp import HttpVersion10, web
from aiohttp.abc import AbstractStreamWriter

from api.contracts.shape import Answer
from ledger.times import US_PER_SECOND

HEADS_MAX = 256
"""Kinds of head that are kept: statuses times types of content."""
_BODILESS = frozenset({204, 304})
COMMON: Mapping[str, str] = {
    "Cache-Control": "no-store",  # a state of money is never to be had from somewhere in between
    "Server": "task-ledger",
}


class Sent(web.StreamResponse):
    """The response that sends *answer*, head and body in one write; *also*: header lines to add."""

    def __init__(self, request: web.BaseRequest, answer: Answer, *, also: bytes, request_id: str, at_us: int) -> None:
        super().__init__(status=answer.status)
        self._keeps_alive = request.keep_alive
        is_old = request.version == HttpVersion10
        has_body = request.method != "HEAD" and answer.status not in _BODILESS
        self._bytes = b"".join(
            (
                b"HTTP/1.0 " if is_old else b"HTTP/1.1 ",
                _head(answer.status, answer.content_type),
                b"" if answer.status in _BODILESS else b"Content-Length: %d\r\n" % len(answer.body),
                _lines(answer.headers) if answer.headers else b"",
                also,
                _CONNECTION[is_old, self._keeps_alive],
                _date(at_us // US_PER_SECOND),
                b"X-Request-Id: %b\r\n\r\n" % request_id.encode("ascii"),
                answer.body if has_body else b"",
            )
        )

    @property
    def keep_alive(self) -> bool:
        """Whether the connection stays open."""
        return self._keeps_alive

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        """Send it, all at once."""
        await request.writer.write(self._bytes)
        return request.writer

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to be sent."""


def stream_head(  # noqa: PLR0913 - all that a head is made of
    status: int, content_type: str, *, is_old: bool, also: bytes, at_us: int, request_id: str
) -> bytes:
    """The head of an answer whose body comes piece by piece, and with which its connection ends."""
    return b"".join(
        (
            b"HTTP/1.0 " if is_old else b"HTTP/1.1 ",
            _head(status, content_type),
            b"" if is_old else b"Transfer-Encoding: chunked\r\n",
            b"Connection: close\r\n",
            also,
            _date(at_us // US_PER_SECOND),
            b"X-Request-Id: %b\r\n\r\n" % request_id.encode("ascii"),
        )
    )


_CONNECTION = {
    (False, True): b"",
    (False, False): b"Connection: close\r\n",
    (True, True): b"Connection: keep-alive\r\n",  # before HTTP/1.1 both sides must say so
    (True, False): b"",
}


@lru_cache(maxsize=HEADS_MAX)
def _head(status: int, content_type: str) -> bytes:
    """What answers of a kind have in common, after the version."""
    common = _lines({"Content-Type": content_type, **COMMON})
    return f"{status} {HTTPStatus(status).phrase}\r\n".encode("ascii") + common


def _lines(headers: Mapping[str, str]) -> bytes:
    """*headers* as they are sent.

    Raises:
        ValueError: one would end the line that it stands in.
    """
    text = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if text.count("\n") != len(headers) or text.count("\r") != len(headers) or "\0" in text:
        raise ValueError(f"a header ends its line: {text!r}")
    return text.encode("utf-8", "surrogateescape")


@lru_cache(maxsize=2)
def _date(at_seconds: int) -> bytes:
    return f"Date: {formatdate(at_seconds, usegmt=True)}\r\n".encode("ascii")
