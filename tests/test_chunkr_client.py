"""The published PyPI client, as it is, against the real server, under the prefix and at the bare root."""

import asyncio
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

from ledger.keys import Role
from tests.processes import ROOT, Server, keys_in


async def test_the_published_client_goes_its_round(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    key, worker = await keys_in(path, ("chunkr", Role.CLIENT), ("ledger", Role.WORKER))
    async with Server(path) as server:
        await server.start()
        command = (sys.executable, "-m", "tests.chunkr_round", f"http://127.0.0.1:{server.port}", key, worker)
        client = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=PIPE, stderr=STDOUT)
        said, _ = await asyncio.wait_for(client.communicate(), 60)
        assert client.returncode == 0, said.decode()
        assert await server.stop() == 0
