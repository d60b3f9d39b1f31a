"""More tasks under way than the account's tier allows, over HTTP: how each contract says so, and when there is room.

Source: ByteSpike docs, the tiers' concurrency (Free 5, Pro 25, Max 100, Enterprise custom) and the 429
``concurrency_limit``, of type ``rate_limit_error``. The other vendors are silent.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from api.limits import Limits, Tier
from api.settings import Settings, read
from ledger.errors import TooManyTasks
from ledger.keys import Role
from ledger.memory import MemoryEngine
from ledger.sqlite import open_to_serve
from tests.http import Call
from tests.invariants import common_invariant
from tests.processes import Server, keys_in
from tests.samples import SAMPLES
from tests.serving import ACCOUNT, STRANGER, VENDORS, Service, serving
from tests.wire import Reply, request
from tests.worded import code_of

CREATES = {
    "lemondata": "/v1/videos/generations",
    "bytespike": "/v1/tasks/submit",
    "chunkr": "/api/v1/task/parse",
    "beatra": "/v1/music/text-to-music",
}
WORDS = {
    "lemondata": "rate_limit_exceeded",
    "bytespike": "concurrency_limit",
    "chunkr": "Usage limit exceeded",
    "beatra": "rate_limited",
    "ledger": "concurrency_limit",
}
TIERS = {"free": Tier(tasks_max=5), "pro": Tier(tasks_max=25), "max": Tier(tasks_max=100)}
every_contract = pytest.mark.parametrize("contract", VENDORS)


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    """Where `ACCOUNT` may have five tasks under way, and others any number."""
    limits = Limits(Tier(), {ACCOUNT: TIERS["free"]})
    async with serving(await open_to_serve(tmp_path / "ledger.db"), limits=limits) as running:
        yield running
        await common_invariant(running.ledger.engine)


async def ordered(service: Service, contract: str, *, account: str = ACCOUNT, **fields: Any) -> Reply:  # noqa: ANN401
    """The answer to a client's create, with an idempotency key if *fields* have one."""
    key = fields.pop("key", None)
    route = f"/{contract}{CREATES[contract]}"
    body = {name: value for name, value in SAMPLES[f"POST {route}"][0].items() if name != "out_task_id"} | fields
    headers = [] if key is None else [("Idempotency-Key", key)]
    return await service.ask(
        "POST", route, key=await service.key(contract, account=account), json=body, headers=headers
    )


def is_new(reply: Reply) -> bool:
    return reply.status in {200, 202}


async def filled(service: Service, count: int = 5) -> list[str]:
    """The ids of so many tasks of `ACCOUNT`, of all contracts in turn."""
    return [(await service.create(VENDORS[number % len(VENDORS)]))["id"] for number in range(count)]


async def live(service: Service, account: str = ACCOUNT) -> tuple[int, int | None]:
    shown = (await service.native("GET", f"/accounts/{account}", key=service.worker)).json()
    return shown["live_tasks"], shown["tasks_max"]


# In each contract's words


@every_contract
async def test_one_more_than_the_tier_allows_is_refused_until_one_has_ended(service: Service, contract: str) -> None:
    ids = await filled(service)
    await service.key(contract)
    position = await service.position()
    reply = await ordered(service, contract)
    assert (reply.status, code_of(contract, reply)) == (429, WORDS[contract])
    assert reply.headers["retry-after"] == str(TooManyTasks.retry_after_seconds)
    assert await service.position() == position
    assert service.logged()[-1]["refusal"] == "TooManyTasks"
    await service.reported(ids[0], "failed", code="broke")
    assert is_new(await ordered(service, contract))
    assert (await ordered(service, contract)).status == 429


async def test_bytespikes_answer_is_the_documented_one(service: Service) -> None:
    await filled(service)
    reply = await ordered(service, "bytespike")
    error = reply.json()["error"]
    assert (reply.status, error["code"], error["type"]) == (429, "concurrency_limit", "rate_limit_error")


async def test_the_native_problem_tells_the_figures_and_where_they_stood(service: Service) -> None:
    await filled(service)
    body = {"account": ACCOUNT, "contract": "bytespike", "model": "wan-2.6"}
    reply = await service.native("POST", "/tasks", body, key=service.worker)
    assert (reply.status, code_of("ledger", reply)) == (429, "concurrency_limit")
    told = {name: reply.json()[name] for name in ("live_tasks", "tasks_max", "position")}
    assert told == {"live_tasks": 5, "tasks_max": 5, "position": await service.position()}
    assert reply.headers["retry-after"] == str(TooManyTasks.retry_after_seconds)
    assert (await service.create(account=STRANGER))["status"] == "queued"


