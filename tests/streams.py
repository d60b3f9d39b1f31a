"""A client that reads server-sent events off the wire, piece by piece, as the standard says that they are read."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from tests.wire import request

READ_BYTES = 2**16
"""What is read beyond what is asked for: little, so that a reader who stops is felt."""


class Event(NamedTuple):
    """One that was dispatched; *last_id* is the last id that the stream has told by then."""

    name: str
    data: str
    last_id: str

    def json(self) -> Any:  # noqa: ANN401 - whatever JSON holds
        return json.loads(self.data)


class Ended(Exception):
    """The stream is over; *clean* when its framing says so."""

    def __init__(self, *, clean: bool) -> None:
        super().__init__(f"the stream is over, clean: {clean}")
        self.clean = clean


class Stream:
    """The answer to one request."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.status = 0
        self.headers: dict[str, str] = {}
        self.comments: list[str] = []
        self.last_id = ""
        self._text = b""

    async def read_head(self) -> None:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        self.status = int(head[0].split(" ")[1])
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}

    async def body(self) -> bytes:
        """The whole body of an answer that is no stream."""
        return await self._reader.readexactly(int(self.headers["content-length"]))

    async def next(self, *, seconds: float = 20) -> Event:
        """The next event.

        Raises:
            Ended: there is none.
        """
        async with asyncio.timeout(seconds):
            while True:
                block = await self._block()
                event = self._read(block)
                if event is not None:
                    return event

    async def heartbeat(self) -> None:
        """Returns once a comment has been read; no event may come before."""
        before = len(self.comments)
        async with asyncio.timeout(20):
            while len(self.comments) == before:
                assert self._read(await self._block()) is None

    async def rest(self) -> list[Event]:
        """All that comes until the end, which must be a clean one."""
        found = []
        try:
            while True:
                found.append(await self.next())
        except Ended as ended:
            if not ended.clean:
                raise
        return found

    def _read(self, block: bytes) -> Event | None:
        name, data = "message", list[str]()
        for line in block.decode().split("\n"):
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            match field:
                case "":
                    self.comments.append(value)
                case "event":
                    name = value
                case "data":
                    data.append(value)
                case "id":
                    self.last_id = value
                case _:
                    raise AssertionError(f"no such field: {line!r}")
        return Event(name, "\n".join(data), self.last_id) if data else None

    async def _block(self) -> bytes:
        while b"\n\n" not in self._text:
            self._text += await self._chunk()
        block, _, self._text = self._text.partition(b"\n\n")
        return block

    async def _chunk(self) -> bytes:
        if self.headers.get("transfer-encoding") != "chunked":
            chunk = await self._reader.read(65536)
            if not chunk:
                raise Ended(clean=not self._text)
            return chunk
        try:
            size = int(await self._reader.readuntil(b"\r\n"), 16)
            chunk = await self._reader.readexactly(size + 2)
        except (asyncio.IncompleteReadError, OSError):
            raise Ended(clean=False) from None
        assert chunk.endswith(b"\r\n")
        if not size:
            raise Ended(clean=not self._text)
        return chunk[:-2]

    async def close(self) -> None:
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            return


@asynccontextmanager
async def stream(port: int, target: str, *, key: str, headers: Mapping[str, str] = {}) -> AsyncIterator[Stream]:
    """The answer to a GET, its head read; in *headers* underscores are hyphens."""
    told = [("Authorization", f"Bearer {key}"), *((name.replace("_", "-"), text) for name, text in headers.items())]
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=READ_BYTES)
    found = Stream(reader, writer)
    try:
        writer.write(request("GET", target, headers=told))
        await found.read_head()
        yield found
    finally:
        await found.close()
