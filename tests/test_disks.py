"""Disks that fail: what is answered is on them, what they did not take is refused, and nothing is taken on trust."""

import asyncio
import re
import resource
import shutil
import sqlite3
import subprocess
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from ledger.errors import StorageError
from ledger.keys import Role
from ledger.sqlite import open_to_serve
from tests import stored
from tests.builders import append, ident, whole_log
from tests.invariants import common_invariant
from tests.processes import ROOT, Server, keys_in
from tests.serving import ACCOUNT
from tests.wire import Reply, request

STRACE = shutil.which("strace")
CALLS = "pwrite64,fdatasync,fsync,ftruncate,sendto,write,writev"


def _can_trace() -> bool:
    """Whether a process may be traced here."""
    return STRACE is not None and subprocess.run([STRACE, "-o", "/dev/null", "true"], check=False).returncode == 0


traced = pytest.mark.skipif(not _can_trace(), reason="no strace here, or it may not trace")


class Traced(NamedTuple):
    """What a process said, and its calls, one a line, oldest first."""

    said: list[str]
    calls: list[str]
    exit_code: int | None
    complaint: str


async def run_traced(path: Path, *faults: str, synchronous: str = "FULL", count: int = 4) -> Traced:
    """``tests.syncing`` over *path*, with *faults* as strace injects them."""
    assert STRACE is not None
    trace = path.with_suffix(".trace")
    inject = [option for fault in faults for option in ("-e", f"inject={fault}")]
    watch = (STRACE, "-f", "-y", "-s", "24", "-o", str(trace), "-e", f"trace={CALLS}", *inject)
    command = (*watch, sys.executable, "-m", "tests.syncing", str(path), synchronous, str(count))
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=PIPE, stderr=PIPE)
    try:
        async with asyncio.timeout(30):
            said, complained = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    calls = whole_calls(trace.read_text(errors="replace").splitlines())
    return Traced(said.decode().split("\n")[:-1], calls, process.returncode, complained.decode())


def whole_calls(lines: Sequence[str]) -> list[str]:
    """The calls in a trace, each where it ended: one that others came between is told in two halves."""
    begun: dict[str, str] = {}
    calls: list[str] = []
    for line in lines:
        thread, _, told = line.partition(" ")
        told = told.strip()
        if told.endswith("<unfinished ...>"):
            begun[thread] = told.removesuffix("<unfinished ...>").rstrip()
        elif told.startswith("<... "):
            calls.append(f"{begun.pop(thread)}{told.partition('resumed>')[2]}")
        else:
            calls.append(told)
    return calls


def test_a_call_in_two_halves_is_one() -> None:
    told = ["1 fsync(3</a> <unfinished ...>", '2 write(1</b>, "x", 1) = 1', "1 <... fsync resumed>) = 0"]
    assert whole_calls(told) == ['write(1</b>, "x", 1) = 1', "fsync(3</a>) = 0"]


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.db"
    await (await open_to_serve(path)).close()
    return path


async def taken(path: Path) -> set[str]:
    """The idempotency keys of the tasks in the log, which has been found whole."""
    async with stored.reading(path) as engine:
        await common_invariant(engine)
        claims = await engine.claims_after(None, 1000)
        return {claim.key for claim in claims}


#


def unsynced_answers(calls: list[str]) -> int:
    """How many answers of 201 went out while something that was written to the log was not known to be on the disk."""
    dirty, found = False, 0
    for call in calls:
        if call.startswith("pwrite64(") and "ledger.db-wal>" in call:
            dirty = True
        elif re.search(r"(fdatasync|fsync)\(\d+<.*ledger\.db-wal>\) += 0", call):
            dirty = False
        elif "HTTP/1.1 201" in call:
            found += dirty
    return found


@traced
async def test_r04_an_answer_goes_out_when_what_it_rests_on_has_been_synced(path: Path) -> None:
    done = await run_traced(path)
    assert done.said[1:] == ["key-0", "key-1", "key-2", "key-3"]
    assert sum("HTTP/1.1 201" in call for call in done.calls) >= 5
    assert unsynced_answers(done.calls) == 0


@traced
async def test_r04_with_synchronous_normal_the_same_test_fails(path: Path) -> None:
    done = await run_traced(path, synchronous="NORMAL")
    assert done.said[1:] == ["key-0", "key-1", "key-2", "key-3"]
    assert unsynced_answers(done.calls) >= 4


#

SYNCS = ("fdatasync", "fsync")


@traced
@pytest.mark.parametrize("number", [6, 7])
async def test_r06_when_the_sync_of_a_commit_fails_it_is_refused_and_the_log_is_brought_to_safety_before_the_next(
    path: Path, number: int
) -> None:
    """The n-th sync of each thread that writes, and a reopened connection has a new one. The first are of the keys."""
    done = await run_traced(path, f"fdatasync:error=EIO:when={number}")
    failed = _failed_syncs(done)
    assert any("ledger.db-wal>" in done.calls[at] for at in failed)
    assert all(trusted_again(done.calls, at) for at in failed)
    answered = {one for one in done.said if one.startswith("key-")}
    assert await taken(path) >= answered == {f"key-{n}" for n in range(4)} or "ready" not in done.said


@traced
@pytest.mark.soak
@pytest.mark.timeout(600)
async def test_r06_whichever_sync_fails_nothing_that_was_answered_is_lost_and_it_goes_on(
    path: Path, tmp_path: Path
) -> None:
    """The n-th sync of each thread fails, for n = 1, 2, ... until none is left to fail."""
    met = 0
    for number in range(1, 30):
        copy = tmp_path / f"{number}" / "ledger.db"
        copy.parent.mkdir()
        shutil.copyfile(path, copy)
        done = await run_traced(copy, f"fdatasync:error=EIO:when={number}")
        answered = [one for one in done.said if one.startswith("key-")]
        failed = _failed_syncs(done)
        if failed:
            met += 1
            assert done.exit_code == 0 or "ready" not in done.said, done  # it did not even start
            assert all(trusted_again(done.calls, at) for at in failed)
        assert answered == [f"key-{n}" for n in range(4)] or "ready" not in done.said, (number, done)
        assert await taken(copy) >= set(answered)
        if not failed:
            break
    assert met > 5
    assert not failed, "it came to an end"


