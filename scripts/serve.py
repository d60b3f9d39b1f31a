"""``task-ledger serve``: the service on one address, until SIGTERM or Ctrl-C; then it drains."""

import asyncio
import gc
import signal
import socket
import sys
from pathlib import Path
from typing import Annotated

import structlog
import typer
import uvloop
from aiohttp import web

from api import logs, settings
from api.app import make_runner, make_server
from api.bookkeeper import Bookkeeper
from api.switches import heeding
from ledger.catalogue import Catalogue
from ledger.ledger import Ledger
from ledger.sqlite import open_to_serve
from scripts.listening import BACKLOG, bound_url, listen
from scripts.stores import DEFAULT, StoreOption, books_path, path_of, pepper

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
    try:
        found = settings.read(config)
        catalogue = found.models()
    except (ValueError, OSError) as error:
        raise typer.BadParameter(str(error), param_hint="'--config'") from error
    path = path_of(store)
    lines = logs.configure(sys.stdout, log)
    try:
        uvloop.run(_serve(path, found, catalogue, listener=listen(host, port)))
    finally:
        lines.flush()


async def _serve(path: Path, found: settings.Settings, catalogue: Catalogue, *, listener: socket.socket) -> None:
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
    async with ledger, heeding(ledger), Bookkeeper(ledger.engine, books_path(path)) as books:
        server = make_server(
            ledger, catalogue=catalogue, books=books, statements=found.statements, limits=found.budgets()
        )
        runner = make_runner(server, drain_seconds=found.drain_seconds)
        await runner.setup()
        try:
            await web.SockSite(runner, listener, backlog=BACKLOG).start()
            gc.collect()
            gc.freeze()  # what is there now stays: it need not be looked through again and again
            gc.set_threshold(GC_THRESHOLD)
            print(f"listening on {bound_url(listener)}", file=sys.stderr, flush=True)
            await stop.wait()
        finally:
            await runner.cleanup()
    if not engine.is_wiped:
        structlog.get_logger().warning("store.not_wiped", store=str(path))


if __name__ == "__main__":
    from scripts.cli import run_alone

    run_alone(serve)
