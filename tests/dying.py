"""A service that is killed in the middle of a commit, again and again, a statement later each time.

``python -m tests.dying FOLDER CONTRACT TASK KEY``, where FOLDER has a closed ledger called ``ledger.db``. For 0, 1, 2
and so on it copies the file and forks; the fork serves the copy, is asked by HTTP to cancel the task, and kills itself
at that statement of the writer's, at 0 when the commit is done and nobody has been told. The first fork that gets as
far as its answer is the last. Forks of one parent, because a new Python for each would take most of the time.
"""

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from ledger.ids import TaskId
from ledger.records import Append, Outcome
from ledger.sqlite import open_to_serve
from ledger.sqlite_engine import SqliteEngine
from tests.builders import Watched
from tests.http import cancel
from tests.serving import serving


def main() -> None:
    folder, contract, task, key = sys.argv[1:]
    for number in count():
        path = Path(folder) / f"{number}.db"
        shutil.copy(Path(folder) / "ledger.db", path)
        child = os.fork()
        if child == 0:
            asyncio.run(_serve(path, contract, TaskId(bytes.fromhex(task)), key, number=number))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{number} {os.waitstatus_to_exitcode(status)}\n")
        if status == 0:
            return


async def _serve(path: Path, contract: str, task: TaskId, key: str, *, number: int) -> None:
    engine = await open_to_serve(path)
    async with serving(DiesUntold(engine)) as service:
        if number:
            await _die_at(engine, number)
        else:
            DiesUntold.armed = True
        call = cancel(contract, task)
        reply = await service.ask(call.method, f"/{contract}{call.path}", key=key)
        assert reply.status in {200, 202}, reply


async def _die_at(engine: SqliteEngine, number: int) -> None:
    statements = count(1)

    def trace(_: str) -> None:
        if next(statements) == number:
            _die()

    assert engine._writer is not None
    await engine._writer.set_trace_callback(trace)


class DiesUntold(Watched):
    """Once it is armed, it dies when a commit is on disk, before anybody is told."""

    armed = False

    async def commit(self, batch: Sequence[Append]) -> list[Outcome]:
        outcomes = await super().commit(batch)
        if self.armed:
            _die()
        return outcomes


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
