"""beatra's list over HTTP: its filters, its pages, its summaries, and what it refuses.

Source: the beatra documentation (docs.stratizon.cn).
"""

from typing import Any
from urllib.parse import urlencode

import pytest

from ledger.cursors import cursor
from ledger.ids import TaskId
from tests.builders import ENGINES
from tests.http import (
    COMPLETED,
    DAY_SECONDS,
    FAILED,
    STARTED,
    STRANGER,
    Call,
    CancelAsked,
    DeadlinePassed,
    DeleteAsked,
    History,
    Reply,
    Service,
    compact,
    spell,
)

on_every_engine = pytest.mark.parametrize("service", ENGINES, indirect=True)
at_both_mounts = pytest.mark.parametrize("prefix", ["/beatra", ""], ids=["prefix", "root"])


async def ask(service: Service, account: str | None = None, **query: object) -> Reply:
    call = Call("GET", f"/v1/tasks?{urlencode(query)}" if query else "/v1/tasks")
    return await service.ask("beatra", call, **({} if account is None else {"account": account}))


async def ids(service: Service, **query: object) -> list[str]:
    reply = await ask(service, None, **query)
    assert reply.status == 200, reply
    return [item["task_id"] for item in reply.json()["data"]]


async def made(service: Service, count: int) -> list[str]:
    """New tasks, a second apart; oldest first."""
    tasks = []
    for _ in range(count):
        tasks.append(spell("beatra", await service.make("beatra")))
        service.clock.advance(1)
    return tasks


SUMMARY = (
    '{"object":"list","data":[{"object":"task","task_id":"{id}","status":"queued","capability":"text_to_music",'
    '"model":"suno-5.5","resolved_model":"suno-5.5","metadata":{"order":"4711"},'
    '"progress":{"percent":0,"stage":"queued","message":"Waiting to start"},"warnings":[],"error":null,'
    '"created_at":"2026-01-02T03:04:05Z","started_at":null,"completed_at":null,"cancel_requested_at":null,'
    '"links":{"self":"/v1/tasks/{id}","cancel":"/v1/tasks/{id}/cancel"}}],"next_cursor":null,"has_more":false}'
)


@at_both_mounts
async def test_a_list_is_of_summaries_in_these_very_bytes(service: Service, prefix: str) -> None:
    task = await service.make("beatra", metadata={"order": "4711"}, input={"prompt": "dream pop"})
    reply = await service.ask("beatra", Call("GET", "/v1/tasks"), prefix=prefix)
    assert (reply.status, reply.body) == (200, SUMMARY.replace("{id}", spell("beatra", task)))


async def test_an_account_without_tasks_has_an_empty_list(service: Service) -> None:
    reply = await ask(service)
    assert reply.body == '{"object":"list","data":[],"next_cursor":null,"has_more":false}'


@pytest.mark.parametrize(
    ("expand", "parts"),
    [
        ("output", {"output"}),
        ("usage,billing", {"usage", "billing"}),
        ("callback,input,output", {"callback", "input", "output"}),
        ("all", {"output", "usage", "billing", "callback", "input"}),
        ("all,input", {"output", "usage", "billing", "callback", "input"}),
    ],
)
async def test_parts_are_shown_on_request_as_the_task_itself_shows_them(
    service: Service, expand: str, parts: set[str]
) -> None:
    task = await service.make("beatra", (COMPLETED,), callback_url="https://example.com/hook", input={"prompt": "a"})
    whole = (await service.query("beatra", task)).json()
    left_out = {"output", "usage", "billing", "callback", "input"} - parts
    (item,) = (await ask(service, expand=expand)).json()["data"]
    assert compact(item) == compact({name: value for name, value in whole.items() if name not in left_out})


HISTORIES: dict[str, tuple[History, str]] = {
    "queued": ((), "queued"),
    "running": ((STARTED,), "running"),
    "asked to stop": ((STARTED, CancelAsked()), "running"),
    "done": ((COMPLETED,), "succeeded"),
    "broken": ((FAILED,), "failed"),
    "expired": ((DeadlinePassed(),), "failed"),
    "stopped": ((CancelAsked(),), "canceled"),
}


@on_every_engine
async def test_a_list_by_status_has_those_that_read_so(service: Service) -> None:
    tasks: dict[str, set[str]] = {}
    for history, status in HISTORIES.values():
        tasks.setdefault(status, set()).add(spell("beatra", await service.make("beatra", history)))
    for status, those in tasks.items():
        assert set(await ids(service, status=status)) == those
    assert len(await ids(service)) == len(HISTORIES)


async def test_a_list_by_capability_has_those_that_have_it(service: Service) -> None:
    image, song = await service.make("beatra", model="auto"), await service.make("beatra")
    assert await ids(service, capability="text_to_image") == [spell("beatra", image)]
    assert await ids(service, capability="text_to_music", status="queued") == [spell("beatra", song)]
    assert await ids(service, capability="text_to_music", status="failed") == []
    assert await ids(service, capability="nothing") == []


@on_every_engine
@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_a_list_between_two_times_has_those_created_in_between(service: Service, order: str) -> None:
    tasks = await made(service, 5)
    at = [f"2026-01-02T03:04:0{second}Z" for second in range(5, 10)]

    async def between(**query: str) -> list[str]:
        return sorted(await ids(service, order=order, **query))

    assert await between(created_after=at[1]) == tasks[2:]
    assert await between(created_before=at[3]) == tasks[:3]
    assert await between(created_after=at[0], created_before=at[4]) == tasks[1:4]
    assert await between(created_after="2026-01-02T04:04:05.999999+01:00", created_before=at[2]) == tasks[1:2]
    assert await between(created_after=at[4]) == await between(created_before=at[0]) == []


