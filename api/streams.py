"""A stream on the wire: frames as they come, to a reader who takes them, and as fast as he takes them.

Nothing is queued for anyone. The next frame is asked for when the one before has left for the transport, which holds
64 KiB at most beyond it. A reader who makes no room for so long that he is taken for dead is cut off: the last frame
tells him why, should he read on within a moment, and the log tells us.
"""

import asyncio
import time
from contextlib import aclosing

from aiohttp import HttpVersion10, web
from aiohttp.abc import AbstractStreamWriter

from api.answers import stream_head
from api.contracts.shape import Streamed
from api.deps import Deps
from api.stays import Why
from ledger.errors import Fault, TaskNotFound

LINGER_SECONDS = 1.0
"""How long a reader who is cut off has to take in what has been sent."""
COMPLETE = "complete"


class Streaming(web.StreamResponse):
    """The response that sends *streamed* to one reader, frame by frame; *also*: header lines to add."""

    def __init__(  # noqa: PLR0913 - as `Sent`, and the parts that look after it
        self, deps: Deps, request: web.BaseRequest, streamed: Streamed, *, also: bytes, request_id: str, at_us: int
    ) -> None:
        super().__init__(status=streamed.status)
        self._streamed, self._request_id, self._log = streamed, request_id, deps.log
        self._slow_seconds = deps.stays.limits.slow_seconds
        self._is_old = request.version == HttpVersion10
        self._head = stream_head(
            streamed.status,
            "text/event-stream",
            is_old=self._is_old,
            also=also + b"X-Accel-Buffering: no\r\n",  # a proxy that gathers would hold events back
            at_us=at_us,
            request_id=request_id,
        )
        self._sent_bytes = 0

    @property
    def keep_alive(self) -> bool:
        """A connection carries one stream."""
        return False

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        """Send all of it, which takes as long as it takes."""
        started_ns, why = time.perf_counter_ns(), COMPLETE
        stay, writer = self._streamed.stay, request.writer
        try:
            why = await self._send_all(writer)
            if why != Why.LEFT:
                await self._end(request, why)
        except ConnectionError:
            why = Why.LEFT
        finally:
            stay.leave()
            took_ms = (time.perf_counter_ns() - started_ns) // 1_000_000
            self._log.info(
                "stream.ended", request_id=self._request_id, why=str(why), bytes=self._sent_bytes, took_ms=took_ms
            )
        return writer

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to be sent."""

    async def _send_all(self, writer: AbstractStreamWriter) -> str:
        """Send the frames; why there are no more."""
        stay = self._streamed.stay
        try:
            async with aclosing(self._streamed.frames) as frames:
                await writer.write(self._head)
                if not self._is_old:
                    writer.enable_chunking()
                async for frame in frames:
                    if not await stay.wait(self._send(writer, frame), seconds=self._slow_seconds):
                        return stay.why or Why.SLOW
        except TaskNotFound:
            return Why.GONE
        except Fault as fault:
            self._log.warning("store.failed", request_id=self._request_id, fault=str(fault))
            return Why.STORE
        except ConnectionError:
            raise
        except Exception:  # noqa: BLE001 - logged, and the reader is told
            self._log.exception("http.broke", request_id=self._request_id)
            return Why.BROKEN
        return stay.why or COMPLETE

    async def _send(self, writer: AbstractStreamWriter, frame: bytes) -> None:
        self._sent_bytes += len(frame)
        await writer.write(frame)
        await writer.drain()

    async def _end(self, request: web.BaseRequest, why: str) -> None:
        """Say the end, and why if it comes too soon; who does not take that in either loses the connection."""
        transport = request.transport
        farewell = b"" if why == COMPLETE else self._streamed.farewell(why)
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                await request.writer.write_eof(farewell)
                await request.writer.drain()
        except TimeoutError:
            if transport is not None:
                transport.abort()
