"""`task-ledger callbacks`: what could not be delivered, listed and sent again beside a running service."""

import asyncio
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from ledger.keys import Role
from tests.processes import ROOT, Server, keys_in
from tests.receiving import FINE, GONE, Receiver, receiving
from tests.serving import ACCOUNT
from tests.test_callbacks_killed import CONFIG, asked, outcome


class Running(NamedTuple):
    """A service that has given a callback up."""

    server: Server
    receiver: Receiver
    operator: str
    task: str

    async def shell(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, what was printed, and what was complained of, of a command line beside it."""
        store = f"sqlite:{self.server.path}"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "scripts.callbacks", *arguments, "--store", store, cwd=ROOT, stdout=PIPE, stderr=PIPE
        )
        out, err = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    async def objects(self, *arguments: str) -> list[dict[str, Any]]:
        code, out, err = await self.shell(*arguments, "--json")
        assert (code, err) == (0, "")
        return [msgspec.json.decode(line) for line in out.splitlines()]

    async def native(self, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401 - whatever JSON holds
        async with self.server.wire() as wire:
            return await asked(wire, self.operator, method, path, body)


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    path, config = tmp_path / "ledger.db", tmp_path / "config.toml"
    config.write_text(CONFIG)
    worker, operator = await keys_in(path, ("ledger", Role.WORKER), ("ledger", Role.OPERATOR))
    async with receiving() as receiver, Server(path, "--config", str(config)) as server:
        receiver.answer = lambda _: GONE
        await server.start()
        async with server.wire() as wire:
            task = await outcome(wire, worker, receiver.url)
        found = Running(server, receiver, operator, task)
        async with asyncio.timeout(30):
            while not (await found.native("GET", "/callbacks"))["callbacks"]:  # noqa: ASYNC110 - another's state
                await asyncio.sleep(0.01)
        yield found
        assert await server.stop() == 0


async def test_what_was_given_up_is_listed_and_sent_again(running: Running) -> None:
    (dead,) = await running.objects("list")
    assert dead == (await running.native("GET", "/callbacks"))["callbacks"][0]
    assert (dead["task"], dead["state"], dead["error"], dead["attempts"]) == (running.task, "dead", "410", 1)
    code, out, _ = await running.shell("list")
    assert code == 0
    assert dead["id"] in out
    assert running.receiver.url in out

    running.receiver.answer = lambda _: FINE
    (waits,) = await running.objects("resend", dead["id"], "--reason", "they are back")
    assert (waits["id"], waits["state"]) == (dead["id"], "waiting")
    await running.receiver.until(2)
    assert len(set(running.receiver.ids)) == 1
    async with asyncio.timeout(30):
        while (await running.objects("list", "--all"))[0]["state"] != "delivered":
            pass
    assert await running.objects("list") == []


async def test_a_callback_that_nobody_knows_is_wrong_use(running: Running) -> None:
    assert await running.shell("resend", "msg_0") == (
        2,
        "",
        "task-ledger: no callback 'msg_0': `task-ledger callbacks list --all` shows those there are\n",
    )


async def test_secrets_are_shown_and_rotated_and_are_those_of_the_api(running: Running) -> None:
    (shown,) = await running.objects("secret", ACCOUNT)
    assert shown == await running.native("GET", f"/accounts/{ACCOUNT}/callback-secret")
    (new,) = await running.objects("rotate", ACCOUNT, "--overlap", "3600")
    assert new["old_secrets"] == [shown["secret"]]
    assert new == await running.native("GET", f"/accounts/{ACCOUNT}/callback-secret")
    code, out, _ = await running.shell("secret", ACCOUNT)
    assert (code, out.split()[1]) == (0, new["secret"])


async def test_a_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    nothing = Running(Server(tmp_path / "none.db"), Receiver(), "", "")
    for arguments in (("list",), ("secret", ACCOUNT), ("rotate", ACCOUNT)):
        code, out, err = await nothing.shell(*arguments)
        assert (code, out, err.count("\n")) == (3, "", 1)
    assert [path.name for path in folder(tmp_path)] == []


def folder(path: Path) -> list[Path]:
    return [*path.iterdir()]
