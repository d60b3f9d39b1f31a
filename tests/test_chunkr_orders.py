"""Chunkr over HTTP: creating, updating, deleting and listing, in the words and shapes that its clients read."""

import asyncio
import base64
import json
from typing import Any

import pytest

from ledger.ids import Spelling, TaskId
from ledger.times import rfc3339
from tests.http import (
    ACCOUNT,
    DAY_SECONDS,
    FAILED,
    STARTED,
    STRANGER,
    Call,
    CancelAsked,
    DeadlinePassed,
    History,
    Later,
    Reply,
    Service,
    cancel,
    compact,
    progressed,
    query,
    spell,
)
from tests.test_chunkr import (
    BASES,
    BROKEN,
    FILE_OF_3,
    INPUT,
    MADE,
    NEW,
    PARSED,
    RUNNING,
    SUCCEEDED,
    UPDATE,
    assert_says,
    documented,
    in_every_spelling,
    make,
)

FILE = INPUT["file"]


async def create(service: Service, *, base: str = "/task", account: str = ACCOUNT, key: str = "", **body: Any) -> Reply:  # noqa: ANN401
    headers = {"Idempotency_Key": key} if key else {}
    call = Call("POST", f"{base}/parse", json.dumps(body).encode())
    return await service.ask("chunkr", call, account=account, **headers)


async def created(service: Service, **body: Any) -> TaskId:  # noqa: ANN401 - of the create
    fields: dict[str, Any] = {"file": FILE, **body}
    reply = await create(service, **fields)
    assert reply.status == 200, reply
    task = Spelling.UUID.parse(reply.json()["task_id"])
    assert task is not None
    return task


async def patch(service: Service, task: TaskId, *, base: str = "/task", **body: Any) -> Reply:  # noqa: ANN401
    return await service.ask(
        "chunkr", Call("PATCH", f"{base}/{spell('chunkr', task)}/parse", json.dumps(body).encode())
    )


async def delete(service: Service, task: TaskId, *, base: str = "/task", account: str = ACCOUNT) -> Reply:
    return await service.ask("chunkr", Call("DELETE", f"{base}/{spell('chunkr', task)}"), account=account)


async def position(service: Service) -> int:
    """The end of the log, once the keys that are used here stand in it."""
    for account in (ACCOUNT, STRANGER):
        await service.key("chunkr", account=account)
    return (await service.ledger.engine.head()).position


# Create


@in_every_spelling
async def test_a_create_answers_with_the_new_task_byte_for_byte(service: Service, base: str) -> None:
    reply = await create(service, base=base, file=FILE, expires_in=3600)
    assert reply.status == 200
    task = Spelling.UUID.parse(reply.json()["task_id"])
    assert task is not None
    wanted = documented(task, url=service.base_url + "/chunkr")
    defaults = {name: value for name, value in wanted["configuration"].items() if name != "input_file_url"}
    del defaults["expires_in"]
    wanted["configuration"] = {**defaults, "expires_in": 3600, "input_file_url": FILE}
    assert reply.body == compact(wanted)
    assert (await service.query("chunkr", task)).body == reply.body
    assert await service.types(task) == ["created"]


async def test_what_is_left_out_of_the_configuration_has_its_default(service: Service) -> None:
    task = await created(
        service,
        file_name=None,
        chunk_processing={"target_length": 100},
        segment_processing={
            "section_header": {"format": "Html"},
            "Table": {"strategy": "LLM"},
            "Poem": {},
            "text": None,
        },
        high_resolution=True,
        ocr_strategy=None,
        pipeline="Azure",
        llm_processing={"fallback_strategy": "Default", "temperature": 0.5},
        nobody_knows={"a": [1]},
    )
    wanted = NEW["configuration"] | {
        "chunk_processing": {"target_length": 100, "tokenizer": {"Enum": "Word"}},
        "segment_processing": {"SectionHeader": {"format": "Html"}, "Table": {"strategy": "LLM"}},
        "high_resolution": True,
        "pipeline": "Azure",
        "llm_processing": {"fallback_strategy": "Default", "temperature": 0.5},
    }
    del wanted["expires_in"]
    assert (await service.query("chunkr", task)).json()["configuration"] == wanted


