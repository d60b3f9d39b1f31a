"""Nothing is left behind: no thread by an opening that nobody waits for any more, and no run by a test that failed."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Protocol

import pytest

from ledger.engine import Engine
from ledger.memory import MemoryEngine
from ledger.sqlite import open_beside, open_to_serve
from projections.books.books import open_books
from projections.deadlines.deadlines import open_deadlines
from tests.processes import ROOT


class Opened(Protocol):
    async def close(self) -> None: ...


OPENINGS: dict[str, Callable[[Path, Engine], Awaitable[Opened]]] = {
    "the ledger": lambda path, _: open_to_serve(path),
    "the ledger, beside": lambda path, _: open_beside(path),
    "the books": open_books,
    "the deadlines": open_deadlines,
}


@pytest.fixture
async def log() -> AsyncIterator[Engine]:
    engine = MemoryEngine()
    yield engine
    await engine.close()


def threads() -> set[threading.Thread]:
    return {one for one in threading.enumerate() if "_connection_worker_thread" in one.name}


@pytest.mark.parametrize("name", OPENINGS)
async def test_an_opening_that_is_cancelled_at_any_moment_leaves_no_thread_and_no_lock(
    tmp_path: Path, log: Engine, name: str
) -> None:
    before = threads()
    path, was_done = tmp_path / "file", False
    for moment in range(10_000):
        opening = asyncio.ensure_future(OPENINGS[name](path, log))
        for _ in range(moment):
            if opening.done():
                break
            await asyncio.sleep(0.0005)
        was_done = opening.done()
        opening.cancel()
        try:
            await (await opening).close()
        except asyncio.CancelledError:
            assert opening.cancelled()
        if was_done:
            break
    assert was_done
    for one in threads() - before:
        await asyncio.to_thread(one.join, 10)
    assert threads() - before == set()


def test_a_run_in_which_a_test_leaves_a_thread_behind_ends_and_names_it(tmp_path: Path) -> None:
    test = tmp_path / "test_leaves.py"
    test.write_text(
        "import threading\n\n\ndef test_leaves():\n"
        "    threading.Thread(target=threading.Event().wait, name='forgotten').start()\n    assert False\n"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "tests.conftest",
        "-c",
        str(ROOT / "pyproject.toml"),
        str(test),
    ]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert ran.returncode == 1
    assert "1 failed" in ran.stdout
    assert "left behind by a test: forgotten" in ran.stderr
