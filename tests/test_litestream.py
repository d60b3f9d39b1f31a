"""The README's recipe with Litestream, tried with the real program, which set-up has where there is a wheel of it."""

import asyncio
import os
import re
import shutil
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import msgspec
import pytest

from ledger.keys import Role
from scripts.restore import restore_to
from tests import stored
from tests.builders import whole_log
from tests.invariants import common_invariant
from tests.processes import ROOT, Server, keys_in
from tests.serving import ACCOUNT
from tests.wire import request

LITESTREAM = shutil.which("litestream", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
README = (ROOT / "README.md").read_text()

pytestmark = pytest.mark.skipif(LITESTREAM is None, reason="no litestream here: set-up has it for Linux on x86-64")


def recipe() -> tuple[list[str], list[str]]:
    """What the README has one type to replicate and to restore, without the program's name."""
    replicate = re.search(r"^litestream (replicate \S+ \S+)", README, re.MULTILINE)
    restore = re.search(r"litestream (restore -o \S+ [^\s)]+)", README)
    assert replicate is not None
    assert restore is not None
    return replicate[1].split(), restore[1].split()


def placed(words: list[str], folder: Path) -> list[str]:
    """*words* about files in *folder*."""
    names = {"ledger.db", "replica.db"}
    put = [str(folder / word) if word in names else word for word in words]
    return [word.replace("file:///mnt/elsewhere", f"file://{folder}/elsewhere") for word in put]


async def test_r12_what_litestream_has_copied_beside_the_service_is_restored_verified_and_goes_on(
    tmp_path: Path,
) -> None:
    assert LITESTREAM is not None
    replicate, restore = (placed(words, tmp_path) for words in recipe())
    path, replica, target = (tmp_path / name for name in ("ledger.db", "replica.db", "restored.db"))
    (key,) = await keys_in(path, ("ledger", Role.WORKER))
    body = msgspec.json.encode({"account": ACCOUNT, "contract": "chunkr", "model": "chunkr-parse"})
    create = request("POST", "/ledger/v1/tasks", headers=[("Authorization", f"Bearer {key}")], body=body)
    async with Server(path) as server:
        await server.start()
        async with server.wire() as wire:
            assert (await wire.send(create)).status == 201
            copying = await asyncio.create_subprocess_exec(LITESTREAM, *replicate, stdout=PIPE, stderr=PIPE)
            try:
                while not (tmp_path / "elsewhere").exists():
                    assert copying.returncode is None
                    await asyncio.sleep(0.05)
                for _ in range(30):
                    assert (await wire.send(create)).status == 201
                copying.terminate()  # it copies what is left, and ends
                async with asyncio.timeout(30):
                    await copying.communicate()
            finally:
                if copying.returncode is None:
                    copying.kill()
                    await copying.wait()
        await server.kill()
    back = await asyncio.create_subprocess_exec(LITESTREAM, *restore, stdout=PIPE, stderr=PIPE)
    async with asyncio.timeout(30):
        said = await back.communicate()
    assert back.returncode == 0, said
    done = await restore_to(replica, target)
    assert (done.restored, done.report.findings) == (True, ())
    async with stored.reading(path) as lost, stored.reading(target) as engine:
        assert [row.hash for row in await whole_log(engine)] == [row.hash for row in await whole_log(lost)]
        assert len(await common_invariant(engine)) == 31
    async with Server(target) as server:
        await server.start()
        async with server.wire() as wire:
            assert (await wire.send(create)).status == 201
        assert await server.stop() == 0
