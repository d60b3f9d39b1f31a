"""``task-ledger serve``: the service on one address, until SIGTERM or Ctrl-C; then it drains."""

import asyncio
import gc
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import Annotated

import structlog
import typer
import uvloop

from api import logs, settings
from api.app import service
from api.traces import NotInstalledError
from ledger.catalogue import Catalogue
from ledger.ledger import Ledger
from ledger.sqlite import open_to_serve
from scripts.listening import bound_url, listen
from scripts.stores import DEFAULT, StoreOption, path_of, pepper, real_path

FILES_BESIDE_CONNECTIONS = 100
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
    _allow_files(found.connections.max + FILES_BESIDE_CONNECTIONS)
    lines = logs.configure(sys.stdout, log)
    try:
        uvloop.run(_serve(path, found, catalogue, listener=listen(host, port)))
    except NotInstalledError as error:
        raise typer.BadParameter(str(error), param_hint="'--config'") from error
    finally:
        lines.flush()


def _allow_files(wanted: int) -> None:
    """Raise what this process may open to *wanted*, as far as the system lets it: a connection is a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


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
    async with ledger, service(ledger, found, catalogue, store=real_path(path), listener=listener):
        gc.collect()
        gc.freeze()  # what is there now stays: it need not be looked through again and again
        gc.set_threshold(GC_THRESHOLD)
        print(f"listening on {bound_url(listener)}", file=sys.stderr, flush=True)
        await stop.wait()
    if not engine.is_wiped:
        structlog.get_logger().warning("store.not_wiped", store=str(path))


if __name__ == "__main__":
    from scripts.cli import run_alone

    run_alone(serve)
