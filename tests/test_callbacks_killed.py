"""A receiver that is down for a day, and a server that is killed three times meanwhile.

No fact is lost, and each is told once to whoever goes by the ids. The control, a queue in memory, loses some.
"""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ledger.keys import Role
from tests.processes import Server, keys_in
from tests.receiving import FINE, HANGS, RESETS, Receiver, Told, receiving
from tests.serving import ACCOUNT
from tests.wire import Wire, request

FACTS, RECEIVERS = 30, 3
HOUR = 3600
LIVES = (0, 4 * HOUR, 12 * HOUR)
"""How far ahead the clock of each life is that ends by a kill."""
CONFIG = '[callbacks]\nhttp = true\nports = []\nnetworks = ["127.0.0.0/8"]\n'


async def asked(wire: Wire, key: str, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401
    sent = b"" if body is None else msgspec.json.encode(body)
    headers = [("Authorization", f"Bearer {key}")]
    reply = await wire.send(request(method, f"/ledger/v1{path}", headers=headers, body=sent), method=method)
    assert reply.status < 300, reply
    return reply.json()


async def outcome(wire: Wire, key: str, url: str) -> str:
    """A task that has failed, and is to be told of."""
    body = {"account": ACCOUNT, "contract": "beatra", "model": "suno-5.5", "callback_url": url}
    task: str = (await asked(wire, key, "POST", "/tasks", body))["id"]
    await asked(wire, key, "POST", f"/tasks/{task}/events", {"type": "failed", "code": "broke"})
    return task


def down(number: int) -> Any:  # noqa: ANN401 - how a receiver answers
    """How the receiver of that number is down: it fails, resets, or answers one of three too late."""

    def answer(told: Told) -> int:
        return (503, RESETS, HANGS if int(told.id[-1], 16) % 3 == 0 else 500)[number]

    return answer


async def day(folder: Path, *mode: str) -> tuple[list[Receiver], list[str], list[dict[str, Any]]]:
    """The receivers after that day, the tasks, and the callbacks as the last life lists them."""
    path = folder / "ledger.db"
    (folder / "config.toml").write_text(CONFIG)
    worker, operator = await keys_in(path, ("ledger", Role.WORKER), ("ledger", Role.OPERATOR))
    tasks: list[str] = []
    async with (
        receiving() as first,
        receiving() as second,
        receiving() as third,
        Server(path, "--config", str(folder / "config.toml")) as server,
    ):
        receivers = [first, second, third]
        for number, one in enumerate(receivers):
            one.answer = down(number)
        for life, ahead in enumerate(LIVES):
            before = sum(len(one.told) for one in receivers)
            server.program = ("tests.ahead", str(ahead), *mode)
            await server.start()
            async with server.wire() as wire:
                urls = [receivers[number % RECEIVERS].url for number in range(FACTS // len(LIVES))]
                tasks += [await outcome(wire, worker, url) for url in urls]
            async with asyncio.timeout(30):
                while sum(len(one.told) for one in receivers) < before + 3 + life:  # noqa: ASYNC110 - lists tell nobody
                    await asyncio.sleep(0.005)
            await server.kill()
        for one in receivers:
            one.hung.set()
            one.answer = lambda _: FINE
            one.told.clear()
        server.program = ("tests.ahead", str(30 * HOUR), *mode)
        await server.start()
        async with server.wire() as wire:
            for _ in range(200):
                listed = await asked(wire, operator, "GET", "/callbacks?state=all&limit=200")
                states = Counter(one["state"] for one in listed["callbacks"])
                if not mode and states["delivered"] == FACTS:
                    break
                await asyncio.sleep(0.05 if not mode else 0.01)
        assert await server.stop() == 0
        return receivers, tasks, listed["callbacks"]


async def test_r20_a_receiver_that_was_down_for_a_day_is_told_every_fact_once_across_three_kills(
    tmp_path: Path,
) -> None:
    receivers, tasks, listed = await day(tmp_path)
    told = [one.json()["task_id"] for receiver in receivers for one in receiver.told]
    ids = [one.id for receiver in receivers for one in receiver.told]
    assert len(set(ids)) == FACTS == len(tasks), "after dedupe each once"
    assert len(set(told)) == FACTS, "and none is lost"
    assert len(ids) == len(set(ids)), "no try was cut off in the last life, so there is not even a copy"
    assert {one["id"] for one in listed} == set(ids)
    assert {one["state"] for one in listed} == {"delivered"}
    assert max(one["attempts"] for one in listed) <= 11


async def test_r20_the_control_a_queue_in_memory_loses_facts(tmp_path: Path) -> None:
    receivers, tasks, _ = await day(tmp_path, "forgetful")
    told = {one.id for receiver in receivers for one in receiver.told}
    assert len(told) < len(tasks)


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_the_same_on_and_on(tmp_path: Path) -> None:
    for number in range(10):
        folder = tmp_path / str(number)
        folder.mkdir()
        receivers, _, listed = await day(folder)
        assert {one.id for receiver in receivers for one in receiver.told} == {one["id"] for one in listed}
        assert len(listed) == FACTS
