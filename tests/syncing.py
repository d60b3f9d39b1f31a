"""A service that tells what it answered, for a tracer to watch what it asked of the disk before.

``python -m tests.syncing LEDGER SYNCHRONOUS COUNT`` serves LEDGER with that ``PRAGMA synchronous`` and creates COUNT
tasks by HTTP, each by a key of its own that is sent again while the answer is 503; it prints the key when it is 201.
It ends at the first answer that is neither, or after `TRIES_MAX` of 503, with what `/readyz` and a read say then.
"""

import asyncio
import os
import sys
import traceback
from pathlib import Path

from ledger import sqlite_file
from ledger.sqlite import open_to_serve
from tests.serving import ACCOUNT, MODELS, Service, serving

TRIES_MAX = 3


def main() -> None:
    path, synchronous, count = sys.argv[1:]
    wanted = f"PRAGMA synchronous = {synchronous}"
    sqlite_file.SETTINGS = tuple(wanted if "synchronous" in one else one for one in sqlite_file.SETTINGS)
    try:
        asyncio.run(_serve(Path(path), int(count)))
    except Exception:  # noqa: BLE001 - whatever it is
        traceback.print_exc()
        os._exit(1)  # an engine that was left open would keep the process from ending


async def _serve(path: Path, count: int) -> None:
    async with serving(await open_to_serve(path)) as service:
        task = (await service.create(input={"number": -1}))["id"]
        _say("ready")
        for number in range(count):
            if not await _created(service, number):
                ready = await service.ask("GET", "/readyz")
                read = await service.native("GET", f"/tasks/{task}")
                _say(f"gave-up {ready.status} {ready.json()['status']} {read.status}")
                return


async def _created(service: Service, number: int) -> bool:
    body = {"account": ACCOUNT, "contract": "lemondata", "model": MODELS["lemondata"]}
    for _ in range(TRIES_MAX):
        reply = await service.native("POST", "/tasks", body, Idempotency_Key=f"key-{number}")
        if reply.status in {200, 201}:
            _say(f"key-{number}")
            return True
        assert reply.status == 503, reply
        assert reply.headers["retry-after"] == "2"
    return False


def _say(what: str) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
