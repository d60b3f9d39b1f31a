"""``scripts/up``: the service with demo accounts and a demo worker, and lines of curl to try every contract with.

All of it is one process, so nothing is left behind however it ends. The worker still asks over HTTP.

What is printed on stdout is shell (`scripts.demo.page`).
"""

import asyncio
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop

from api import logs
from api.app import clock, service
from api.settings import Settings
from ledger.keys import Role
from ledger.ledger import Ledger
from ledger.sqlite import open_to_serve
from scripts.demo.page import DEMOS, Access, account_of, page
from scripts.demo.worker import Habits, KeyRefused, RequestRefused, Worker, open_session
from scripts.listening import listen, local_url
from scripts.stores import DEFAULT, StoreOption, path_of, pepper, real_path
from scripts.work import PACE_MAX_SECONDS

DELAY_PACES = 5
"""How long a task stays queued, in steps of the worker: time enough to paste a cancel."""


def up_demo(
    *,
    store: StoreOption = DEFAULT,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any free one.")] = 8080,
    worker: Annotated[bool, typer.Option("--worker/--no-worker", help="Whether tasks are taken off the queue.")] = True,
    pace: Annotated[
        float,
        typer.Option(
            min=0.01, max=PACE_MAX_SECONDS, metavar="SECONDS", help="The worker's step; a task is taken after five."
        ),
    ] = 2.0,
) -> None:
    """Start the ledger with demo accounts and a demo worker; print keys and curl lines."""
    path = path_of(store)
    habits = Habits(name="demo-worker", pace_seconds=pace, delay_seconds=DELAY_PACES * pace, concurrency=16)
    with listen(host, port) as listener:
        _only_troubles()
        uvloop.run(_up(path, listener, habits if worker else None))


def _only_troubles() -> None:
    """Log warnings and worse to stderr: a line for each request would bury the lines of curl."""
    logs.configure(sys.stderr, logs.Format.CONSOLE, only_warnings=True)


async def _up(path: Path, listener: socket.socket, habits: Habits | None) -> None:
    """Run until SIGTERM or Ctrl-C."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with _served(path, listener) as ledger, open_session() as session:
        access = await _issue(ledger, local_url(listener))
        print("\n".join(page(access, path, habits)), flush=True)
        running: list[asyncio.Task[Any]] = [asyncio.create_task(stop.wait())]
        if habits is not None:
            running.append(asyncio.create_task(_work(Worker(session, access.url, access.worker, habits), stop)))
        done, left = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        for task in done:
            task.result()


async def _work(worker: Worker, stop: asyncio.Event) -> None:
    """The demo worker at work; without it, as when its key is revoked, the service goes on."""
    try:
        await worker.run()
    except (KeyRefused, RequestRefused) as refused:
        print(f"the demo worker has stopped: {refused}", file=sys.stderr)
    await stop.wait()


@asynccontextmanager
async def _served(path: Path, listener: socket.socket) -> AsyncIterator[Ledger]:
    """The ledger at *path*, served on *listener*."""
    settings = Settings()
    async with (
        Ledger(await open_to_serve(path), pepper=pepper()) as ledger,
        service(ledger, settings, settings.models(), store=real_path(path), listener=listener),
    ):
        yield ledger


async def _issue(ledger: Ledger, url: str) -> Access:
    """New keys: what a store keeps of the old ones cannot be shown again."""

    async def issue(account: str, contract: str, role: Role) -> str:
        new = await ledger.keys.issue(account=account, contract=contract, role=role, by="scripts/up", at_us=clock())
        return new.key

    return Access(
        url=url,
        operator=await issue("demo", "ledger", Role.OPERATOR),
        worker=await issue("demo", "ledger", Role.WORKER),
        clients={demo.contract: await issue(account_of(demo), demo.contract, Role.CLIENT) for demo in DEMOS},
    )


if __name__ == "__main__":
    from scripts.cli import run_alone

    run_alone(up_demo, program="scripts/up")
