"""A long log under the real server: it is ready again after a power cut, and a drill beside it tells the truth."""

import asyncio
import sys
import time
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ledger.catalogue import read
from ledger.ledger import Ledger
from ledger.records import Recorded
from ledger.sqlite import open_to_serve
from ledger.times import US_PER_SECOND
from scripts.simulation.history import history
from scripts.simulation.play import ledger_over, play
from tests import stored
from tests.invariants import common_invariant
from tests.processes import ROOT, Server, keys_in
from tests.simulated import setting
from tests.test_faults import KEYS, Load
from tests.wire import request

SIZES = [
    pytest.param(300, id="1700 events"),
    pytest.param(17_200, id="100000 events", marks=[pytest.mark.soak, pytest.mark.timeout(600)]),
]


async def simulate(path: Path, tasks: int) -> None:
    """A ledger at *path* with so many tasks, six events each."""
    wanted = setting(tasks=tasks)
    engine = await open_to_serve(path)
    ledger: Ledger = await ledger_over(engine, wanted).start()
    try:
        await play(ledger, history(wanted, read()), made=lambda _: None)
    finally:
        await ledger.close()


async def log_of(path: Path, *, after: int = 0) -> list[Recorded]:
    async with stored.reading(path) as engine:
        return await engine.after(after, 1_000_000)


@pytest.mark.parametrize("tasks", SIZES)
async def test_r01_after_a_power_cut_a_long_log_is_ready_again_and_takes_what_had_no_answer(
    tmp_path: Path, tasks: int
) -> None:
    path = tmp_path / "ledger.db"
    await simulate(path, tasks)
    load = Load(await keys_in(path, *KEYS))
    async with Server(path) as server:
        await server.start()
        async with load.on(server):
            await load.answers(200)
            await server.kill()
        unanswered = load.open
        assert path.with_name("ledger.db-wal").stat().st_size > 0
        await server.start()
        async with server.wire() as wire:
            ready = await wire.send(request("GET", "/readyz"))
        assert (ready.status, ready.json()["status"]) == (200, "ready")
        async with load.on(server):
            await load.answers(50)
            assert await server.stop() == 0
    async with stored.reading(path) as engine:
        await common_invariant(engine)
    assert load.told.keys() <= {row.entry.request_id for row in await log_of(path)}
    assert unanswered <= load.told.keys()


async def drilled(path: Path, folder: Path) -> dict[str, Any]:
    """What a drill in a process of its own tells."""
    command = (sys.executable, "-m", "scripts.drill", "--store", f"sqlite:{path}", "--folder", str(folder), "--json")
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=PIPE, stderr=PIPE)
    try:
        async with asyncio.timeout(100):
            said, complaint = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert (process.returncode, complaint) == (0, b"")
    told: dict[str, Any] = msgspec.json.decode(said)
    return told


async def test_r12_a_drill_beside_a_server_that_is_being_written_to_tells_what_would_be_lost(tmp_path: Path) -> None:
    path, room = tmp_path / "ledger.db", tmp_path / "room"
    room.mkdir()
    await simulate(path, 300)
    load = Load(await keys_in(path, *KEYS))
    async with Server(path) as server:
        await server.start()
        async with load.on(server):
            await load.answers(50)
            answered, began_at = {*load.told}, time.time()
            told = await drilled(path, room)
            took_seconds = time.time() - began_at
            while_it_ran = len(load.told) - len(answered)
            await load.answers(50)
            assert await server.stop() == 0
    assert not [*room.iterdir()]
    assert (told["passed"], told["same"], told["report"]["found"]) == (True, True, 0)
    log = await log_of(path)
    end = log[told["position"] - 1]
    assert (end.position, end.hash.hex()) == (told["position"], told["report"]["head"])
    lost = log[told["position"] : told["position"] + told["lost_events"]]
    assert while_it_ran > 0
    assert len(lost) == told["lost_events"] > 0
    assert {row.entry.request_id for row in log[: told["position"]]} >= answered, "what was answered before is kept"
    until_the_last = lost[-1].entry.recorded_at_us / US_PER_SECOND - began_at
    beside_the_work = took_seconds - told["backup_seconds"] - told["restore_seconds"]
    assert beside_the_work >= 0
    assert until_the_last - beside_the_work <= told["lost_seconds"] <= until_the_last