PDF = base64.b64encode(b"%PDF-1.7 ...").decode()
TAKEN = {
    "an address": "https://files.example.test/a.pdf?b=c",
    "plain http": "http://files.example.test:8080/a",
    "base64": PDF,
    "base64 of an office document": base64.b64encode(b"PK\x03\x04....").decode(),
    "a data url": f"data:application/pdf;base64,{PDF}",
    "a data url with parameters": f"data:image/PNG;name=a;base64,{PDF}",
    "a data url without a type": f"data:;base64,{PDF}",
}
REFUSED = {
    "no base64": ("%PDF-1.7", "Invalid base64 data"),
    "cut base64": (PDF[:-1], "Invalid base64 data"),
    "broken base64": (PDF[:4] + "\n" + PDF[4:], "Invalid base64 data"),
    "not ascii": ("ключ", "Invalid base64 data"),
    "a data url without base64": ("data:application/pdf,abcd", "Invalid base64 data"),
    "a data url without data": ("data:application/pdf;base64", "Invalid base64 data"),
    "a data url that is cut": (f"data:application/pdf;base64,{PDF[:-1]}", "Invalid base64 data"),
    "nothing": ("", "Unsupported file type"),
    "no data": ("data:application/pdf;base64,", "Unsupported file type"),
    "text": (base64.b64encode(b"hello").decode(), "Unsupported file type"),
    "a film": (f"data:video/mp4;base64,{PDF}", "Unsupported file type"),
    "no host": ("https://", "Invalid request: file must be an http or https address"),
    "credentials": ("https://a:b@example.com/", "Invalid request: file must be an http or https address"),
    "a blank": ("https://example.com/a b", "Invalid request: file must be an http or https address"),
    "too long": (
        "https://example.com/" + "a" * 2048,
        "Invalid request: file is an address of more than 2048 characters",
    ),
}


@pytest.mark.parametrize("file", TAKEN.values(), ids=TAKEN)
async def test_a_file_is_an_address_or_base64(service: Service, file: str) -> None:
    task = await created(service, file=file)
    assert (await service.seen(task))["input"]["file"] == file
    shown = (await service.query("chunkr", task)).json()["configuration"]["input_file_url"]
    assert shown == (file if file.startswith("http") else None)


@pytest.mark.parametrize(("file", "text"), REFUSED.values(), ids=REFUSED)
async def test_what_is_no_file_is_refused_and_leaves_nothing(service: Service, file: str, text: str) -> None:
    before = await position(service)
    assert_says(await create(service, file=file), 400, text)
    assert await position(service) == before


MISSHAPEN: dict[str, dict[str, Any]] = {
    "no file": {},
    "a null": {"file": None},
    "a number": {"file": 1},
    "an unknown word": {"file": FILE, "ocr_strategy": "Some"},
    "a negative time": {"file": FILE, "expires_in": -1},
    "a text for a number": {"file": FILE, "expires_in": "1"},
    "an empty tokenizer": {"file": FILE, "chunk_processing": {"tokenizer": {}}},
    "two tokenizers": {"file": FILE, "chunk_processing": {"tokenizer": {"Enum": "Word", "String": "a"}}},
    "a segment twice": {"file": FILE, "segment_processing": {"Table": {}, "table": {}}},
    "a NUL where nobody looks": {"file": FILE, "nobody_knows": "\0"},
    "a huge number where nobody looks": {"file": FILE, "nobody_knows": 2**70},
    "a lone surrogate": {"file": FILE, "file_name": "\ud800"},
}


@pytest.mark.parametrize("body", MISSHAPEN.values(), ids=MISSHAPEN)
async def test_a_create_of_another_shape_is_a_400_in_text(service: Service, body: dict[str, Any]) -> None:
    before = await position(service)
    reply = await create(service, **body)
    assert (reply.status, reply.headers["Content-Type"]) == (400, "text/plain; charset=utf-8")
    assert reply.body.startswith("Invalid request: ")
    assert await position(service) == before


async def test_the_word_parse_is_never_a_tasks_id(service: Service) -> None:
    for base in BASES:
        for method in ("GET", "DELETE"):
            assert_says(await service.ask("chunkr", Call(method, f"{base}/parse")), 404, "Task not found")
        assert_says(await service.ask("chunkr", Call("PATCH", f"{base}/parse/parse", b"{}")), 404, "Task not found")


# Idempotency


async def test_fifty_creates_at_once_with_one_key_are_one_task(service: Service) -> None:
    before = await position(service)
    replies = await asyncio.gather(*(create(service, base=base, file=FILE, key="k") for base in BASES * 13))
    assert {(reply.status, reply.json()["task_id"]) for reply in replies} == {(200, replies[0].json()["task_id"])}
    assert await position(service) == before + 1


