"""beatra's calls against the real server, as a process of its own, and its keys across a restart.

The cancel is the API reference's own line; the others have the routes and fields that the documentation names.
"""

import asyncio
import shlex
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from pytest_aiohttp import AiohttpClient

from api.contracts import CONTRACTS
from ledger.engine import Engine
from ledger.keys import Role
from ledger.sqlite import open_to_read
from tests.builders import PERSISTENT
from tests.http import DAY_SECONDS, Call, Service, compact, serve
from tests.invariants import common_invariant
from tests.processes import Server, keys_in
from tests.wire import Cut, Reply, request

IMAGE = """
curl -X POST https://api.beatra.ai/v1/images/generations \
  -H "Authorization: Bearer $BEATRA_API_KEY" \
  -H "Content-Type: application/json" \
  -H "Idempotency-Key: $KEY" \
  -d '{"model": "auto", "prompt": "A lighthouse at dusk", "quality": "standard", "aspect_ratio": "16:9", "n": 2}'
"""
EDIT = """
curl -X POST https://api.beatra.ai/v1/images/image-to-image \
  -H "Authorization: Bearer $BEATRA_API_KEY" \
  -H "Content-Type: application/json" \
  -H "Idempotency-Key: $KEY" \
  -d '{"model": "auto", "prompt": "In watercolour", "references": ["https://example.com/1.png"], "quality": "hd"}'
"""
MUSIC = """
curl -X POST https://api.beatra.ai/v1/music/text-to-music \
  -H "Authorization: Bearer $BEATRA_API_KEY" \
  -H "Content-Type: application/json" \
  -H "Idempotency-Key: $KEY" \
  -d '{"model": "suno-5.5", "prompt": "dream pop", "instrumental": true, "model_options": {"suno": {}}}'
"""
COVER = """
curl -X POST https://api.beatra.ai/v1/music/reference-audio-to-music \
  -H "Authorization: Bearer $BEATRA_API_KEY" \
  -H "Content-Type: application/json" \
  -H "Idempotency-Key: $KEY" \
  -d '{"model": "minimax-music-2.6", "prompt": "dream pop", "reference_audio": "https://example.com/1.mp3"}'
"""
GET = """
curl "https://api.beatra.ai/v1/tasks/$TASK" \
  -H "Authorization: Bearer $BEATRA_API_KEY"
"""
LIST = """
curl "https://api.beatra.ai/v1/tasks?status=queued&limit=20&expand=billing,input" \
  -H "Authorization: Bearer $BEATRA_API_KEY"
"""
CANCEL = """
curl -X POST "https://api.beatra.ai/v1/tasks/$TASK/cancel" \
  -H "Authorization: Bearer $BEATRA_API_KEY" \
  -H "X-Request-Id: string" \
  -H "Idempotency-Key: $KEY" \
  -H "Content-Type: application/json" \
  -d '{
    "reason": "string"
  }'
"""
CREATES = {
    "image": (IMAGE, "100.0000"),
    "edit": (EDIT, "320.0000"),
    "music": (MUSIC, "80.0000"),
    "cover": (COVER, "50.0000"),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
async def key(path: Path) -> str:
    (client,) = await keys_in(path, ("beatra", Role.CLIENT))
    return client


@pytest.fixture
async def server(path: Path, key: str) -> AsyncIterator[Server]:
    assert key
    async with Server(path) as real:
        await real.start()
        yield real


async def curl(server: Server, line: str, **variables: str) -> Reply:
    """What the command line sends to the server at the bare root, with the shell's variables in place."""
    for name, value in variables.items():
        line = line.replace(f"${name}", value)
    assert "$" not in line
    command, *words = shlex.split(line)
    assert command == "curl"
    method, url, headers, body = "GET", "", [], b""
    while words:
        match words.pop(0):
            case "-X":
                method = words.pop(0)
            case "-H":
                name, _, value = words.pop(0).partition(": ")
                headers.append((name, value))
            case "-d":
                body = words.pop(0).encode()
            case word:
                url = word
    parts = urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    async with server.wire() as wire:
        return await wire.send(request(method, target, headers=headers, body=body))


async def test_the_documented_calls_work_one_after_the_other(server: Server, key: str) -> None:
    tasks = []
    for name, (line, charged) in CREATES.items():
        made = await curl(server, line, BEATRA_API_KEY=key, KEY=name)
        envelope = made.json()
        assert (made.status, envelope["status"], envelope["billing"]["charged_credits"]) == (202, "queued", charged)
        again = await curl(server, line, BEATRA_API_KEY=key, KEY=name)
        assert (again.status, again.body, again.headers["idempotent-replayed"]) == (202, made.body, "true")
        read = await curl(server, GET, BEATRA_API_KEY=key, TASK=envelope["task_id"])
        assert (read.status, read.body) == (200, made.body)
        tasks.append(envelope)

    listed = await curl(server, LIST, BEATRA_API_KEY=key)
    items = listed.json()["data"]
    assert listed.status == 200
    assert [item["task_id"] for item in items] == [task["task_id"] for task in tasks[::-1]]
    assert [item["billing"] for item in items] == [task["billing"] for task in tasks[::-1]]
    assert not any("usage" in item for item in items)

    gone = await curl(server, CANCEL, BEATRA_API_KEY=key, KEY="stop", TASK=tasks[0]["task_id"])
    assert (gone.status, gone.json()["status"], gone.headers["x-request-id"]) == (202, "canceled", "string")
    assert gone.json()["billing"]["refunded_credits"] == "100.0000"
    over = await curl(server, CANCEL, BEATRA_API_KEY=key, KEY="once more", TASK=tasks[0]["task_id"])
    assert (over.status, over.body) == (200, gone.body)
    assert len((await curl(server, LIST, BEATRA_API_KEY=key)).json()["data"]) == 3
    assert await server.stop() == 0


async def test_a_documented_call_with_a_wrong_key_is_a_401(server: Server) -> None:
    refused = await curl(server, IMAGE, BEATRA_API_KEY="sk-wrong", KEY="k")
    assert refused.status == 401
    refused = await curl(server, MUSIC, BEATRA_API_KEY="", KEY="k")
    assert refused.status == 401


async def test_fifty_creates_with_one_key_are_one_task_and_one_charge_across_a_power_cut(
    server: Server, path: Path, key: str
) -> None:
    replies: list[Reply] = []
    enough = asyncio.Event()

    async def create() -> None:
        replies.append(await curl(server, IMAGE, BEATRA_API_KEY=key, KEY="order-7"))
        if len(replies) >= 5:
            enough.set()

    tries = [asyncio.create_task(create()) for _ in range(25)]
    async with asyncio.timeout(30):
        await enough.wait()
    await server.kill()
    cut = [one for one in await asyncio.gather(*tries, return_exceptions=True) if one is not None]
    assert all(isinstance(one, Cut) for one in cut)
    await server.start()
    await asyncio.gather(*(create() for _ in range(25 + len(cut))))
    assert await server.stop() == 0

    assert len(replies) == 50
    assert {(reply.status, reply.body) for reply in replies} == {(202, replies[0].body)}
    assert sum("idempotent-replayed" not in reply.headers for reply in replies) <= 1  # the first may have been cut
    assert len({reply.headers["x-request-id"] for reply in replies}) == 50
    engine: Engine = await open_to_read(path)
    try:
        (rows,) = (await common_invariant(engine)).values()
    finally:
        await engine.close()
    assert [row.entry.type for row in rows] == ["created", "charged"]


@pytest.mark.parametrize("engine", PERSISTENT)
async def test_a_key_is_kept_over_a_restart_for_24_hours_and_free_after_25(
    engine: str, tmp_path: Path, aiohttp_client: AiohttpClient
) -> None:
    call = Call("POST", "/v1/images/generations", compact({"prompt": "a lighthouse"}).encode())

    async def later(hours: int) -> Service:
        service = await serve(engine, tmp_path, aiohttp_client)
        service.clock.advance(hours * DAY_SECONDS // 24)
        return service

    service = await later(0)
    replies = await asyncio.gather(*(service.ask("beatra", call, Idempotency_Key="k") for _ in range(50)))
    assert sum("Idempotent-Replayed" in reply.headers for reply in replies) == 49
    await service._client.close()

    service = await later(23)
    again = await service.ask("beatra", call, Idempotency_Key="k")
    assert (again.status, again.body, again.headers["Idempotent-Replayed"]) == (202, replies[0].body, "true")
    await service._client.close()

    service = await later(25)
    fresh = await service.ask("beatra", call, Idempotency_Key="k")
    assert (fresh.status, "Idempotent-Replayed" in fresh.headers) == (202, False)
    first, second = (reply.json()["task_id"] for reply in (again, fresh))
    assert first != second
    for spelled in (first, second):
        task = CONTRACTS["beatra"].spelling.parse(spelled)
        assert task is not None
        assert await service.types(task) == ["created", "charged"]
