"""R-10: wall clocks that jump. Order and versions never rest on them, and recorded time never runs backwards."""

from typing import Any

import pytest

from ledger.engine import Engine
from ledger.times import US_PER_SECOND
from tests.http import query
from tests.invariants import common_invariant
from tests.serving import VENDORS, Service, serving, spelled

DAY_US = 86_400 * US_PER_SECOND
JUMPS = {
    "a day back": [-DAY_US],
    "a year ahead": [365 * DAY_US],
    "frozen": [0],
    "an hour back and forth, as with daylight saving time": [3600 * US_PER_SECOND, -3600 * US_PER_SECOND],
    "a leap second repeated": [-US_PER_SECOND],
    "a microsecond back at each step": [-1],
}


@pytest.mark.parametrize("jump", JUMPS)
async def test_r10_however_the_clock_jumps_a_task_s_life_is_in_order(engine: Engine, jump: str) -> None:
    async with serving(engine) as service:
        for vendor in VENDORS:
            await life(service, vendor, JUMPS[jump])
        histories = await common_invariant(engine)
        for task, rows in histories.items():
            times = [row.entry.recorded_at_us for row in rows]
            assert times == sorted(times), task
            assert [row.version for row in rows] == list(range(1, len(rows) + 1))
        log = await engine.after(0, 10_000)
        recorded = [row.entry.recorded_at_us for row in log]
        assert recorded == sorted(recorded), "along the whole log as well"


async def life(service: Service, vendor: str, jumps: list[int]) -> None:
    """Created, started, progressed and completed, with a jump before each of them."""
    task = (await service.create(vendor))["id"]
    shown = [await service.task(task)]
    reports: list[tuple[str, dict[str, Any]]] = [
        ("started", {}),
        ("progressed", {"percent": 40}),
        ("completed", {"output": {"assets": []}}),
    ]
    for number, (kind, fields) in enumerate(reports):
        service.clock.now_us += jumps[number % len(jumps)]
        shown.append(await service.reported(task, kind, **fields))
    final = shown[-1]
    assert final["status"] == "completed"
    assert final["created_at"] <= final["started_at"] <= final["finished_at"]
    assert [one["version"] for one in shown] == sorted(one["version"] for one in shown)
    for field in ("created_at", "started_at"):
        known = [one[field] for one in shown if one[field] is not None]
        assert len(set(known)) == 1, "what was told once is not told otherwise later"


async def test_r10_a_key_opens_however_far_the_clock_jumps(engine: Engine) -> None:
    async with serving(engine) as service:
        task = spelled((await service.create("bytespike"))["id"])
        for jump_us in (-DAY_US, 365 * DAY_US, -365 * DAY_US):
            service.clock.now_us += jump_us
            assert (await service.client("bytespike", query("bytespike", task))).status == 200


async def test_r10_a_revoked_key_stays_dead_when_the_clock_is_set_back(engine: Engine) -> None:
    async with serving(engine) as service:
        issued = (await service.native("POST", "/keys", {"account": "acme", "contract": "ledger"})).json()
        assert (await service.native("DELETE", f"/keys/{issued['key_id']}")).status == 200
        assert (await service.native("GET", "/tasks", key=issued["key"])).status == 401
        service.clock.now_us -= DAY_US
        told = await service.native("GET", "/tasks", key=issued["key"])
        assert told.status == 401


async def test_r10_an_idempotency_key_outlives_a_clock_that_is_set_back(engine: Engine) -> None:
    async with serving(engine) as service:
        body = {"account": "acme", "contract": "chunkr", "model": "chunkr-parse"}
        first = await service.native("POST", "/tasks", body, Idempotency_Key="once")
        service.clock.now_us -= DAY_US
        again = await service.native("POST", "/tasks", body, Idempotency_Key="once")
        assert (first.status, again.status) == (201, 200)
        assert again.json()["id"] == first.json()["id"]
