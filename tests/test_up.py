"""``scripts/up``: every line that it prints does what it says, pasted as it is, and it leaves nothing behind."""

import asyncio
import fcntl
import re
import shutil
import signal
import socket
import sqlite3
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import structlog
import typer

from ledger.sqlite import open_to_read
from scripts.cli import run
from scripts.demo.page import DEMOS, Access, page
from scripts.demo.worker import Habits
from scripts.up_demo import up_demo

ROOT = Path(__file__).parent.parent
PATIENCE_SECONDS = 30
LAST_LINE = "# Ctrl-C here stops everything; the store stays."
SHELLS = [
    pytest.param(name, marks=pytest.mark.skipif(shutil.which(name) is None, reason=f"no {name} here"))
    for name in ("sh", "bash")
]
pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")

CREATED = {
    "lemondata": r"created ldtask_[0-9a-f]{32}",
    "bytespike": r"created task_[0-9A-Z]{26}",
    "chunkr": r"created [0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "beatra": r"created tsk_[0-9A-Z]{26}",
}
QUEUED = {
    "lemondata": '"status":"pending"',
    "bytespike": '"status":"pending"',
    "chunkr": '"status":"Starting"',
    "beatra": '"status":"queued"',
}
CANCELLED = {
    "lemondata": '"cancellation_status":"cancelled"',
    "bytespike": '"status":"cancelled"',
    "chunkr": "Task cancelled",
    "beatra": '"status":"canceled"',
}
COMPLETED = {
    "lemondata": '"status":"completed"',
    "bytespike": '"status":"completed"',
    "chunkr": '"status":"Succeeded"',
    "beatra": '"status":"succeeded"',
}
CONTRACTS = list(CREATED)


class Up:
    """A running ``scripts/up`` and what it printed."""

    def __init__(self, process: Process, printed: Sequence[str]) -> None:
        self.process, self.printed = process, printed
        self.commands = [line for line in printed if line and not line.startswith("#")]

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int | None, str]:
        """Its exit code after the signal, and what it said on stderr."""
        self.process.send_signal(number)
        _, err = await asyncio.wait_for(self.process.communicate(), PATIENCE_SECONDS)
        return self.process.returncode, err.decode()


@asynccontextmanager
async def up(store: Path, *options: str) -> AsyncIterator[Up]:
    process = await start(store, "--port", "0", *options)
    try:
        yield Up(process, await asyncio.wait_for(_printed(process), PATIENCE_SECONDS))
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def start(store: Path, *options: str) -> Process:
    arguments = ("-m", "scripts.up_demo", "--store", f"sqlite:{store}", *options)
    return await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=PIPE, stderr=PIPE, cwd=ROOT)


async def _printed(process: Process) -> list[str]:
    assert process.stdout is not None
    lines = []
    async for line in process.stdout:
        lines.append(line.decode().rstrip("\n"))
        if lines[-1] == LAST_LINE:
            return lines
    assert process.stderr is not None
    raise AssertionError((lines, await process.stderr.read()))


async def pasted(shell: str, lines: Sequence[str]) -> list[str]:
    """What each of the lines prints, pasted one after the other into one *shell*."""
    cut = "-- 8< --"
    text = "\n".join(f"{line}\necho '{cut}'" for line in lines)
    process = await asyncio.create_subprocess_exec(shell, stdin=PIPE, stdout=PIPE, stderr=PIPE)
    out, err = await asyncio.wait_for(process.communicate(text.encode()), PATIENCE_SECONDS)
    assert err == b"", err
    return [part.strip("\n") for part in out.decode().split(cut)][:-1]


def is_of(contract: str, line: str) -> bool:
    """Whether the variable that the line sets or uses is this contract's."""
    return line.startswith(f"{contract}=") or f"${contract}" in line


def of_sort(commands: Sequence[str], place: int) -> dict[str, str]:
    """By contract, its first, second or third line: create, query, cancel."""
    return {contract: [line for line in commands if is_of(contract, line)][place] for contract in CONTRACTS}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("options", [["--no-worker"], ["--pace", "2"]], ids=["no worker", "worker"])
