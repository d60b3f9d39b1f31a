"""A log for every test that asks for one, on every engine there is."""

import signal
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