def _failed_syncs(done: Traced) -> list[int]:
    return [at for at, call in enumerate(done.calls) if "EIO" in call and "sync" in call]


def trusted_again(calls: list[str], failed: int) -> bool:
    """Whether before the next 201 after a failed sync of the log the database was synced and the log cut to nothing."""
    if "ledger.db-wal>" not in calls[failed]:
        return True
    after = calls[failed + 1 :]
    answers = [at for at, call in enumerate(after) if "HTTP/1.1 201" in call]
    between = after[: answers[0]] if answers else after
    synced = any(re.search(r"fdatasync\(\d+<.*ledger\.db>\) += 0", call) for call in between)
    cut = any(re.search(r"ftruncate\(\d+<.*ledger\.db-wal>, 0\) += 0", call) for call in between)
    return (synced and cut) or not answers


async def test_r06_until_what_was_committed_is_safe_nothing_more_is_written_and_reads_are_served(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await open_to_serve(path)
    try:
        assert await engine.commit([append(1)]) == [1]
        engine._health.met(io_error(), "a sync failed")
        assert engine._wiper is not None
        with monkeypatch.context() as patched:
            patched.setattr(engine._wiper, "cut", unsuccessful)
            for _ in range(3):
                with pytest.raises(StorageError, match="cannot be brought to safety yet"):
                    await engine.commit([append(2)])
                assert (await engine.tasks([ident(1)])).keys() == {ident(1)}
        assert await engine.commit([append(2)]) == [2]
        assert len(await whole_log(engine)) == 2
    finally:
        await engine.close()


async def unsuccessful() -> bool:
    return False


def io_error() -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
    return error


# in the real server

CREATE = {"account": ACCOUNT, "contract": "chunkr", "model": "chunkr-parse", "input": {"text": "x" * 100_000}}


class Asker:
    """Asks the real server as its worker."""

    def __init__(self, server: Server, key: str) -> None:
        self._server, self._key, self.tasks = server, key, list[str]()

    async def create(self) -> Reply:
        reply = await self._send("POST", "/ledger/v1/tasks", msgspec.json.encode(CREATE))
        if reply.status == 201:
            self.tasks.append(reply.json()["id"])
        return reply

    async def read(self, task: str) -> int:
        return (await self._send("GET", f"/ledger/v1/tasks/{task}")).status

    async def ready(self) -> str:
        reply = await self._send("GET", "/readyz")
        assert reply.status == 200
        return str(reply.json()["status"])

    async def _send(self, method: str, path: str, body: bytes = b"") -> Reply:
        headers = [("Authorization", f"Bearer {self._key}")]
        async with self._server.wire() as wire:
            return await wire.send(request(method, path, headers=headers, body=body), method=method)


async def refused_served_and_taken_again(asker: Asker, *, creates: int) -> AsyncIterator[None]:
    """What a full disk must look like from outside; at its `yield` there must be space again."""
    assert (await asker.create()).status == 201
    assert await asker.ready() == "ready"
    replies = [await asker.create() for _ in range(creates)]
    assert {reply.status for reply in replies} == {201, 503}
    for reply in replies[-3:]:
        assert (reply.status, reply.json()["code"], reply.headers["retry-after"]) == (503, "store_unavailable", "2")
    assert await asker.ready() == "degraded"
    assert {await asker.read(task) for task in asker.tasks} == {200}
    yield
    assert (await asker.create()).status == 201
    assert await asker.ready() == "ready"
    assert {await asker.read(task) for task in asker.tasks} == {200}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = shutil.which("mount")
    options = ("-t", "tmpfs", "-o", "size=2m", "none", str(folder))
    if mount is None or subprocess.run([mount, *options], capture_output=True, check=False).returncode:
        pytest.skip("no file system may be mounted here")
    yield folder
    subprocess.run([shutil.which("umount") or "umount", str(folder)], check=True)


async def test_r05_on_a_disk_that_is_really_full_writes_are_refused_reads_are_served_and_space_is_all_it_takes(
    small_disk: Path, tmp_path: Path
) -> None:
    path = small_disk / "ledger.db"
    (key,) = await keys_in(path, ("ledger", Role.WORKER))
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(600_000))
    async with Server(path, log=tmp_path / "server.log") as server:
        await server.start()
        asker = Asker(server, key)
        async for _ in refused_served_and_taken_again(asker, creates=30):
            ballast.unlink()
        assert await server.stop() == 0
    async with stored.reading(path) as engine:
        assert len(await common_invariant(engine)) == len(asker.tasks)


async def test_r06_writes_that_fail_for_another_reason_than_space_are_refused_and_taken_again_when_they_succeed(
    path: Path,
) -> None:
    """Files may not grow any more: EFBIG, which SQLite takes for an I/O error."""
    (key,) = await keys_in(path, ("ledger", Role.WORKER))
    async with Server(path) as server:
        await server.start()
        asker, (_, hard) = Asker(server, key), resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (600_000, hard))
        async for _ in refused_served_and_taken_again(asker, creates=30):
            resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (hard, hard))
        assert await server.stop() == 0
        assert "disk I/O error" in server.logged()
    async with stored.reading(path) as engine:
        assert len(await common_invariant(engine)) == len(asker.tasks)