async def test_a_key_with_another_body_is_a_conflict_that_is_not_to_be_retried(service: Service) -> None:
    first = await create(service, file=FILE, key="stainless-node-retry-1")
    other = await create(service, file=FILE, expires_in=1, key="stainless-node-retry-1")
    assert_says(other, 409, "Idempotency key was used for another request")
    assert other.headers["x-should-retry"] == "false"
    again = await create(service, file=FILE, key="stainless-node-retry-1")
    assert again.body == first.body


async def test_a_retry_gets_the_first_answer_although_the_task_has_gone_on(service: Service) -> None:
    first = await create(service, file=FILE, key="k")
    task = Spelling.UUID.parse(first.json()["task_id"])
    assert task is not None
    await service.go_on(task, *SUCCEEDED)
    assert (await create(service, file=FILE, key="k")).body == first.body


async def test_a_key_is_kept_for_24_hours_and_is_the_accounts_own(service: Service) -> None:
    first = (await create(service, file=FILE, key="k")).json()["task_id"]
    assert (await create(service, file=FILE, key="k", account=STRANGER)).json()["task_id"] != first
    service.clock.advance(DAY_SECONDS - 1)
    assert (await create(service, file=FILE, key="k")).json()["task_id"] == first
    service.clock.advance(1)
    assert (await create(service, file=FILE, expires_in=1, key="k")).json()["task_id"] != first


async def test_without_a_key_two_creates_are_two_tasks(service: Service) -> None:
    assert await created(service) != await created(service)


async def test_a_key_that_cannot_be_kept_is_refused(service: Service) -> None:
    assert_says(
        await create(service, file=FILE, key="x" * 256),
        400,
        "Invalid request: Idempotency-Key must be 1 to 255 characters",
    )


# Update


@in_every_spelling
async def test_an_update_answers_with_the_new_state(service: Service, base: str) -> None:
    task = await make(service, *SUCCEEDED)
    reply = await patch(service, task, base=base, high_resolution=True)
    assert reply.status == 200
    assert reply.json() == documented(task, url=service.base_url + "/chunkr") | {
        "message": "Task queued for update",
        "configuration": NEW["configuration"] | {"high_resolution": True},
    }
    assert (await service.query("chunkr", task)).body == reply.body
    assert (await service.types(task))[-1] == "update-requested"


async def test_an_update_is_merged_and_the_pipeline_stays(service: Service) -> None:
    task = await created(
        service,
        pipeline="Azure",
        chunk_processing={"target_length": 100},
        segment_processing={"Table": {"format": "Html", "strategy": "LLM"}, "Text": {"strategy": "Auto"}},
    )
    await service.go_on(task, *SUCCEEDED)
    reply = await patch(
        service,
        task,
        pipeline="Chunkr",
        expires_in=60,
        file="https://elsewhere.example.test/",
        chunk_processing={"tokenizer": {"String": "mine"}},
        segment_processing={"table": {"strategy": "Ignore"}, "page": {"description": False}},
    )
    assert reply.json()["configuration"] == NEW["configuration"] | {
        "pipeline": "Azure",
        "expires_in": 60,
        "chunk_processing": {"target_length": 100, "tokenizer": {"String": "mine"}},
        "segment_processing": {
            "Table": {"strategy": "Ignore"},
            "Text": {"strategy": "Auto"},
            "Page": {"description": False},
        },
    }


UPDATABLE: dict[str, tuple[History, str | None]] = {
    "queued": ((), "Starting"),
    "running": (RUNNING, "Processing"),
    "succeeded": (SUCCEEDED, None),
    "failed": (BROKEN, None),
    "cancelled": ((CancelAsked(),), "Cancelled"),
    "timed out": ((DeadlinePassed(),), "Failed"),
    "updating": ((*SUCCEEDED, UPDATE), "Starting"),
    "running an update": ((*SUCCEEDED, UPDATE, STARTED), "Processing"),
}


