"""The composition root: an aiohttp application over one ledger."""

import os
import time
from collections.abc import Callable

from aiohttp import web

from api.deps import DEPS, Deps
from api.native import CREATE_MAX_BYTES
from api.service import handle
from ledger.catalogue import Catalogue
from ledger.errors import StorageError
from ledger.ledger import Ledger


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
    app[DEPS] = Deps(ledger=ledger, catalogue=catalogue, clock=clock, entropy=entropy)
    app.router.add_get("/healthz", _alive, allow_head=True)
    app.router.add_get("/readyz", _ready, allow_head=True)
    app.router.add_route("*", "/{path:.*}", handle)
    app.on_startup.append(_start)
    app.on_cleanup.append(_close)
    return app


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