@on_every_engine
@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_pages_join_to_the_whole_list_although_tasks_come_in(service: Service, order: str) -> None:
    tasks = await made(service, 7)
    found: list[str] = []
    query: dict[str, Any] = {"limit": 2, "order": order}
    for pages in range(1, 10):
        page = (await ask(service, **query)).json()
        found += [item["task_id"] for item in page["data"]]
        assert page["has_more"] == (page["next_cursor"] is not None)
        if not page["has_more"]:
            break
        query["cursor"] = page["next_cursor"]
        if pages == 1:
            tasks += await made(service, 2)
    assert found == (tasks if order == "asc" else tasks[:7][::-1])


async def test_a_page_that_ends_the_list_says_so(service: Service) -> None:
    await made(service, 4)
    first = (await ask(service, limit=2)).json()
    last = (await ask(service, limit=2, cursor=first["next_cursor"])).json()
    assert (len(last["data"]), last["next_cursor"], last["has_more"]) == (2, None, False)


async def test_pages_keep_to_the_filter(service: Service) -> None:
    wanted = []
    for at in range(6):
        task = await service.make("beatra", (FAILED,) if at % 2 else ())
        if at % 2:
            wanted.append(spell("beatra", task))
    first = (await ask(service, status="failed", limit=2, created_after="2026-01-02T03:04:04Z")).json()
    rest = await ids(service, status="failed", limit=2, cursor=first["next_cursor"])
    assert {*[item["task_id"] for item in first["data"]], *rest} == set(wanted)


async def test_a_page_has_20_unless_asked_and_100_at_most(service: Service) -> None:
    tasks = [spell("beatra", await service.make("beatra")) for _ in range(101)]
    assert len(await ids(service)) == 20
    assert len(await ids(service, limit=1)) == 1
    assert len(await ids(service, limit=100)) == 100
    assert set(await ids(service, limit=100)) < set(tasks)


async def test_a_list_has_the_accounts_own_tasks_from_whichever_contract(service: Service) -> None:
    own = {spell("beatra", await service.make(contract)) for contract in ("beatra", "chunkr")}
    assert set(await ids(service)) == own
    assert (await ask(service, STRANGER)).json()["data"] == []


async def test_another_accounts_cursor_shows_nothing_of_it(service: Service) -> None:
    await made(service, 2)
    cursor_of_ours = (await ask(service, limit=1)).json()["next_cursor"]
    assert (await ask(service, STRANGER, cursor=cursor_of_ours)).json()["data"] == []


async def test_what_is_deleted_or_past_its_retention_is_not_listed(service: Service) -> None:
    await service.make("beatra", (COMPLETED, DeleteAsked()))
    kept = spell("beatra", await service.make("beatra", (COMPLETED,)))
    assert await ids(service) == [kept]
    service.clock.advance(30 * DAY_SECONDS)
    assert await ids(service) == []


BAD: dict[str, tuple[str, str]] = {
    "an unknown status": ("status=cancelled", "/status"),
    "an empty status": ("status=", "/status"),
    "an unknown order": ("order=up", "/order"),
    "an unknown part": ("expand=error", "/expand"),
    "an empty part": ("expand=input,", "/expand"),
    "no part": ("expand=", "/expand"),
    "no time": ("created_after=yesterday", "/created_after"),
    "a day": ("created_before=2026-01-02", "/created_before"),
    "0 tasks": ("limit=0", "/limit"),
    "101 tasks": ("limit=101", "/limit"),
    "-1 tasks": ("limit=-1", "/limit"),
    "half a task": ("limit=1.5", "/limit"),
    "no limit": ("limit=", "/limit"),
    "a limit in other digits": ("limit=%D9%A1", "/limit"),
    "a limit beyond all measure": ("limit=" + "9" * 5000, "/limit"),
    "an unknown parameter": ("page=2", "/page"),
    "an unknown parameter with a slash": ("a/b~c=2", "/a~1b~0c"),
    "an unknown parameter that is no text": ("%FF=2", "/\N{REPLACEMENT CHARACTER}"),
    "an unknown parameter that is half a character": ("%ED%A0%80=2", "/" + "\N{REPLACEMENT CHARACTER}" * 3),
    "an empty cursor": ("cursor=", "/cursor"),
    "no cursor": ("cursor=x", "/cursor"),
    "a cursor that is no text": ("cursor=%FF", "/cursor"),
    "a cursor with NUL": ("cursor=%00", "/cursor"),
    "an id as the cursor": ("cursor=tsk_01KE40A2R7V5W8Y0B3D6F9H1JK", "/cursor"),
    "another log's cursor": (f"cursor={cursor('another', TaskId(bytes(16)))}", "/cursor"),
}


@pytest.mark.parametrize(("query", "param"), BAD.values(), ids=BAD)
async def test_a_query_that_makes_no_sense_is_a_422(service: Service, query: str, param: str) -> None:
    reply = await service.ask("beatra", Call("GET", f"/v1/tasks?{query}"))
    error = reply.json()["error"]
    assert (reply.status, error["code"], error["param"]) == (422, "invalid_request", param)
    assert error["details"] == {"errors": [{"message": error["message"]}]}


@pytest.mark.parametrize("size", [0, 8, 15, 17])
async def test_a_cursor_of_this_log_for_another_kind_of_place_is_a_422(service: Service, size: int) -> None:
    reply = await ask(service, cursor=cursor(service.ledger.engine.log_id, bytes(size)))
    assert (reply.status, reply.json()["error"]["param"]) == (422, "/cursor")