async def test_a_chunkr_update_is_refused_as_a_create_is_and_leaves_the_task_as_it_was(service: Service) -> None:
    task = (await service.create("chunkr"))["id"]
    await service.reported(task, "completed", output={"chunks": []})
    ids = await filled(service)
    update = Call("PATCH", f"/api/v1/task/{task}/parse", msgspec.json.encode({"ocr_strategy": "Auto"}))
    reply = await service.client("chunkr", update)
    assert (reply.status, code_of("chunkr", reply)) == (429, WORDS["chunkr"])
    assert (await service.task(task))["status"] == "completed"
    await service.reported(ids[0], "completed", output={"assets": []})
    assert (await service.client("chunkr", update)).json()["status"] == "Starting"
    assert await live(service) == (5, 5)
    assert (await service.client("chunkr", Call("GET", f"/api/v1/task/{task}/cancel"))).status == 200
    assert await live(service) == (4, 5)


@pytest.mark.parametrize(
    ("contract", "fields"),
    [
        ("lemondata", {"key": "k"}),
        ("bytespike", {"out_task_id": "k"}),
        ("chunkr", {"key": "k"}),
        ("beatra", {"key": "k"}),
    ],
)
async def test_a_create_sent_again_has_its_first_answer_however_many_are_under_way(
    service: Service, contract: str, fields: dict[str, Any]
) -> None:
    first = await ordered(service, contract, **fields)
    await filled(service, 4)
    assert (await ordered(service, contract)).status == 429
    again = await ordered(service, contract, **fields)
    assert (again.status, again.body) == (first.status, first.body)
    assert await live(service) == (5, 5)


# Exactly so many


async def test_of_sixty_four_submits_at_once_on_a_free_tier_five_are_taken(service: Service) -> None:
    await service.key("bytespike")
    replies = await asyncio.gather(*(ordered(service, "bytespike") for _ in range(64)))
    assert Counter(reply.status for reply in replies) == {200: 5, 429: 59}
    assert await live(service) == (5, 5)


async def test_all_contracts_of_an_account_share_its_places(service: Service) -> None:
    for contract in VENDORS:
        await service.key(contract)
    replies = await asyncio.gather(*(ordered(service, VENDORS[number % 4]) for number in range(64)))
    assert Counter(map(is_new, replies)) == {True: 5, False: 59}
    others = await asyncio.gather(*(ordered(service, "bytespike", account=STRANGER) for _ in range(10)))
    assert all(map(is_new, others))
    assert await live(service, STRANGER) == (10, None)


@pytest.mark.parametrize("tier", TIERS)
async def test_each_tier_has_its_own_number_of_places(tier: str) -> None:
    most = TIERS[tier].tasks_max
    async with serving(MemoryEngine(), limits=Limits(TIERS["free"], {ACCOUNT: TIERS[tier]})) as service:
        await service.key("bytespike")
        replies = await asyncio.gather(*(ordered(service, "bytespike") for _ in range(110)))
        assert sum(map(is_new, replies)) == most
        assert await live(service) == (most, most)
        assert await live(service, STRANGER) == (0, 5)


# The configuration


def test_the_cap_is_the_tiers_and_without_one_there_is_none(tmp_path: Path) -> None:
    file = tmp_path / "ledger.toml"
    file.write_text("[limits]\ntasks_max = 5\n[tiers.enterprise]\n[tiers.pro]\ntasks_max = 25\n[accounts]\n" + NAMED)
    limits = read(file).budgets()
    assert {name: limits.tasks_max(name) for name in ("acme", "globex", "else")} == {
        "acme": 25,
        "globex": None,
        "else": 5,
    }
    assert Settings().budgets().tasks_max("acme") is None


NAMED = 'acme = "pro"\nglobex = "enterprise"\n'


@pytest.mark.parametrize("text", ["0", "-1", "2147483648", "1.5", '"5"', "true"])
def test_a_cap_is_a_whole_number_of_tasks_and_at_least_one(tmp_path: Path, text: str) -> None:
    file = tmp_path / "ledger.toml"
    file.write_text(f"[tiers.free]\ntasks_max = {text}")
    with pytest.raises(ValueError, match="tasks_max"):
        read(file)


async def test_what_is_under_way_counts_after_the_server_was_killed_and_started_with_another_cap(
    tmp_path: Path,
) -> None:
    path, config = tmp_path / "ledger.db", tmp_path / "ledger.toml"
    (key,) = await keys_in(path, ("bytespike", Role.CLIENT))
    sent = request(
        "POST",
        "/v1/tasks/submit",
        headers=[("Authorization", f"Bearer {key}")],
        body=msgspec.json.encode({"model": "wan-2.6", "params": {}}),
    )

    async def taken(server: Server) -> int:
        wires = [server.wire() for _ in range(16)]
        replies = await asyncio.gather(*(wire.send(sent, method="POST") for wire in wires))
        for wire in wires:
            await wire.close()
        statuses = Counter(reply.status for reply in replies)
        assert set(statuses) <= {200, 429}
        return statuses[200]

    async with Server(path, "--config", str(config)) as server:
        counts = []
        for cap in (3, 3, 5):
            config.write_text(f"[limits]\ntasks_max = {cap}\n")
            await server.start()
            counts.append(await taken(server))
            await server.kill()
    assert counts == [3, 0, 2]
