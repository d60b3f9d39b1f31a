"""Replay among others: killed and carried on, beside a server that writes, and after a deletion."""

import asyncio
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ledger.ids import TaskId
from ledger.keys import Role
from ledger.records import TaskFilter
from projections.audit.audit import audit
from projections.replay import replay as replaying
from projections.replay import workers as crews
from projections.replay.file import ReplayFile, open_replay, replay_of
from projections.replay.ranges import Found, Until, replay_part
from projections.replay.task_pages import Part, reading
from scripts.cli import app, run
from tests import stored
from tests.builders import complete, create, delete, ident
from tests.processes import ROOT, Server, keys_in
from tests.test_replay import plant, rows

PARTS_OF = 40
"""Events in a part, so that a small log has several."""
KILLED_AFTER = """
import os, signal, sys
from projections.replay import replay
from projections.replay.file import ReplayFile
from scripts.cli import app, run

replay.PART_EVENTS = int(sys.argv[2])
save, left = ReplayFile.save_part, [int(sys.argv[3])]

def dying(self, number, found):
    save(self, number, found)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)

ReplayFile.save_part = dying
run(app, ["replay", "--projection", "tasks", "--store", sys.argv[1]])
"""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("original") / "ledger.db"
    stored.make(path)
    return path


@pytest.fixture
def path(original: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "ledger.db"
    copy.write_bytes(original.read_bytes())
    return copy


@pytest.mark.parametrize("after", [1, 2, 4])
def test_a_replay_that_is_killed_is_carried_on_where_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    right = rows(path, "tasks")
    plant(path, "UPDATE tasks SET held_micros = held_micros + 7, released_micros = 3")
    program = [sys.executable, "-c", KILLED_AFTER, f"sqlite:{path}", str(PARTS_OF), str(after)]
    done = subprocess.run(program, cwd=ROOT, check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert rows(path, "tasks") != right
    with open_replay(replay_of(path)) as file:
        left = [part for _, part in file.to_do()]
    assert left

    taken: list[Part] = []

    def counted(ledger: Path, part: Part, until: Until) -> Found:
        taken.append(part)
        return replay_part(ledger, part, until)

    monkeypatch.setattr(replaying, "replay_part", counted)
    assert run(app, ["replay", "--store", f"sqlite:{path}"]) == 0
    assert taken == left, "it did again what was done, or left something out"
    assert rows(path, "tasks") == right
    assert asyncio.run(findings(path)) == 0


@pytest.mark.parametrize("options", [(), ("--verify",), ("--back",), ("--projection", "books")], ids=" ".join)
def test_while_one_replays_no_other_does_and_no_account_is_added_up_twice(
    path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    right = rows(path, "accounts")
    save, others = ReplayFile.save_part, list[tuple[int, str]]()

    def saved_beside_another(file: ReplayFile, number: int, found: Found) -> None:
        store = ("--store", f"sqlite:{path}")
        other = [sys.executable, "-m", "scripts.replay", *store, *options]
        ended = subprocess.run(other, cwd=ROOT, capture_output=True, text=True, check=False)
        others.append((ended.returncode, ended.stderr))
        save(file, number, found)

    monkeypatch.setattr(ReplayFile, "save_part", saved_beside_another)
    assert run(app, ["replay", "--store", f"sqlite:{path}"]) == 0
    ((code, told),) = others
    assert code == 3
    assert "another replay is under way" in told
    assert rows(path, "accounts") == right


def test_the_parts_of_a_log_are_all_of_it_each_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaying, "PART_EVENTS", PARTS_OF)
    with reading(path) as db:
        (end,) = db.execute("SELECT position FROM lanes").fetchone()
        parts = replaying.parts_of(db, end)
        assert len(parts) > 3
        found = [replay_part(path, part, Until(end)) for part in parts]
        (events,) = db.execute("SELECT count(*) FROM events WHERE task IN (SELECT task FROM tasks)").fetchone()
    assert sum(one.events for one in found) == events
    assert sum(one.tasks for one in found) == len(rows(path, "tasks"))
    assert [one.differences for one in found] == [[] for _ in found]


def test_several_processes_find_what_one_finds(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaying, "PART_EVENTS", PARTS_OF)
    plant(path, "UPDATE tasks SET created_at = 1 WHERE task IN (?, ?)", ident(0), ident(5))
    found = []
    for workers, alone in ((1, 10**9), (2, 0)):
        monkeypatch.setattr(crews, "ALONE_EVENTS", alone)
        with open_replay(replay_of(path)) as file, reading(path) as db:
            replaying.replay_tasks(db, path, file, workers=workers)
            found.append(replaying.compared(db, file))
            file.end()
    assert found[0] == found[1]
    assert found[0].differing_tasks == 2


async def findings(path: Path) -> int:
    async with stored.reading(path) as engine:
        return (await audit(engine)).found


async def test_beside_a_server_that_writes_no_write_is_lost_and_nothing_differs_in_the_end(path: Path) -> None:
    (key,) = await keys_in(path, ("ledger", Role.WORKER))
    plant(path, "UPDATE tasks SET created_at = created_at + 1")
    stop = asyncio.Event()
    async with Server(path) as server:
        await server.start()
        writing = [asyncio.create_task(write(server, key, stop)) for _ in range(4)]
        reports = [await replayed(path) for _ in range(3)]
        stop.set()
        answered = [version for versions in await asyncio.gather(*writing) for version in versions.items()]
        last = await replayed(path, "--verify")
        assert await server.stop() == 0
    assert [code for code, _ in reports] == [0, 0, 0], reports
    assert reports[0][1]["tasks"] >= 12
    assert last[0] == 0, last
    assert await findings(path) == 0
    async with stored.reading(path) as engine:
        found = await engine.page(TaskFilter(limit=100_000))
        versions = {placed.row.task_id.hex(): placed.row.version for placed in found}
    assert answered
    assert all(versions[task] >= version for task, version in answered)


async def write(server: Server, key: str, stop: asyncio.Event) -> dict[str, int]:
    """Create tasks and start them until told to stop; the versions that were answered, by task."""
    wire = server.wire()
    answered: dict[str, int] = {}
    try:
        while not stop.is_set():
            body = {"account": "acme", "contract": "bytespike", "model": "wan-2.6", "input": {"prompt": "a boat"}}
            task = await told(wire, key, "/ledger/v1/tasks", body)
            started = await told(wire, key, f"/ledger/v1/tasks/{task['id']}/events", {"type": "started"})
            answered[str(task["id"]).replace("-", "")] = started["version"]
    finally:
        await wire.close()
    return answered


async def told(wire: Any, key: str, path: str, body: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401 - a connection
    content = msgspec.json.encode(body)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Length: {len(content)}\r\n\r\n"
    reply = await wire.send(head.encode() + content, method="POST")
    assert reply.status in {200, 201}, reply
    found: dict[str, Any] = reply.json()
    return found


async def replayed(path: Path, *options: str) -> tuple[int, dict[str, Any]]:
    """The exit code of the verb, and the last line but one of those that it prints, or the last when verifying."""
    command = ["-m", "scripts.replay", "--store", f"sqlite:{path}", "--json", *options]
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=subprocess.PIPE, cwd=ROOT)
    out, _ = await process.communicate()
    lines = [msgspec.json.decode(line) for line in out.splitlines()]
    found = [line for line in lines if "took_ms" in line or "differing_tasks" in line]
    assert process.returncode is not None
    return process.returncode, found[-1]


SECRET = "a lighthouse nobody has seen"


def test_what_a_replay_keeps_of_a_task_is_erased_with_the_task(path: Path) -> None:
    task = ident(900)
    asyncio.run(made(path, task))
    plant(path, "UPDATE tasks SET created_at = 1 WHERE task = ?", task)
    assert run(app, ["replay", "--projection", "tasks", "--store", f"sqlite:{path}"]) == 0
    side = replay_of(path)
    with closing(sqlite3.connect(side)) as db:
        assert db.execute("SELECT count(*) FROM kept").fetchone() == (1,)
    assert SECRET.encode() in path.read_bytes()
    assert SECRET.encode() not in side.read_bytes(), "content lies in the side file in the open"

    asyncio.run(deleted(path, task))
    assert SECRET.encode() not in path.read_bytes()
    assert run(app, ["replay", "--back", "--projection", "tasks", "--store", f"sqlite:{path}"]) == 0
    assert SECRET.encode() not in path.read_bytes()
    assert asyncio.run(findings(path)) == 0


def test_content_that_outlived_its_deletion_is_replaced_and_kept_nowhere(path: Path) -> None:
    task = ident(900)
    asyncio.run(made(path, task))
    with closing(sqlite3.connect(path)) as db:
        (view,) = db.execute("SELECT view FROM tasks WHERE task = ?", (task,)).fetchone()
    asyncio.run(deleted(path, task))
    plant(path, "UPDATE tasks SET view = ? WHERE task = ?", view, task)
    assert SECRET.encode() in path.read_bytes()
    assert run(app, ["replay", "--projection", "tasks", "--store", f"sqlite:{path}"]) == 0
    for file in path.parent.glob(f"{path.name}*"):
        assert SECRET.encode() not in file.read_bytes(), file.name
    assert asyncio.run(findings(path)) == 0


async def made(path: Path, task: TaskId) -> None:
    async with stored.serving(path) as ledger:
        await ledger.handle(create(task, input={"prompt": SECRET}))
        await ledger.handle(complete(task))


async def deleted(path: Path, task: TaskId) -> None:
    async with stored.serving(path) as ledger:
        await ledger.handle(delete(task))


def test_a_file_that_holds_something_else_is_left_alone(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(sqlite3.connect(replay_of(path))) as db:
        db.execute("CREATE TABLE mine (x)")
    before = replay_of(path).read_bytes()
    assert run(app, ["replay", "--projection", "tasks", "--store", f"sqlite:{path}"]) == 3
    assert "does not hold a replay" in capsys.readouterr().err
    assert replay_of(path).read_bytes() == before