async def test_every_line_creates_queries_and_cancels_as_it_says(
    tmp_path: Path, shell: str, options: list[str]
) -> None:
    async with up(tmp_path / "ledger.db", *options) as demo:
        assert len(demo.commands) == 3 * len(CONTRACTS)
        said = await pasted(shell, demo.commands)
        for number, contract in enumerate(CONTRACTS):
            created, queried, cancelled = said[3 * number : 3 * number + 3]
            assert re.fullmatch(CREATED[contract], created)
            assert QUEUED[contract] in queried
            assert CANCELLED[contract] in cancelled
        again = await pasted(shell, demo.printed)  # comments and all, and everything a second time
        assert [line for line in again if line.startswith("created ")] != [line for line in said if "created " in line]
        assert await demo.stop() == (0, "")


async def test_without_a_worker_tasks_stay_queued(tmp_path: Path) -> None:
    async with up(tmp_path / "ledger.db", "--no-worker", "--pace", "0.01") as demo:
        creates, queries = of_sort(demo.commands, 0), of_sort(demo.commands, 1)
        said = await pasted("sh", [*creates.values(), "sleep 0.5", *queries.values()])
        for contract, queried in zip(CONTRACTS, said[len(CONTRACTS) + 1 :], strict=True):
            assert QUEUED[contract] in queried


async def test_with_the_worker_tasks_that_nobody_cancels_complete(tmp_path: Path) -> None:
    async with up(tmp_path / "ledger.db", "--pace", "0.05") as demo:
        creates, queries = of_sort(demo.commands, 0), of_sort(demo.commands, 1)
        waits = [
            f"""until r=$({query}); echo "$r" | grep -q '{COMPLETED[contract]}'; do sleep 0.1; done; echo "$r\""""
            for contract, query in queries.items()
        ]
        said = await pasted("sh", [*creates.values(), *waits])
        for contract, queried in zip(CONTRACTS, said[len(CONTRACTS) :], strict=True):
            assert COMPLETED[contract] in queried
        assert await demo.stop() == (0, "")


async def test_a_running_beatra_task_is_asked_to_stop_and_the_worker_confirms(tmp_path: Path) -> None:
    async with up(tmp_path / "ledger.db", "--pace", "0.2") as demo:
        create, query, cancel = (of_sort(demo.commands, place)["beatra"] for place in range(3))
        lines = [
            create,
            f"""until {query} | grep -q '"running"'; do sleep 0.05; done""",
            cancel,
            f"""until {query} | grep -q '"canceled"'; do sleep 0.05; done""",
        ]
        said = await pasted("sh", lines)
        assert '"status":"running"' in said[2]
        assert '"cancel_requested_at":null' not in said[2]


async def test_it_creates_keys_and_nothing_else_and_new_ones_the_next_time(tmp_path: Path) -> None:
    store = tmp_path / "ledger.db"
    keys = []
    for _ in range(2):
        async with up(store, "--no-worker") as demo:
            keys.append(set(re.findall(r"tl_\w+", "\n".join(demo.printed))))
            said = await pasted("sh", demo.commands[:2])
            assert QUEUED["lemondata"] in said[1]
            assert await demo.stop() == (0, "")
    assert [len(some) for some in keys] == [6, 6]
    assert not keys[0] & keys[1]
    engine = await open_to_read(store)
    try:
        kinds = [row.entry.type for row in await engine.after(0, 100)]
    finally:
        await engine.close()
    once = ["key-issued"] * 6 + ["created", "held"]
    assert kinds == once * 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_all_of_it_in_the_middle_of_work(tmp_path: Path, number: signal.Signals) -> None:
    async with up(tmp_path / "ledger.db", "--pace", "0.3") as demo:
        await pasted("sh", [*of_sort(demo.commands, 0).values(), "sleep 1.8"])
        assert _children(demo.process.pid) == ""
        assert await demo.stop(number) == (0, "")
        port = int(re.findall(r"http://127\.0\.0\.1:(\d+)", demo.printed[0])[0])
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))


