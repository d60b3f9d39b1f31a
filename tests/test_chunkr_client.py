"""The published clients, as they are, against the real server, under the prefix and at the bare root.

The one from PyPI is a dependency of the tests. The one from npm is installed where node and npm are, once, into
pytest's cache; where they are not, or nothing comes from npm's registry, its test is skipped.
"""

import asyncio
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ledger.keys import Role
from tests import npm
from tests.processes import ROOT, Server, keys_in

NPM_CLIENT = "chunkr-ai@0.1.0-alpha.14"
NODE_MAJOR_MIN = 20
"""The client's own demand."""
ROUND_SECONDS_MAX = 60


@pytest.fixture
def node() -> str:
    return npm.node(major_min=NODE_MAJOR_MIN)


@pytest.fixture
def npm_folder(node: str, pytestconfig: pytest.Config) -> Path:
    """Where the client from npm is installed."""
    assert node
    return npm.installed(NPM_CLIENT, pytestconfig.cache)


async def test_the_client_from_pypi_goes_its_round(tmp_path: Path) -> None:
    async with served(tmp_path) as (url, key, worker):
        await ends_well(sys.executable, "-m", "tests.chunkr_round", url, key, worker)


async def test_the_client_from_npm_goes_its_round(node: str, npm_folder: Path, tmp_path: Path) -> None:
    async with served(tmp_path) as (url, key, worker):
        await ends_well(node, "tests/chunkr_round.mjs", str(npm_folder), url, key, worker)


async def test_the_client_from_pypi_reads_all_that_the_demo_worker_makes(tmp_path: Path) -> None:
    async with served(tmp_path) as (url, key, worker), working(url, worker, "--delay", "1"):
        await ends_well(sys.executable, "-m", "tests.chunkr_round", url, key)


async def test_the_client_from_npm_waits_for_a_worker(node: str, npm_folder: Path, tmp_path: Path) -> None:
    async with served(tmp_path) as (url, key, worker), working(url, worker):
        await ends_well(node, "tests/chunkr_round.mjs", str(npm_folder), url, key)


@asynccontextmanager
async def working(url: str, key: str, *options: str) -> AsyncIterator[None]:
    """The demo worker, at work all the while."""
    work = (sys.executable, "-m", "scripts.work", "--url", url, "--key", key, "--pace", "0.2", *options)
    process = await asyncio.create_subprocess_exec(*work, cwd=ROOT, stdout=DEVNULL)
    try:
        yield
        assert process.returncode is None
    finally:
        await _kill(process)


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[tuple[str, str, str]]:
    """The server's address, a customer's key and a worker's."""
    path = folder / "ledger.db"
    key, worker = await keys_in(path, ("chunkr", Role.CLIENT), ("ledger", Role.WORKER))
    async with Server(path) as server:
        await server.start()
        yield f"http://127.0.0.1:{server.port}", key, worker
        assert await server.stop() == 0


async def ends_well(*command: str) -> None:
    client = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=PIPE, stderr=STDOUT)
    try:
        async with asyncio.timeout(ROUND_SECONDS_MAX):
            said, _ = await client.communicate()
    finally:
        await _kill(client)
    assert client.returncode == 0, said.decode()


async def _kill(process: Process) -> None:
    """Whatever became of the test, no process is left."""
    if process.returncode is None:
        process.kill()
        await process.wait()
