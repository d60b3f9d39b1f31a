"""`task-ledger accounts`: what it prints and changes, also beside a running server."""

import asyncio
import sys
from asyncio.subprocess import PIPE
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from ledger.keys import Role
from ledger.ledger import Ledger
from ledger.sqlite import open_to_serve
from scripts.accounts import app
from scripts.cli import run
from tests.builders import ACCOUNT, create, ident
from tests.processes import Server, keys_in
from tests.rules_dsl import HOLD
from tests.wire import request


class Shell:
    """Where command lines of `accounts` are typed in, with one store."""

    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.path = path
        self._capsys = capsys

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, what was printed, and what was complained of."""
        self._capsys.readouterr()
        code = run(app, [*arguments, "--store", f"sqlite:{self.path}"])
        return code, *self._capsys.readouterr()

    def objects(self, *arguments: str) -> list[dict[str, Any]]:
        """What is printed as JSON lines."""
        code, out, err = self(*arguments, "--json")
        assert (code, err) == (0, "")
        return [msgspec.json.decode(line) for line in out.splitlines()]

    def one(self, *arguments: str) -> dict[str, Any]:
        (row,) = self.objects(*arguments)
        return row


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path / "ledger.db", capsys)


def figures(row: dict[str, Any]) -> tuple[str | None, str | None, str | None]:
    return row["limit_credits"], row["granted_credits"], row["available_credits"]


def test_a_limit_is_set_and_taken_away_and_makes_the_store_if_there_is_none(shell: Shell) -> None:
    assert figures(shell.one("limit", "acme", "10")) == ("10", None, "10")
    assert figures(shell.one("limit", "acme", "0")) == ("0", None, "0")
    assert figures(shell.one("limit", "acme", "none")) == (None, None, None)


def test_a_grant_is_given_once_and_taken_back(shell: Shell) -> None:
    for _ in range(2):
        assert figures(shell.one("grant", "acme", "2.5", "--key", "k1", "--reason", "welcome")) == (None, "2.5", "2.5")
    for _ in range(2):
        taken = shell.one("revoke", "acme", "1", "--grant", "k1", "--key", "r1")
        assert figures(taken) == (None, "1.5", "1.5")
    assert shell("grant", "acme", "3", "--key", "k1")[0] == 2
    code, out, err = shell("revoke", "acme", "2", "--grant", "k1", "--key", "r2")
    assert (code, out) == (2, "")
    assert err == "task-ledger: amount_credits: 2 credits asked, 1.5 left\n"


def test_accounts_are_shown_as_a_table_all_or_one(shell: Shell) -> None:
    shell("limit", "umbrella", "10")
    shell("grant", "acme", "2.5", "--key", "k1")
    _, out, _ = shell("show")
    head, *rows = (line.split() for line in out.splitlines())
    assert head == ["account", "limit", "granted", "held", "charged", "refunded", "expected", "tasks", "available"]
    assert rows == [
        ["acme", "none", "2.5", "0", "0", "0", "0", "0", "2.5"],
        ["umbrella", "10", "none", "0", "0", "0", "0", "0", "10"],
    ]
    assert [row["account"] for row in shell.objects("show")] == ["acme", "umbrella"]
    assert shell("show", "initech")[1].split()[-9:] == ["initech", "none", "none", "0", "0", "0", "0", "0", "unlimited"]


def test_what_is_under_way_is_shown_and_how_much_may_be_when_the_configuration_is_told(
    shell: Shell, tmp_path: Path
) -> None:
    made(shell.path, tasks=2)
    shell("limit", "umbrella", "10")
    config = tmp_path / "ledger.toml"
    config.write_text('[tiers.free]\ntasks_max = 5\n[accounts]\nacme = "free"\n')

    def tasks(*options: str) -> dict[str, str]:
        return {line.split()[0]: line.split()[-2] for line in shell("show", *options)[1].splitlines()[1:]}

    assert tasks() == {"acme": "2", "umbrella": "0"}
    assert tasks("--config", str(config)) == {"acme": "2/5", "umbrella": "0"}
    assert shell.one("show", "acme")["live_tasks"] == 2
    assert "tasks_max" not in shell.one("show", "acme")
    told = shell.objects("show", "--config", str(config))
    assert [(row["live_tasks"], row["tasks_max"]) for row in told] == [(2, 5), (0, None)]
    config.write_text("[tiers.free]\ntasks_max = 0")
    code, out, err = shell("show", "--config", str(config))
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert "tasks_max" in err


def made(path: Path, *, tasks: int) -> None:
    """A ledger in which `ACCOUNT` has so many tasks under way."""

    async def make() -> None:
        async with Ledger(await open_to_serve(path)) as ledger:
            for number in range(tasks):
                await ledger.handle(create(ident(number), terms=replace(HOLD, estimated_micros=0)))

    asyncio.run(make())


def test_an_account_of_which_the_ledger_has_nothing_is_shown_and_said_to_be_unknown(shell: Shell) -> None:
    shell("limit", "acme", "10")
    assert shell("show", "acme")[2] == ""
    code, out, err = shell("show", "amce")
    assert (code, out.split()[-9]) == (0, "amce")
    assert err == "the ledger has no key, no task and no credit of 'amce'\n"
    assert shell.one("show", "acme")["account"] == "acme"


@pytest.mark.parametrize("verb", ["limit", "grant", "revoke"])
def test_the_help_calls_an_amount_credits(shell: Shell, verb: str) -> None:
    _, out, _ = shell(verb, "--help")
    assert "CREDITS" in out
    assert "<int>" not in out


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["limit", "acme", "much"], "must be decimal text"),
        (["limit", "acme", "1e3"], "must be decimal text"),
        (["limit", "a b", "1"], "1 to 128 visible characters"),
        (["limit", "ü", "1"], "1 to 128 visible characters"),
        (["limit", "x" * 129, "1"], "1 to 128 visible characters"),
        (["grant", "acme", "0", "--key", "k"], "more than 0"),
        (["grant", "acme", "1"], "--key"),
        (["grant", "acme", "1", "--key", ""], "1 to 255 printable characters"),
        (["grant", "acme", "1", "--key", "x" * 256], "1 to 255 printable characters"),
        (["revoke", "acme", "1", "--key", "k"], "--grant"),
        (["show", "a b"], "1 to 128 visible characters"),
    ],
)
def test_wrong_use_is_one_line_and_ends_in_two(shell: Shell, arguments: Sequence[str], fragment: str) -> None:
    shell("limit", "acme", "10")
    code, out, err = shell(*arguments)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert fragment in err
    assert figures(shell.one("show", "acme")) == ("10", None, "10")


@pytest.mark.parametrize("arguments", [["show"], ["revoke", "acme", "1", "--grant", "g", "--key", "k"]])
def test_where_there_is_no_ledger_none_is_made_to_be_shown(shell: Shell, arguments: Sequence[str]) -> None:
    code, out, err = shell(*arguments)
    assert (code, out) == (3, "")
    assert "no ledger at" in err
    assert not shell.path.exists()


async def test_what_is_changed_beside_a_running_server_is_heeded_at_once(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    (key,) = await keys_in(path, ("ledger", Role.WORKER))
    async with Server(path) as server:
        await server.start()
        wire = server.wire()

        async def create(amount: str) -> int:
            body = {"account": ACCOUNT, "contract": "beatra", "model": "suno-5.5", "estimated_credits": amount}
            headers = [("Authorization", f"Bearer {key}")]
            sent = request("POST", "/ledger/v1/tasks", headers=headers, body=msgspec.json.encode(body))
            return (await wire.send(sent, method="POST")).status

        statuses = [await create("3")]
        for command in (["limit", ACCOUNT, "4"], ["grant", ACCOUNT, "2", "--key", "k"], ["limit", ACCOUNT, "none"]):
            done = await typed(path, command)
            statuses += [done, await create("2"), await create("1")]
        await wire.close()
        assert statuses == [201, 0, 402, 201, 0, 201, 402, 0, 402, 402]
        assert await server.stop() == 0


async def typed(path: Path, command: Sequence[str]) -> int:
    """The exit code of the command line, which runs in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "scripts.accounts", *command, "--store", f"sqlite:{path}", stdout=PIPE
    )
    await process.communicate()
    assert process.returncode is not None
    return process.returncode