def _children(pid: int) -> str:
    """The ids of its child processes, where the system tells them."""
    told = Path(f"/proc/{pid}/task/{pid}/children")
    return told.read_text() if told.exists() else ""


def test_the_page_says_where_to_wait_that_keys_are_new_and_how_to_run_a_worker() -> None:
    access = Access(url="http://h:1", operator="tl_o", worker="tl_w", clients={demo.contract: "tl_c" for demo in DEMOS})
    lines = page(access, Path("ledger.db"), None)
    assert "# These keys are new at each start; the old ones stay good until they are revoked." in lines
    assert any(".venv/bin/task-ledger work --url http://h:1 --key tl_w" in line for line in lines)
    waits = [number for number, line in enumerate(lines) if line.startswith("# wait here")]
    assert len(waits) == len(DEMOS)
    assert all(lines[number - 1].startswith("curl") and lines[number + 1].startswith("curl") for number in waits)


async def test_it_starts_again_on_the_store_of_one_that_was_killed(tmp_path: Path) -> None:
    store = tmp_path / "ledger.db"
    async with up(store, "--pace", "0.1") as demo:
        await pasted("sh", list(of_sort(demo.commands, 0).values()))
        await demo.stop(signal.SIGKILL)
    async with up(store, "--pace", "0.1") as demo:
        said = await pasted("sh", demo.commands)
        assert CANCELLED["chunkr"] in said[8]


WRONG = [
    (["--port", "TAKEN"], "new.db", 2, "Address already in use; --port takes another"),
    (["--host", "192.0.2.1"], "new.db", 2, "cannot listen on 192.0.2.1"),
    (["--host", "a..b"], "new.db", 2, "cannot listen on a..b"),
    (["--port", "70000"], "new.db", 2, "--port"),
    (["--pace", "0"], "new.db", 2, "--pace"),
    ([], "foreign.db", 3, "is not a ledger"),
    ([], "served.db", 3, "is served by another process"),
    ([], "no/such.db", 3, "there is no folder"),
]


@pytest.mark.parametrize(("options", "name", "exit_code", "reason"), WRONG)
def test_what_is_wrong_taken_or_foreign_is_one_line_and_its_exit_code(
    *,
    options: list[str],
    name: str,
    exit_code: int,
    reason: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with sqlite3.connect(tmp_path / "foreign.db") as connection:
        connection.execute("CREATE TABLE t (x)")
    connection.close()
    alone = typer.Typer(add_completion=False)
    alone.command()(up_demo)
    with socket.create_server(("127.0.0.1", 0)) as taken, _locked(tmp_path / "served.db"):
        options = [str(taken.getsockname()[1]) if option == "TAKEN" else option for option in options]
        assert run(alone, ["--port", "0", "--store", f"sqlite:{tmp_path / name}", *options]) == exit_code
    structlog.reset_defaults()
    out, err = capsys.readouterr()
    assert out == ""
    assert reason in err
    assert err.count("\n") == 1
    assert not (tmp_path / "new.db").exists()


@contextmanager
def _locked(store: Path) -> Iterator[None]:
    """As if another process served *store*."""
    with store.with_name(store.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080", "http://[::1]:8080"])
@pytest.mark.parametrize("shell", SHELLS)
async def test_the_page_is_shell(url: str, shell: str) -> None:
    access = Access(url=url, operator="tl_o", worker="tl_w", clients={demo.contract: "tl_c" for demo in DEMOS})
    text = "\n".join(page(access, Path("ledger.db"), Habits("w", 1)))
    process = await asyncio.create_subprocess_exec(shell, "-n", stdin=PIPE, stdout=PIPE, stderr=PIPE)
    assert await process.communicate(text.encode()) == (b"", b"")
