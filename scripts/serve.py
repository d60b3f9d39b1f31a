"""``task-ledger serve``: the service on one address, until SIGTERM or Ctrl-C; then it drains."""

import asyncio
import gc
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import structlog
import typer
import uvloop

from api import logs
from api.app import service
from api.settings import Settings
from api.traces import NotInstalledError
from ledger.catalogue import Catalogue
from ledger.errors import ReadOnlyError
from ledger.ledger import Ledger
from ledger.sqlite import open_to_serve
from ledger.sqlite_engine import SqliteEngine
from scripts.configured import catalogue_of, settings_in
from scripts.listening import allow_files, bound_url, listen
from scripts.stores import DEFAULT, StoreOption, path_of, pepper, real_path

GC_THRESHOLD = 10_000
"""Objects between two looks of the garbage collector; requests leave few cycles behind."""


def serve(
    *,
    store: StoreOption = DEFAULT,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any free one.")] = 8080,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Settings in TOML.")] = None,
    log: Annotated[logs.Format, typer.Option(help="How the log on stdout looks.")] = logs.Format.JSON,
) -> None:
    """Serve the ledger: the four vendor contracts, and the native API."""
    found = settings_in(config)
    catalogue = catalogue_of(found)
    path = path_of(store)
    lines = logs.configure(sys.stdout, log)
    allow_files()
    try:
        uvloop.run(_serve(path, found, catalogue, listener=listen(host, port)))
    except NotInstalledError as error:
        raise typer.BadParameter(str(error), param_hint="'--config'") from error
    finally:
        lines.flush()


async def _serve(path: Path, found: Settings, catalogue: Catalogue, *, listener: socket.socket) -> None:
    engine = await open_to_serve(path)
    ledger = Ledger(
        engine,
        pepper=pepper(),
        queue_max=found.queue_max,
        batch_max=found.batch_max,
        views_max_bytes=found.views_max_bytes,
    )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with ledger, service(ledger, found, catalogue, store=real_path(path), listener=listener):
        gc.collect()
        gc.freeze()  # what is there now stays: it need not be looked through again and again
        gc.set_threshold(GC_THRESHOLD)
        print(f"listening on {bound_url(listener)}", file=sys.stderr, flush=True)
        async with _looking_through(engine, path):
            await stop.wait()
    if not engine.is_wiped:
        structlog.get_logger().warning("store.not_wiped", store=str(path))


@asynccontextmanager
async def _looking_through(engine: SqliteEngine, path: Path) -> AsyncIterator[None]:
    """While it is entered, every page of the store is looked at once; damage is logged, with what to do next."""

    async def look() -> None:
        damage = await engine.look_through()
        if damage is not None:
            structlog.get_logger().error("store.damaged", store=str(path), fault=str(ReadOnlyError(damage)))

    looking = asyncio.create_task(look())
    try:
        yield
    finally:
        looking.cancel()
        await asyncio.wait([looking])


if __name__ == "__main__":
    from scripts.cli import run_alone

    run_alone(serve)
