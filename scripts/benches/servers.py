"""The two sides of a round, each a process of its own on the loopback interface: the real ``serve`` and the yardstick.

Our log goes where stdout goes, here to /dev/null: each line is made, none is kept.
"""

import asyncio
import itertools
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from ledger.keyring import Keyring
from ledger.keys import Role
from scripts import stores
from scripts.benches import yardstick
from scripts.benches.load import Address, LoadError, Traffic, drive, request

ACCOUNT = "bench"
STOP_SECONDS = 60
UNLIMITED = "[limits]\nread = 60_000_000\ncreate = 60_000_000\ncancel = 60_000_000\n"
SETUP_SECONDS_MAX = 600.0
MODELS = {"lemondata": "seedance-2.0", "bytespike": "wan-2.6"}
_LISTENING = re.compile(r"listening on http://([^:]+):(\d+)")
_PUBLIC_ID = re.compile(rb'"public_id":"([^"]+)"')


class Ours(NamedTuple):
    """Our service, on an empty store, and the keys to it."""

    address: Address
    worker: str
    client: str
    pid: int

    def create(self, contract: str, count: int) -> list[str]:
        """The ids of *count* new tasks, as *contract* spells them."""
        asks = itertools.islice(creates(self, contract), count)
        (load,) = drive(self.address, Traffic(asks, expects=201, keep_bodies=True), seconds=SETUP_SECONDS_MAX)
        found = [_PUBLIC_ID.search(body) for body in load.bodies]
        return [match[1].decode() for match in found if match is not None]

    def length_of(self, asked: bytes, *, expects: int = 200) -> int:
        """The bytes of the answer's body."""
        (load,) = drive(self.address, Traffic([asked], connections=1, expects=expects, keep_bodies=True), seconds=1.0)
        return len(load.bodies[0])


def creates(server: Ours, contract: str, *, path: str = "/ledger/v1/tasks") -> Iterator[bytes]:
    """Creates without an end, each with an idempotency key of its own."""
    body = msgspec.json.encode(
        {
            "account": ACCOUNT,
            "contract": contract,
            "model": MODELS[contract],
            "input": {"prompt": "A paper boat sails down a gutter in the rain", "duration": 5, "resolution": "720p"},
            "metadata": {"order": "4711"},
        }
    )
    mark = "~" * 12
    asked = request("POST", path, key=server.worker, body=body, headers=f"Idempotency-Key: {mark}\r\n")
    before, after = asked.split(mark.encode())
    return (before + b"%012d" % number + after for number in _numbers)


_numbers = itertools.count()


@contextmanager
def ours(tables: str = "", *, path: Path | None = None, **settings: int) -> Iterator[Ours]:
    """The real service with these settings and *tables* of TOML over *path*, or a new store.

    A worker's key, and a client's for each contract.
    """
    with tempfile.TemporaryDirectory(prefix="task-ledger-bench-") as folder:
        config = Path(folder, "config.toml")
        told = "".join(f"{name} = {value}\n" for name, value in settings.items())
        config.write_text(f"{told}{UNLIMITED}{tables}", encoding="utf-8")
        store = f"sqlite:{path or Path(folder, 'ledger.db')}"
        arguments = ["-m", "scripts.serve", "--store", store, "--port", "0", "--config", str(config)]
        with _process(arguments) as (address, pid):
            worker, client = asyncio.run(_keys(store))
            yield Ours(address, worker, client, pid)


@contextmanager
def started(path: Path) -> Iterator[Address]:
    """The real service over *path*, from the moment at which it listens."""
    with _process(["-m", "scripts.serve", "--store", f"sqlite:{path}", "--port", "0"]) as (address, _):
        yield address


@contextmanager
def bare(length_bytes: int) -> Iterator[Address]:
    """The yardstick, answering with bodies of this length."""
    with _process(["-m", yardstick.__name__, str(length_bytes)]) as (address, _):
        yield address


async def _keys(store: str) -> tuple[str, str]:
    async with stores.beside(store, make=False) as engine:
        keyring = Keyring(engine, pepper=stores.pepper())
        worker = await keyring.issue(account=ACCOUNT, contract="ledger", role=Role.WORKER, by="bench", at_us=_now_us())
        client = await keyring.issue(
            account=ACCOUNT, contract="lemondata", role=Role.CLIENT, by="bench", at_us=_now_us()
        )
        return worker.key, client.key


def _now_us() -> int:
    return time.time_ns() // 1000


@contextmanager
def _process(arguments: Sequence[str]) -> Iterator[tuple[Address, int]]:
    """A Python process that tells on stderr where it listens, and its id."""
    process = subprocess.Popen(  # noqa: S603 - our own modules
        [sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        told = _LISTENING.search(line)
        if told is None:
            raise LoadError(f"{' '.join(arguments)} does not start: {line.strip()}")
        yield (told[1], int(told[2])), process.pid
    finally:
        process.terminate()
        try:
            process.communicate(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
