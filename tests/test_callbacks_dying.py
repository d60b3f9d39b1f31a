"""R-02: a server that is killed in the middle of a callback, at each moment by name, tells every fact, in order.

A moment before the try is on record costs a copy under the same id; one after it does not.
"""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from ledger.keys import Role
from tests.dying_caller import MOMENTS
from tests.processes import Server, keys_in
from tests.receiving import FINE, HANGS, receiving
from tests.serving import ACCOUNT
from tests.test_callbacks_killed import CONFIG, asked
from tests.wire import Wire

COPIES = {"posted": 1, "recorded": 0, "queued": 0}


async def facts(wire: Wire, key: str, url: str) -> str:
    """A task of which two facts are told: that it has started, and that it has failed."""
    body = {"account": ACCOUNT, "contract": "chunkr", "model": "chunkr-parse", "callback_url": url}
    task: str = (await asked(wire, key, "POST", "/tasks", body))["id"]
    await asked(wire, key, "POST", f"/tasks/{task}/events", {"type": "started"})
    return task


async def is_told(wire: Wire, key: str, count: int) -> list[dict[str, Any]]:
    """The events of the log's callbacks, once so many have been delivered."""
    async with asyncio.timeout(30):
        while True:
            found: list[dict[str, Any]] = (await asked(wire, key, "GET", "/events?type=callback-attempted&limit=100"))[
                "events"
            ]
            if sum(event["data"]["delivered"] for event in found) >= count:
                return found
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("moment", MOMENTS)
async def test_r02_a_kill_at_this_moment_of_a_callback_loses_nothing_and_keeps_the_order(
    tmp_path: Path, moment: str
) -> None:
    path = tmp_path / "ledger.db"
    (tmp_path / "config.toml").write_text(CONFIG)
    worker, operator = await keys_in(path, ("ledger", Role.WORKER), ("ledger", Role.OPERATOR))
    async with receiving() as receiver, Server(path, "--config", str(tmp_path / "config.toml")) as server:
        server.program = ("tests.dying_caller", moment)
        await server.start()
        async with server.wire() as wire:
            task = await facts(wire, worker, receiver.url)
            await server.died()
        server.program = ("scripts.serve",)
        await server.start()
        async with server.wire() as wire:
            await asked(wire, worker, "POST", f"/tasks/{task}/events", {"type": "failed", "code": "broke"})
            tried = await is_told(wire, operator, 2)
            listed = await asked(wire, operator, "GET", "/callbacks?state=all")
        assert await server.stop() == 0
    statuses = [one.json()["status"] for one in receiver.told]
    assert statuses == ["Processing"] * (1 + COPIES[moment]) + ["Failed"]
    assert len(set(receiver.ids)) == 2
    assert [event["data"]["attempt"] for event in tried] == [1, 1], "each is on record once"
    assert {one["state"] for one in listed["callbacks"]} == {"delivered"}


async def test_r02_a_kill_while_the_receiver_has_not_answered_yet_tells_it_again_under_the_same_id(
    tmp_path: Path,
) -> None:
    path = tmp_path / "ledger.db"
    (tmp_path / "config.toml").write_text(CONFIG)
    worker, operator = await keys_in(path, ("ledger", Role.WORKER), ("ledger", Role.OPERATOR))
    async with receiving() as receiver, Server(path, "--config", str(tmp_path / "config.toml")) as server:
        receiver.answer = lambda _: HANGS
        await server.start()
        async with server.wire() as wire:
            await facts(wire, worker, receiver.url)
            await receiver.until(1)
        await server.kill()
        receiver.answer = lambda _: FINE
        await server.start()
        async with server.wire() as wire:
            (tried,) = await is_told(wire, operator, 1)
        assert await server.stop() == 0
        assert (tried["data"]["attempt"], len(receiver.told), len(set(receiver.ids))) == (1, 2, 1)
