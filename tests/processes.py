"""The real server: ``task-ledger serve`` in a process of its own, over one file, killed and started again."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Self

from ledger.keyring import Keyring
from ledger.keys import Role
from ledger.sqlite import open_beside
from tests.builders import ACCOUNT, CREATED_US
from tests.wire import Wire

ROOT = Path(__file__).parent.parent
READY = "listening on http://"


class Server:
    """The server over *path*: at most one process at a time."""

    def __init__(self, path: Path, *options: str, log: Path | None = None) -> None:
        self.path = path
        self.program: tuple[str, ...] = ("scripts.serve",)
        """The module, and what it is told before all else."""
        self.port = 0
        self.stderr: list[str] = []
        self._options = options
        self._log = log or path.with_suffix(".log")
        self._process: Process | None = None
        self._listening: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Whatever became of the test, no process is left."""
        if self._process is not None:
            await _kill(self._process)

    async def start(self) -> None:
        """Returns when it is ready."""
        assert self._process is None
        self._process = await serve(self.path, *self._options, stdout=self._log, program=self.program)
        self.port = await self._ready(self._process)
        self._listening = asyncio.create_task(self._listen(self._process))

    async def kill(self) -> None:
        """As if the power were cut, but for the disk."""
        assert await self._end(signal.SIGKILL) == -signal.SIGKILL

    async def died(self) -> None:
        """Returns when it has killed itself."""
        assert self._process is not None
        assert self._listening is not None
        async with asyncio.timeout(30):
            await self._listening
            exit_code = await self._process.wait()
        self._process = None
        assert exit_code == -signal.SIGKILL

    async def stop(self) -> int:
        """Ask it to end; its exit code."""
        return await self._end(signal.SIGTERM)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def wire(self) -> Wire:
        return Wire("127.0.0.1", self.port)

    def logged(self) -> str:
        """What it has said on stdout and stderr, in all its lives."""
        return self._log.read_text() + "".join(self.stderr)

    async def _end(self, number: int) -> int:
        assert self._process is not None
        assert self._listening is not None
        os.kill(self._process.pid, number)
        await self._listening
        exit_code, self._process = await self._process.wait(), None
        return exit_code

    async def _ready(self, process: Process) -> int:
        assert process.stderr is not None
        async for line in process.stderr:
            self.stderr.append(line.decode())
            if line.startswith(READY.encode()):
                return int(line.rpartition(b":")[2])
        raise AssertionError(f"it ended before it was ready: {self.stderr}")

    async def _listen(self, process: Process) -> None:
        assert process.stderr is not None
        async for line in process.stderr:
            self.stderr.append(line.decode())


async def serve(path: Path, *options: str, stdout: Path, program: tuple[str, ...] = ("scripts.serve",)) -> Process:
    """The process; its log goes to the end of the file *stdout*."""
    command = (sys.executable, "-m", *program, "--store", f"sqlite:{path}", "--port", "0", *options)
    with stdout.open("ab") as log:
        return await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=log, stderr=PIPE)


async def ended(process: Process) -> tuple[int, list[str]]:
    """The exit code of a process that ends by itself, and the lines on its stderr."""
    try:
        async with asyncio.timeout(30):
            _, said = await process.communicate()
    finally:
        await _kill(process)
    assert process.returncode is not None
    return process.returncode, said.decode().splitlines()


async def _kill(process: Process) -> None:
    if process.returncode is None:
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()


async def keys_in(path: Path, *wanted: tuple[str, Role]) -> list[str]:
    """New keys of `ACCOUNT` in the file, which is made if it is missing."""
    engine = await open_beside(path)
    try:
        keyring = Keyring(engine)
        issued = [
            await keyring.issue(account=ACCOUNT, contract=contract, role=role, by="test", at_us=CREATED_US)
            for contract, role in wanted
        ]
    finally:
        await engine.close()
    return [new.key for new in issued]
