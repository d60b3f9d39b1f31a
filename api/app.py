"""The composition root: an aiohttp application over one ledger."""

import os
import time
from collections.abc import Callable

import structlog
from aiohttp import HttpVersion11, web

from api.deps import DEPS, Deps
from api.native import CREATE_MAX_BYTES
from api.service import handle
from ledger.catalogue import Catalogue
from ledger.errors import StorageError
from ledger.ledger import Ledger


LINE_MAX_BYTES = 64 * 1024
"""Of a request line or a header. aiohttp refuses longer ones by itself, and not in the words of any contract, so this
is far more than any id or key has."""


def clock() -> int:
    """Unix microseconds."""
    return time.time_ns() // 1000


def make_app(
    ledger: Ledger,
    *,
    catalogue: Catalogue,
    clock: Callable[[], int] = clock,
    entropy: Callable[[int], bytes] = os.urandom,
) -> web.Application:
    """The service over *ledger*, which it starts with the application and closes after it."""
    app = web.Application(client_max_size=CREATE_MAX_BYTES)
    app[DEPS] = Deps(
        ledger=ledger, catalogue=catalogue, clock=clock, entropy=entropy, log=structlog.get_logger().bind()
    )
    app.router.add_get("/healthz", _alive, allow_head=True)
    app.router.add_get("/readyz", _ready, allow_head=True)
    app.router.add_route("*", r"/{path:[\s\S]*}", handle, expect_handler=_expect)  # `.` would leave out %0A
    app.on_startup.append(_start)
    app.on_cleanup.append(_close)
    return app


def make_runner(app: web.Application, *, drain_seconds: float) -> web.AppRunner:
    """What serves *app*; when it is cleaned up, it waits *drain_seconds* for the requests that it has taken."""
    return web.AppRunner(
        app,
        access_log=None,
        handle_signals=False,
        shutdown_timeout=drain_seconds,
        max_line_size=LINE_MAX_BYTES,
        max_field_size=LINE_MAX_BYTES,
        auto_decompress=False,  # compressed bodies are refused, in the contract's words
    )


async def _expect(request: web.Request) -> None:
    """Ask for the body if the client waits to be asked; pass over what else it expects (RFC 9110, 10.1.1)."""
    if request.version >= HttpVersion11 and request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # as aiohttp's own handler does: the answer has not begun


async def _start(app: web.Application) -> None:
    await app[DEPS].ledger.start()


async def _close(app: web.Application) -> None:
    await app[DEPS].ledger.close()


async def _alive(_: web.Request) -> web.Response:
    """The process answers."""
    return web.json_response({"status": "alive"})


async def _ready(request: web.Request) -> web.Response:
    """The store answers too."""
    try:
        await request.app[DEPS].ledger.engine.head()
    except StorageError:
        return web.json_response({"status": "store unavailable"}, status=503)
    return web.json_response({"status": "ready"})