@pytest.mark.parametrize(("history", "status"), UPDATABLE.values(), ids=UPDATABLE)
async def test_only_what_succeeded_or_failed_is_updated(service: Service, history: History, status: str | None) -> None:
    task = await make(service, *history)
    before = await position(service)
    reply = await patch(service, task, error_handling="Continue")
    if status is None:
        assert (reply.status, reply.json()["status"]) == (200, "Starting")
    else:
        assert_says(reply, 400, f"Task cannot be updated: status is {status}")
        assert await position(service) == before


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"high_resolution": False},
        {"pipeline": "Chunkr"},
        {"expires_in": 3600},
        {"segment_processing": {}},
        {"x": 1},
    ],
    ids=json.dumps,
)
async def test_an_update_that_changes_nothing_is_refused(service: Service, body: dict[str, Any]) -> None:
    for task in (await created(service, expires_in=3600), await make(service)):
        await service.go_on(task, *SUCCEEDED)
        before = await position(service)
        assert_says(await patch(service, task, **body), 400, "Task cannot be updated: configuration is unchanged")
        assert await position(service) == before


@pytest.mark.parametrize("history", [SUCCEEDED, BROKEN], ids=["succeeded", "failed"])
@pytest.mark.parametrize("ending", ["cancel", "failure"])
async def test_an_update_that_comes_to_nothing_puts_back_all_that_was(
    service: Service, history: History, ending: str
) -> None:
    task = await created(service, expires_in=3600)
    await service.go_on(task, *history)
    before = await service.query("chunkr", task)
    service.clock.advance(60)
    assert (await patch(service, task, expires_in=7200, ocr_strategy="Auto")).json()["status"] == "Starting"
    if ending == "cancel":
        assert_says(await service.cancel("chunkr", task), 200, "Task cancelled")
    else:
        await service.go_on(task, Later(1), STARTED, progressed(10, message="Chunking"), FAILED)
    after = await service.query("chunkr", task)
    assert after.body == before.body
    assert_says(
        await service.cancel("chunkr", task), 400, f"Task cannot be cancelled: status is {before.json()['status']}"
    )
    assert (await service.types(task)).count("update-reverted") == 1


async def test_an_update_that_succeeds_is_what_is_shown(service: Service) -> None:
    task = await created(service, expires_in=3600)
    await service.go_on(task, *BROKEN)
    await patch(service, task, ocr_strategy="Auto")
    await service.go_on(task, STARTED, Later(5), PARSED)
    read = (await service.query("chunkr", task)).json()
    assert (read["status"], read["output"], read["configuration"]["ocr_strategy"]) == ("Succeeded", MADE, "Auto")
    assert (read["finished_at"], read["expires_at"]) == ("2026-01-02T03:04:20Z", "2026-01-02T04:04:20Z")
    assert read["file_info"] == FILE_OF_3


async def test_of_updates_at_once_one_is_taken(service: Service) -> None:
    task = await make(service, *SUCCEEDED)
    replies = await asyncio.gather(*(patch(service, task, expires_in=seconds) for seconds in range(1, 21)))
    assert sorted(reply.status for reply in replies) == [200] + [400] * 19
    assert {reply.body for reply in replies if reply.status == 400} == {"Task cannot be updated: status is Starting"}
    assert (await service.types(task)).count("update-requested") == 1


async def test_of_a_cancel_and_an_update_at_once_the_first_commit_wins(service: Service) -> None:
    for _ in range(10):
        task = await make(service, *SUCCEEDED)
        updated, cancelled = await asyncio.gather(
            patch(service, task, ocr_strategy="Auto"), service.cancel("chunkr", task)
        )
        assert updated.status == 200
        status = (await service.query("chunkr", task)).json()["status"]
        if cancelled.status == 200:
            assert status == "Succeeded"
            assert (await service.types(task))[-3:] == ["update-requested", "cancel-requested", "update-reverted"]
        else:
            assert_says(cancelled, 400, "Task cannot be cancelled: status is Succeeded")
            assert status == "Starting"


# Delete

DELETABLE: dict[str, tuple[History, str | None]] = {
    "queued": ((), "Starting"),
    "running": (RUNNING, "Processing"),
    "updating": ((*SUCCEEDED, UPDATE), "Starting"),
    "succeeded": (SUCCEEDED, None),
    "failed": (BROKEN, None),
    "cancelled": ((CancelAsked(),), None),
    "timed out": ((DeadlinePassed(),), None),
}


