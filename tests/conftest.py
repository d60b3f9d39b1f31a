"""A log for every test that asks for one, on every engine there is."""

import os
import signal
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pytest_aiohttp import AiohttpClient

from ledger.engine import Engine
from ledger.ledger import Ledger
from tests.builders import ENGINES, Store, Watched
from tests.http import Service, serve


def pytest_configure() -> None:
    """Heed SIGINT: a shell that runs the tests in the background ignores it, and what they start would do as much."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


EXIT_SECONDS = 5.0
"""How long the interpreter may take to end once all tests are over."""
_EXIT = pytest.StashKey[int]()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[_EXIT] = int(exitstatus)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Whatever a failed test left behind is named, and does not keep the run from its end."""
    timer = threading.Timer(EXIT_SECONDS, _end, [config.stash.get(_EXIT, 1)])
    timer.daemon = True
    timer.start()


def _end(status: int) -> None:
    left = [one.name for one in threading.enumerate() if not one.daemon and one is not threading.main_thread()]
    if not left:  # the interpreter is only slow to end
        return
    sys.stderr.write(f"left behind by a test: {', '.join(left)}\n")
    sys.stderr.flush()
    os._exit(status or 1)


@pytest.fixture(params=ENGINES)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    place = Store(ENGINES[request.param], tmp_path)
    yield place
    await place.close()


@pytest.fixture
async def engine(store: Store) -> Engine:
    return await store.open()


@pytest.fixture
def watched(engine: Engine) -> Watched:
    return Watched(engine)


@pytest.fixture
async def ledger(watched: Watched) -> AsyncIterator[Ledger]:
    running = await Ledger(watched).start()
    yield running
    watched.commit_gate.open()
    await running.writer.close()


@pytest.fixture
async def service(request: pytest.FixtureRequest, tmp_path: Path, aiohttp_client: AiohttpClient) -> Service:
    """The whole service, in memory unless a test asks for another engine."""
    return await serve(getattr(request, "param", "memory"), tmp_path, aiohttp_client)
