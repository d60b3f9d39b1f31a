"""The composition root: one ledger behind one handler, on aiohttp's low-level server.

`web.Application` with its router takes about a fifth of a bare GET's time in the interpreter (in process, no sockets:
21 us against 17). The contracts bring their own tables (`api.routing`), so all that it would do here is done already.
"""

import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from aiohttp import web

from api import logs
from api.authentication import Authenticator
from api.bookkeeper import Bookkeeper
from api.callbacks import CallbackSender
from api.connections import Allowance, Connections, Server
from api.contracts import CONTRACTS
from api.deps import Deps
from api.feed import Feed
from api.followers import Followers
from api.limits import Limits, Tier
from api.repeats import Repeats
from api.request_ids import RequestIds
from api.service import handle
from api.settings import Settings
from api.stays import StayLimits, Stays
from api.sweep import Sweeper
from api.switches import heeding
from api.traces import Traces, exported
from ledger.catalogue import Catalogue
from ledger.entropy import Entropy
from ledger.ledger import Ledger
from projections.books.books import books_of
from projections.callbacks.queue import queue_of
from projections.deadlines.deadlines import deadlines_of
from projections.reconciliation.statement_format import StatementFormat

LINE_MAX_BYTES = 64 * 1024
"""Of a request line or a header. aiohttp refuses longer ones by itself, and not in the words of any contract, so this
is far more than any id or key has."""

BACKLOG = 1024
"""Connections that may wait to be taken."""

NO_FORMATS: Mapping[str, StatementFormat] = {}
"""Every provider writes its statements in our own way."""


def clock() -> int:
    """Unix microseconds."""
    return time.time_ns() // 1000


def make_server(  # noqa: PLR0913 - the live parts, and what a test puts in the place of time and chance
    ledger: Ledger,
    *,
    catalogue: Catalogue,
    books: Bookkeeper,
    callbacks: CallbackSender,
    followers: Followers | None = None,
    sweeper: Sweeper | None = None,
    statements: Mapping[str, StatementFormat] = NO_FORMATS,
    limits: Limits | None = None,
    waiting: StayLimits | None = None,
    allowance: Allowance | None = None,
    traces: Traces | None = None,
    clock: Callable[[], int] = clock,
    entropy: Callable[[int], bytes] | None = None,
) -> Server:
    """The service over *ledger*, with what follows it, which its owner starts before and ends after it.

    Without *limits* every account has the budget of `Tier`'s defaults, and so it is with *allowance* and connections;
    without *followers* nothing follows the log, and without a *sweeper* nobody can tell which tasks are stalled.
    """
    entropy, connections = entropy or Entropy(), Connections(allowance or Allowance())
    stays = Stays(ledger.engine, clock=clock, limits=waiting or StayLimits())
    deps = Deps(
        ledger=ledger,
        catalogue=catalogue,
        clock=clock,
        entropy=entropy,
        request_ids=RequestIds(entropy),
        authenticator=Authenticator(ledger.keys, CONTRACTS.values()),
        limits=limits or Limits(Tier(), {}),
        repeats=Repeats(ledger.keys, ledger.views),
        books=books,
        callbacks=callbacks,
        followers=followers or Followers(ledger.engine, []),
        sweeper=sweeper,
        feed=Feed(ledger.engine),
        stays=stays,
        statements=statements,
        requests=Counter(),
        traces=traces,
        connections=connections,
        lines=logs.in_force(),
        log=structlog.get_logger().bind(),
    )
    return _Server(
        partial(handle, deps),
        connections=connections,
        stays=stays,
        access_log=None,
        max_line_size=LINE_MAX_BYTES,
        max_field_size=LINE_MAX_BYTES,
        auto_decompress=False,  # compressed bodies are refused, in the contract's words
    )


class _Server(Server):
    """The server, which lets go of those who stay before it waits for the requests that it has taken."""

    def __init__(self, *args: Any, stays: Stays, **options: Any) -> None:  # noqa: ANN401 - aiohttp's
        super().__init__(*args, **options)
        self._stays = stays

    def pre_shutdown(self) -> None:
        self._stays.close()
        super().pre_shutdown()


def make_runner(server: web.Server, *, drain_seconds: float) -> web.ServerRunner:
    """What serves *server*; when it is cleaned up, it waits *drain_seconds* for the requests that it has taken."""
    return web.ServerRunner(server, handle_signals=False, shutdown_timeout=drain_seconds)


@asynccontextmanager
async def service(
    ledger: Ledger, settings: Settings, catalogue: Catalogue, *, store: Path, listener: socket.socket
) -> AsyncIterator[None]:
    """The service over *ledger* on *listener*, and all that follows the log; left, it drains and they end.

    What followers keep lies in files beside *store*, the ledger's own path.
    """
    engine, calls = ledger.engine, settings.callbacks.calls()
    sender = CallbackSender(ledger, queue_of(store), contracts=CONTRACTS, clock=clock, calls=calls)
    with exported() if settings.traces else nullcontext() as traces:
        async with (
            Bookkeeper(engine, books_of(store)) as books,
            Sweeper(ledger, deadlines_of(store), clock=clock, patience=settings.silence) as sweeper,
            sender as callbacks,
            Followers(engine, [books.duty, sweeper.duty, callbacks.duty, heeding(ledger)]) as followers,
        ):
            server = make_server(
                ledger,
                traces=traces,
                catalogue=catalogue,
                books=books,
                callbacks=callbacks,
                followers=followers,
                sweeper=sweeper,
                statements=settings.statements,
                limits=settings.budgets(),
                waiting=settings.waiting,
                allowance=settings.connections,
                clock=clock,
            )
            async with _listening(server, listener, drain_seconds=settings.drain_seconds):
                yield


@asynccontextmanager
async def _listening(server: Server, listener: socket.socket, *, drain_seconds: float) -> AsyncIterator[None]:
    """While it is entered, *server* takes requests on *listener*; left, it waits for those that it has taken."""
    runner = make_runner(server, drain_seconds=drain_seconds)
    await runner.setup()
    try:
        await web.SockSite(runner, listener, backlog=BACKLOG).start()
        yield
    finally:
        await runner.cleanup()