@in_every_spelling
@pytest.mark.parametrize(("history", "status"), DELETABLE.values(), ids=DELETABLE)
async def test_what_is_over_can_be_deleted(service: Service, history: History, status: str | None, base: str) -> None:
    task = await make(service, *history)
    before = await position(service)
    reply = await delete(service, task, base=base)
    if status is not None:
        assert_says(reply, 400, f"Task cannot be deleted: status is {status}")
        assert await position(service) == before
        return
    assert_says(reply, 200, "Task deleted")
    assert (await service.types(task))[-1] == "deleted"
    after = await position(service)
    for call in (query("chunkr", task), cancel("chunkr", task)):
        assert_says(await service.ask("chunkr", call), 404, "Task not found")
    assert_says(await delete(service, task, base=base), 404, "Task not found")
    assert_says(await patch(service, task, base=base, expires_in=1), 404, "Task not found")
    assert (await service.ask("chunkr", Call("GET", "/tasks"))).json() == []
    assert await position(service) == after


async def test_a_deleted_tasks_content_is_gone_from_its_view(service: Service) -> None:
    secret = base64.b64encode(b"%PDF-secret").decode()
    task = await created(service, file=secret, file_name="secret-name.pdf")
    await service.go_on(task, *SUCCEEDED)
    await delete(service, task)
    placed = (await service.ledger.engine.tasks([task]))[task]
    row = repr(placed).encode()
    for text in (secret, "secret-name", "out.pdf", "chunk_id"):
        assert text.encode() not in row


async def test_another_accounts_task_is_neither_updated_nor_deleted(service: Service) -> None:
    task = await make(service, *SUCCEEDED)
    before = await position(service)
    assert_says(await delete(service, task, account=STRANGER), 404, "Task not found")
    call = Call("PATCH", f"/task/{spell('chunkr', task)}/parse", b'{"expires_in":1}')
    assert_says(await service.ask("chunkr", call, account=STRANGER), 404, "Task not found")
    assert await position(service) == before


# List


async def ids(service: Service, asked: str = "", **headers: str) -> list[str]:
    reply = await service.ask("chunkr", Call("GET", f"/tasks{asked}"), **headers)
    assert reply.status == 200, reply
    found = reply.json()
    return [task["task_id"] for task in (found if isinstance(found, list) else found["tasks"])]


async def row(service: Service, count: int) -> list[str]:
    """So many tasks, a second apart, oldest first."""
    made = []
    for _ in range(count):
        made.append(spell("chunkr", await created(service)))
        service.clock.advance(1)
    return made


@pytest.mark.parametrize("path", ["/tasks", "/api/v1/tasks"])
async def test_the_servers_list_is_a_bare_array_newest_first(service: Service, path: str) -> None:
    assert (await service.ask("chunkr", Call("GET", path))).body == "[]"
    queued, done = await make(service, Later(1)), await make(service, *SUCCEEDED)
    reply = await service.ask("chunkr", Call("GET", path))
    read = [(await service.query("chunkr", task)).json() for task in (done, queued)]
    read[0]["output"]["chunks"] = []
    assert reply.json() == read
    reply = await service.ask("chunkr", Call("GET", f"{path}?include_chunks=true&base64_urls=false"))
    assert reply.json()[0]["output"] == MADE


async def test_pages_are_counted_from_one(service: Service) -> None:
    made = (await row(service, 5))[::-1]
    pages = [await ids(service, f"?page={page}&limit=2") for page in (1, 2, 3, 4)]
    assert pages == [made[:2], made[2:4], made[4:], []]
    assert await ids(service, "?limit=3") == made[:3]
    reply = await service.ask("chunkr", Call("GET", "/tasks?page=1"))
    assert_says(reply, 400, "Limit is required when page is provided")


