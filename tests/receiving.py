"""A receiver of callbacks on the loopback interface, which answers as the test says and keeps all that it was told."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from aiohttp import web

from api.callback_lines import Bounds
from api.callbacks import Calls
from api.egress import Egress

LOOPBACK = Egress(http=True, ports=(), networks=("127.0.0.0/8",))
TO_LOOPBACK = Calls(LOOPBACK, Bounds(in_all_max=512, account_max=64, receiver_max=16))

GONE, BROKEN, FINE = 410, 500, 204
RESETS = -1
"""In the place of a status: the connection is reset."""
HANGS = -2
"""The same: there is no answer."""


class Told(NamedTuple):
    """One request."""

    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"] if "webhook-id" in self.headers else self.headers["svix-id"]

    def json(self) -> Any:  # noqa: ANN401 - whatever JSON holds
        return json.loads(self.body)


class Receiver:
    """What it answers is asked of *answer* each time: a status, or `RESETS` or `HANGS`."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        self.answer: Callable[[Told], int] = lambda _: FINE
        self.port = 0
        self.path = f"/hook-{secrets.token_hex(4)}"
        self.is_anybodys = False
        """Whether what is not sent to `url` counts as well."""
        self.headers: Mapping[str, str] = {}
        self.hung = asyncio.Event()
        self.late = 200
        """What one that hangs says in the end."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.path}?x=1"

    @property
    def ids(self) -> list[str]:
        return [told.id for told in self.told]

    async def until(self, count: int) -> list[Told]:
        """Wait until so many requests have come; all of them."""
        async with asyncio.timeout(30):
            while len(self.told) < count:  # noqa: ASYNC110 - a list tells nobody that it has grown
                await asyncio.sleep(0.005)
        return self.told

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path != self.path and not self.is_anybodys:  # somebody else's, who had this port before us
            return web.Response(status=404)
        told = Told(dict(request.headers), await request.read())
        self.told.append(told)
        status = self.answer(told)
        if status == RESETS:
            assert request.transport is not None
            request.transport.abort()
        if status == HANGS:
            await self.hung.wait()
            status = self.late
        return web.Response(status=max(status, 200), headers=self.headers, body=b"" if status == FINE else b"secret")


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    runner = web.ServerRunner(web.Server(receiver._handle, access_log=None), shutdown_timeout=0.01)
    await runner.setup()
    site = web.TCPSite(runner, "0.0.0.0", 0)  # noqa: S104 - all addresses of loopback: each is a receiver of its own
    await site.start()
    receiver.port = runner.addresses[0][1]
    try:
        yield receiver
    finally:
        receiver.hung.set()
        await runner.cleanup()
