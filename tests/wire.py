"""A client that sends whatever bytes it is told to: libraries would correct them, or refuse to send them."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Self

import msgspec

ANSWER_MAX_BYTES = 64 * 2**20


class Reply(NamedTuple):
    """An answer; the names of its headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    version: str = "HTTP/1.1"

    def json(self) -> Any:  # noqa: ANN401 - whatever JSON holds
        return msgspec.json.decode(self.body)


class Cut(Exception):
    """The connection ended before the answer did."""


def request(
    method: str, target: str | bytes, *, headers: Iterable[tuple[str, str | bytes]] = (), body: bytes = b""
) -> bytes:
    """A request as it is sent. A body brings its ``Content-Length``, unless the headers tell how it is sent."""
    told = [*headers]
    names = {name.lower() for name, _ in told}
    if "host" not in names:
        told.append(("Host", "ledger.test"))
    if body and not names & {"content-length", "transfer-encoding"}:
        told.append(("Content-Length", str(len(body))))
    lines = [method.encode() + b" " + _bytes(target) + b" HTTP/1.1"]
    lines += [name.encode() + b": " + _bytes(value) for name, value in told]
    return b"\r\n".join([*lines, b"", body])


def chunked(body: bytes, *, size: int = 8192) -> bytes:
    """*body* as ``Transfer-Encoding: chunked`` sends it: nobody says beforehand how long it is."""
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


class Wire:
    """One connection, opened when it is first needed, and again when the service has closed it."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def send(self, sent: bytes, *, method: str = "GET") -> Reply:
        """Send these bytes, and read one answer to a request with this *method*.

        Raises:
            Cut: the connection could not be had, or ended before the answer did.
        """
        try:
            reader, writer = self._streams or await self._open()
            writer.write(sent)
            reply = await _reply(reader, method)
        except (OSError, asyncio.IncompleteReadError) as error:
            await self.close()
            raise Cut(repr(error)) from error
        if not _stays_open(reply):
            await self.close()
        return reply

    async def close(self) -> None:
        streams, self._streams = self._streams, None
        if streams is not None:
            streams[1].close()
            try:
                await streams[1].wait_closed()
            except OSError:
                return

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self._streams = await asyncio.open_connection(self._host, self._port, limit=ANSWER_MAX_BYTES)
        return self._streams


async def _reply(reader: asyncio.StreamReader, method: str) -> Reply:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    version, code = head[0].split(" ")[:2]
    status = int(code)
    pairs = (line.partition(":") for line in head[1:] if line)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    if status == 100:
        return await _reply(reader, method)
    if method == "HEAD" or status in {204, 304}:
        return Reply(status, headers, b"", version)
    if "transfer-encoding" in headers:  # a stream, which goes on: `tests.streams` reads those
        return Reply(status, headers, b"", version)
    return Reply(status, headers, await reader.readexactly(int(headers["content-length"])), version)


def _stays_open(reply: Reply) -> bool:
    default = "keep-alive" if reply.version == "HTTP/1.1" else "close"
    return reply.headers.get("connection", default).lower() == "keep-alive"