async def test_a_counted_page_that_large_tasks_cut_short_is_refused_for_it_cannot_say_so(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = (await row(service, 5))[::-1]
    monkeypatch.setattr("ledger.ledger.CHUNK_MAX_BYTES", 2000)  # two views, less than five
    reply = await service.ask("chunkr", Call("GET", "/tasks?limit=5"))
    assert_says(
        reply, 400, "Tasks are too large for this page: ask for a smaller limit, or add sort and follow the cursor"
    )
    assert [await ids(service, f"?limit=1&page={page}") for page in (1, 3, 5, 6)] == [made[:1], made[2:3], made[4:], []]
    newest = await ids(service)
    assert newest == made[: len(newest)]
    assert 1 <= len(newest) < 5
    found: list[str] = []
    asked = "?sort=desc&limit=5"
    while asked:
        page = (await service.ask("chunkr", Call("GET", f"/tasks{asked}"))).json()
        found += [task["task_id"] for task in page["tasks"]]
        asked = f"?sort=desc&limit=5&cursor={page['next_cursor']}" if page["has_more"] else ""
    assert found == made


async def test_a_list_starts_and_ends_at_a_time(service: Service) -> None:
    first_us = service.clock()
    made = await row(service, 4)
    at = [rfc3339(first_us + second * 10**6) for second in range(5)]
    assert await ids(service, f"?start={at[1]}") == made[:0:-1]
    assert await ids(service, f"?end={at[1]}") == made[1::-1]
    assert await ids(service, f"?start={at[1]}&end={at[2]}") == [made[2], made[1]]
    assert await ids(service, f"?start={at[1]}&end={at[2]}&sort=asc") == made[1:3]
    assert await ids(service, f"?start={at[4]}") == []


OBJECT = ["?sort=desc", "?statuses=Starting", "?task_types=Parse", "?statuses=Starting,Failed&sort=desc"]


@pytest.mark.parametrize("asked", OBJECT)
async def test_the_npm_clients_list_is_an_object(service: Service, asked: str) -> None:
    made = await row(service, 2)
    reply = await service.ask("chunkr", Call("GET", f"/tasks{asked}"))
    found = reply.json()
    assert [task["task_id"] for task in found.pop("tasks")] == made[::-1]
    assert found == {"next_cursor": None, "has_more": False}


async def test_the_npm_client_is_known_by_its_header(service: Service) -> None:
    reply = await service.ask("chunkr", Call("GET", "/tasks"), X_Stainless_Lang="js")
    assert reply.body == '{"tasks":[],"next_cursor":null,"has_more":false}'


@pytest.mark.parametrize("sort", ["asc", "desc"])
async def test_a_list_in_pieces_is_whole_and_stable_while_tasks_are_added(service: Service, sort: str) -> None:
    made = await row(service, 7)
    found: list[str] = []
    asked = f"?sort={sort}&limit=3"
    for _ in range(3):
        page = (await service.ask("chunkr", Call("GET", f"/tasks{asked}"))).json()
        found += [task["task_id"] for task in page["tasks"]]
        if sort == "desc":
            await row(service, 1)
        if not page["has_more"]:
            break
        asked = f"?sort={sort}&limit=3&cursor={page['next_cursor']}"
    assert page["next_cursor"] is None
    assert found == (made if sort == "asc" else made[::-1])


async def test_statuses_and_types_choose(service: Service) -> None:
    queued = spell("chunkr", await make(service, Later(1)))
    failed = spell("chunkr", await make(service, *BROKEN))
    done = spell("chunkr", await make(service, *SUCCEEDED))
    assert await ids(service, "?statuses=Failed,Succeeded") == [done, failed]
    assert await ids(service, "?statuses=Starting") == [queued]
    assert await ids(service, "?task_types=Extract") == []
    assert await ids(service, "?task_types=Extract,Parse") == [done, failed, queued]


async def test_what_the_account_can_read_here_is_listed_whoever_took_the_order(service: Service) -> None:
    kept = spell("chunkr", await created(service))
    await created(service, expires_in=1)
    gone = await created(service, expires_in=60)
    await service.go_on(gone, *SUCCEEDED, Later(60))
    other = spell("chunkr", await service.make("beatra"))
    await create(service, file=FILE, account=STRANGER)
    listed = await ids(service)
    assert {kept, other} <= {*listed}
    assert spell("chunkr", gone) not in listed
    assert len(listed) == 3


@pytest.mark.parametrize(
    "asked",
    [
        *(
            "limit=0",
            "limit=1001",
            "limit=-1",
            "limit=x",
            "limit=",
            "limit=1&page=0",
            "limit=1&page=99999999999",
            "limit=100&page=102",
        ),
        *("limit=%D9%A1", "start=yesterday", "end=", "sort=up", "statuses=", "statuses=Starting,Over"),
        *("task_types=Dream", "cursor=", "cursor=x", "cursor=%00", "include_chunks=1", "base64_urls=2"),
    ],
)
async def test_a_parameter_that_cannot_be_read_is_a_400(service: Service, asked: str) -> None:
    reply = await service.ask("chunkr", Call("GET", f"/tasks?{asked}"))
    assert (reply.status, reply.headers["Content-Type"]) == (400, "text/plain; charset=utf-8")
    assert reply.body.startswith("Invalid request: ")
