"""ByteSpike's usage over HTTP: what has cost something, the newest first, a page at a time.

Source: ByteSpike docs (docs.bytespike.ai) for the two routes, and that they are free; the shape is ours.
"""

from typing import Any

import pytest

from ledger.cursors import cursor
from ledger.ids import TaskId
from tests.http import (
    COMPLETED,
    DAY_SECONDS,
    FAILED,
    STARTED,
    STRANGER,
    Call,
    CancelAsked,
    DeleteAsked,
    History,
    Reply,
    Service,
    compact,
    progressed,
    reported,
    spell,
)

PATHS = ("/v1/usage", "/api/v1/usage")
DONE = reported("completed", actual_credits="1.47")
EMPTY = '{"object":"list","data":[],"next_cursor":null,"has_more":false}'

at_both_mounts = pytest.mark.parametrize("prefix", ["/bytespike", ""], ids=["prefix", "root"])
on_both_paths = pytest.mark.parametrize("path", PATHS)


async def ask(service: Service, query: str = "", *, path: str = PATHS[0], **asked: Any) -> Reply:  # noqa: ANN401
    return await service.ask("bytespike", Call("GET", f"{path}?{query}" if query else path), **asked)


async def ids(service: Service, query: str = "") -> list[str]:
    reply = await ask(service, query)
    assert reply.status == 200, reply
    return [row["task_id"] for row in reply.json()["data"]]


@at_both_mounts
@on_both_paths
async def test_a_row_has_what_the_query_shows_of_the_money_and_two_fields_more(
    service: Service, path: str, prefix: str
) -> None:
    task = await service.make("bytespike", (STARTED, DONE), out_task_id="order-4711")
    wanted = {
        "task_id": spell("bytespike", task),
        "out_task_id": "order-4711",
        "status": "completed",
        "credits_used": 1.47,
        "model": "wan-2.6",
        "created": 1767323045,
    }
    reply = await ask(service, path=path, prefix=prefix)
    page = {"object": "list", "data": [wanted], "next_cursor": None, "has_more": False}
    assert (reply.status, reply.body) == (200, compact(page))
    read = (await service.query("bytespike", task)).json()
    assert {name: read[name] for name in ("task_id", "out_task_id", "status", "credits_used")}.items() <= wanted.items()


COSTS: dict[str, tuple[str, History, float | None]] = {  # its model, what happened to it, its credits_used
    "queued": ("wan-2.6", (), None),
    "running": ("wan-2.6", (STARTED,), None),
    "running, a part charged": ("wan-2.6", (STARTED, reported("charged", amount_credits="0.5", key="gpu")), 0.5),
    "completed": ("wan-2.6", (COMPLETED,), 1.5),
    "completed for nothing": ("wan-2.6", (reported("completed", actual_credits="0"),), None),
    "completed, and given back": (
        "wan-2.6",
        (COMPLETED, reported("refunded", amount_credits="1.5", key="sorry")),
        None,
    ),
    "failed": ("wan-2.6", (STARTED, FAILED), None),
    "failed for a part of the price": ("wan-2.6", (reported("failed", code="broke", actual_credits="0.25"),), 0.25),
    "cancelled": ("wan-2.6", (CancelAsked(),), None),
    "past the point of no return": ("veo-3.1", (progressed(50),), 1.6),
}


@pytest.mark.parametrize(("model", "history", "used"), COSTS.values(), ids=COSTS)
async def test_a_task_has_a_row_when_it_has_cost_something(
    service: Service, model: str, history: History, used: float | None
) -> None:
    task = await service.make("bytespike", history, model=model)
    if model == "veo-3.1":
        await service.cancel("bytespike", task)
    rows = (await ask(service)).json()["data"]
    assert [row["credits_used"] for row in rows] == ([] if used is None else [used])


async def test_an_account_sees_its_own_tasks_from_whichever_contract_and_nobody_elses(service: Service) -> None:
    tasks = [await service.make(contract, (COMPLETED,)) for contract in ("bytespike", "beatra", "chunkr")]
    assert set(await ids(service)) == {spell("bytespike", task) for task in tasks}
    assert (await ask(service, account=STRANGER)).body == EMPTY


async def test_what_is_deleted_or_past_its_retention_has_no_row(service: Service) -> None:
    await service.make("bytespike", (COMPLETED, DeleteAsked()))
    task = await service.make("bytespike", (COMPLETED,))
    assert await ids(service) == [spell("bytespike", task)]
    service.clock.advance(30 * DAY_SECONDS)
    assert (await ask(service)).body == EMPTY


async def test_pages_join_to_the_whole_newest_first_although_tasks_come_in(service: Service) -> None:
    tasks = []
    for _ in range(5):
        tasks.append(spell("bytespike", await service.make("bytespike", (COMPLETED,))))
        await service.make("bytespike")
        service.clock.advance(1)
    first = (await ask(service, "limit=2")).json()
    await service.make("bytespike", (COMPLETED,))
    second = (await ask(service, f"limit=2&cursor={first['next_cursor']}")).json()
    third = (await ask(service, f"limit=2&cursor={second['next_cursor']}")).json()
    found = [row["task_id"] for page in (first, second, third) for row in page["data"]]
    assert found == tasks[::-1]
    assert [page["has_more"] for page in (first, second, third)] == [True, True, False]
    assert third["next_cursor"] is None


async def test_a_page_has_20_rows_unless_asked_and_100_at_most(service: Service) -> None:
    for _ in range(101):
        await service.make("bytespike", (COMPLETED,))
    assert [len(await ids(service, query)) for query in ("", "limit=1", "limit=100")] == [20, 1, 100]


BAD = {
    "limit=0": "limit",
    "limit=101": "limit",
    "limit=-1": "limit",
    "limit=1.5": "limit",
    "limit=": "limit",
    "limit=%D9%A1": "limit",
    "limit=" + "9" * 5000: "limit",
    "cursor=": "cursor",
    "cursor=x": "cursor",
    "cursor=%FF": "cursor",
    f"cursor={cursor('another', TaskId(bytes(16)))}": "cursor",
    "page=2": "page",
    "page=2&limit=0": "page",
}


@pytest.mark.parametrize(("query", "param"), BAD.items(), ids=[query[:20] for query in BAD])
async def test_a_query_that_makes_no_sense_is_a_400_that_names_the_parameter(
    service: Service, query: str, param: str
) -> None:
    reply = await ask(service, query)
    error = reply.json()["error"]
    assert (reply.status, error["type"], error["code"]) == (400, "invalid_request_error", "invalid_param")
    assert error["param"] == param


@pytest.mark.parametrize("size", [0, 8, 15, 17])
async def test_a_cursor_for_another_kind_of_place_is_a_400(service: Service, size: int) -> None:
    reply = await ask(service, f"cursor={cursor(service.ledger.engine.log_id, bytes(size))}")
    assert (reply.status, reply.json()["error"]["param"]) == (400, "cursor")


async def test_it_is_a_free_read_with_either_form_of_the_key(service: Service) -> None:
    task = await service.make("bytespike", (COMPLETED,))
    version = (await service.seen(task))["version"]
    key = await service.key("bytespike")
    for headers in ({"Authorization": f"Bearer {key}"}, {"x-api-key": key}):
        reply = await service.send("GET", "/v1/usage", headers=headers)
        assert (reply.status, len(reply.json()["data"])) == (200, 1)
        assert "X-RateLimit-Remaining" in reply.headers
    assert (await service.send("GET", "/v1/usage")).status == 401
    assert (await service.seen(task))["version"] == version
