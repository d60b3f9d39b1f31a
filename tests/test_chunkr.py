"""Chunkr over HTTP: a row per status, four spellings of each route, and text for every error.

Source: the open-source server (lumina-ai-inc/chunkr), its generated API docs, "Cancel Task", and its published clients.
"""

import json
from itertools import product
from typing import Any, NamedTuple

import pytest

from ledger.errors import StorageError
from ledger.ids import TaskId
from ledger.keys import Role
from tests.http import (
    ACCOUNT,
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
    Later,
    Reply,
    Service,
    Step,
    UpdateAsked,
    Way,
    both_ways,
    cancel,
    progressed,
    query,
    reported,
    spell,
)

TEXT = "text/plain; charset=utf-8"
BASES = ("/task", "/tasks", "/api/v1/task", "/api/v1/tasks")

at_both_mounts = pytest.mark.parametrize("prefix", ["/chunkr", ""], ids=["prefix", "root"])
in_every_spelling = pytest.mark.parametrize("base", BASES)


# A row per status

INPUT = {"file": "https://files.example.test/in.pdf", "expires_in": 3600}
NEW: dict[str, Any] = json.loads("""
{"task_id":"{id}","status":"Starting","message":"Task queued","completed":false,
 "configuration":{"chunk_processing":{"target_length":512,"tokenizer":{"Enum":"Word"}},"expires_in":3600,
  "high_resolution":false,"ocr_strategy":"All","segmentation_strategy":"LayoutAnalysis","error_handling":"Fail",
  "segment_processing":{},"input_file_url":"https://files.example.test/in.pdf"},
 "created_at":"2026-01-02T03:04:05Z","started_at":null,"finished_at":null,"expires_at":null,"output":null,
 "task_url":"{url}/api/v1/task/{id}","task_type":"Parse",
 "file_info":{"url":"https://files.example.test/in.pdf","name":"in.pdf","mime_type":"application/pdf",
  "page_count":null},
 "version_info":{"client_version":"Unspecified","server_version":"1.0.0"}}
""")
CHUNKS = [{"chunk_id": "1", "segments": []}, {"chunk_id": "2", "segments": []}]
MADE = {"chunks": CHUNKS, "file_name": "in.pdf", "page_count": 3, "pdf_url": "https://files.example.test/out.pdf"}
PARSED = reported("completed", output=MADE)
FILE_OF_3 = NEW["file_info"] | {"page_count": 3}

RUNNING: History = (Later(5), STARTED)
SUCCEEDED: History = (*RUNNING, Later(5), PARSED)
BROKEN: History = (*RUNNING, Later(5), FAILED)
CHANGED = INPUT | {"high_resolution": True, "ocr_strategy": "Auto"}
UPDATE = UpdateAsked(CHANGED)
OTHER_CONFIGURATION = NEW["configuration"] | {"high_resolution": True, "ocr_strategy": "Auto"}

WAS_CANCELLED = {"status": "Cancelled", "message": "Task cancelled", "completed": True}
STARTED_AT = {"started_at": "2026-01-02T03:04:10Z"}
FINISHED_AT = {"finished_at": "2026-01-02T03:04:15Z", "expires_at": "2026-01-02T04:04:15Z", "completed": True}
IS_RUNNING = {"status": "Processing", "message": "Task started"} | STARTED_AT
HAS_SUCCEEDED = {"status": "Succeeded", "message": "Task succeeded", "output": MADE, "file_info": FILE_OF_3}
UPDATED = {"message": "Task queued for update", "configuration": OTHER_CONFIGURATION}


class Row(NamedTuple):
    """What a task with this history shows that differs from a new one, and how its cancel is answered."""

    history: History
    shows: dict[str, Any]
    status: int
    cancel: str


def conflict(status: str) -> tuple[int, str]:
    return 400, f"Task cannot be cancelled: status is {status}"


TAKEN = (200, "Task cancelled")
ROWS = {
    "queued": Row((), {}, *TAKEN),
    "running": Row(RUNNING, IS_RUNNING, *conflict("Processing")),
    "running, with a message": Row(
        (*RUNNING, progressed(40, message="Cropping segments")),
        IS_RUNNING | {"message": "Cropping segments"},
        *conflict("Processing"),
    ),
    "running, asked to cancel": Row((*RUNNING, CancelAsked()), IS_RUNNING, *conflict("Processing")),
    "completed": Row(SUCCEEDED, STARTED_AT | FINISHED_AT | HAS_SUCCEEDED, *conflict("Succeeded")),
    "failed": Row(BROKEN, STARTED_AT | FINISHED_AT | {"status": "Failed", "message": "It broke."}, *conflict("Failed")),
    "failed without a reason": Row(
        (*RUNNING, Later(5), reported("failed", code="broke")),
        STARTED_AT | FINISHED_AT | {"status": "Failed", "message": "Task failed"},
        *conflict("Failed"),
    ),
    "cancelled": Row((Later(10), CancelAsked()), FINISHED_AT | WAS_CANCELLED, *conflict("Cancelled")),
    "expired": Row(
        (DeadlinePassed(),),
        {
            "status": "Failed",
            "message": "Task timed out",
            "completed": True,
            "finished_at": "2026-01-02T04:04:05Z",
            "expires_at": "2026-01-02T05:04:05Z",
        },
        *conflict("Failed"),
    ),
    "queued with an update": Row((*SUCCEEDED, Later(5), UPDATE), UPDATED, *TAKEN),
    "queued with an update, after a failure": Row((*BROKEN, Later(5), UPDATE), UPDATED, *TAKEN),
    "running with an update": Row(
        (*SUCCEEDED, UPDATE, Later(5), STARTED),
        UPDATED | {"status": "Processing", "message": "Task started", "started_at": "2026-01-02T03:04:20Z"},
        *conflict("Processing"),
    ),
    "completed after an update": Row(
        (*SUCCEEDED, UPDATE, STARTED, PARSED),
        {"started_at": "2026-01-02T03:04:15Z", "configuration": OTHER_CONFIGURATION} | FINISHED_AT | HAS_SUCCEEDED,
        *conflict("Succeeded"),
    ),
}
every_row = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)


async def make(service: Service, *history: Step, **fields: Any) -> TaskId:  # noqa: ANN401 - of its create
    return await service.make("chunkr", history, **({"input": INPUT} | fields))


def documented(task: TaskId, *, url: str) -> dict[str, Any]:
    text = json.dumps(NEW).replace("{id}", spell("chunkr", task)).replace("{url}", url)
    shown: dict[str, Any] = json.loads(text)
    return shown


def assert_says(reply: Reply, status: int, text: str) -> None:
    """Text, and nothing that any cache may keep."""
    assert (reply.status, reply.body) == (status, text)
    assert reply.headers["Content-Type"] == TEXT
    assert reply.headers["Cache-Control"] == "no-store"


@at_both_mounts
@every_row
async def test_a_task_reads_as_its_status_wants(service: Service, row: Row, prefix: str) -> None:
    task = await make(service, *row.history)
    reply = await service.query("chunkr", task, prefix=prefix)
    assert reply.status == 200
    assert reply.json() == documented(task, url=service.base_url + prefix) | row.shows
    assert reply.headers["Content-Type"] == "application/json"
    assert reply.headers["Cache-Control"] == "no-store"


@at_both_mounts
@every_row
async def test_a_cancel_is_answered_in_text_as_the_status_wants(service: Service, row: Row, prefix: str) -> None:
    task = await make(service, *row.history)
    assert_says(await service.cancel("chunkr", task, prefix=prefix), row.status, row.cancel)


@pytest.mark.parametrize("row", [row for row in ROWS.values() if row.status != 200])
async def test_a_refused_cancel_leaves_the_task_as_it_reads(service: Service, row: Row) -> None:
    task = await make(service, *row.history)
    before = await service.query("chunkr", task)
    await service.cancel("chunkr", task)
    assert (await service.query("chunkr", task)).body == before.body


async def test_a_cancelled_task_reads_as_cancelled_and_a_second_cancel_is_a_400(service: Service) -> None:
    task = await make(service, Later(10))
    await service.cancel("chunkr", task)
    read = (await service.query("chunkr", task)).json()
    assert read == documented(task, url=f"{service.base_url}/chunkr") | FINISHED_AT | WAS_CANCELLED
    assert_says(await service.cancel("chunkr", task), 400, "Task cannot be cancelled: status is Cancelled")


async def test_a_cancelled_task_never_starts(service: Service) -> None:
    task = await make(service)
    await service.cancel("chunkr", task)
    await service.go_on(task, STARTED, PARSED)
    assert (await service.query("chunkr", task)).json()["status"] == "Cancelled"


async def test_a_cancel_that_comes_after_the_start_names_the_new_status(service: Service) -> None:
    task = await make(service)
    assert (await service.query("chunkr", task)).json()["status"] == "Starting"
    await service.go_on(task, STARTED)
    assert_says(await service.cancel("chunkr", task), 400, "Task cannot be cancelled: status is Processing")


SAID_RUNNING = [
    *("Converting pages to images", "Running Chunkr analysis", "Running Azure analysis", "Cropping segments"),
    *("Chunking", "Processing segments", "Finishing up"),
]


@pytest.mark.parametrize("said", SAID_RUNNING)
async def test_the_servers_own_messages_are_the_workers_to_say(service: Service, said: str) -> None:
    task = await make(service, *RUNNING, progressed(10, message="Something else"), progressed(20, message=said))
    read = (await service.query("chunkr", task)).json()
    assert (read["status"], read["message"]) == ("Processing", said)


@pytest.mark.parametrize("said", ["Task failed", "Page limit exceeded"])
async def test_why_a_task_failed_is_its_message(service: Service, said: str) -> None:
    task = await make(service, *RUNNING, reported("failed", code="broke", message=said))
    read = (await service.query("chunkr", task)).json()
    assert (read["status"], read["message"], read["output"]) == ("Failed", said, None)


# Updates, and how they revert

BEFORE = {"succeeded": (SUCCEEDED, "Succeeded"), "failed": (BROKEN, "Failed")}
from_both_ends = pytest.mark.parametrize(("history", "status"), BEFORE.values(), ids=BEFORE)


@from_both_ends
async def test_a_cancelled_update_puts_back_all_that_was_before_it(
    service: Service, history: History, status: str
) -> None:
    task = await make(service, *history)
    before = await service.query("chunkr", task)
    await service.go_on(task, Later(60), UPDATE, Later(60))
    assert (await service.query("chunkr", task)).json()["status"] == "Starting"
    assert_says(await service.cancel("chunkr", task), 200, "Task cancelled")
    assert (await service.query("chunkr", task)).body == before.body
    assert_says(await service.cancel("chunkr", task), *conflict(status))
    assert (await service.types(task))[-2:] == ["cancel-requested", "update-reverted"]


@from_both_ends
async def test_an_update_that_fails_puts_back_all_that_was_before_it(
    service: Service, history: History, status: str
) -> None:
    task = await make(service, *history)
    before = await service.query("chunkr", task)
    await service.go_on(task, Later(60), UPDATE, STARTED, progressed(10, message="Chunking"), FAILED)
    assert (await service.query("chunkr", task)).body == before.body
    assert_says(await service.cancel("chunkr", task), *conflict(status))


async def test_a_reverted_update_can_be_asked_for_again(service: Service) -> None:
    task = await make(service, *SUCCEEDED, UPDATE)
    await service.cancel("chunkr", task)
    await service.go_on(task, UPDATE, STARTED, PARSED)
    read = (await service.query("chunkr", task)).json()
    assert (read["status"], read["configuration"]) == ("Succeeded", OTHER_CONFIGURATION)


async def test_only_runs_that_succeed_are_charged(service: Service) -> None:
    task = await make(service, *SUCCEEDED, estimated_credits="0.03")
    charged = [(await service.seen(task))["billing"]["charged_credits"]]
    for ending in (FAILED, PARSED):
        await service.go_on(task, UPDATE, STARTED, ending)
        charged.append((await service.seen(task))["billing"]["charged_credits"])
    assert charged == ["0.03", "0.03", "0.06"]


@pytest.mark.parametrize("history", [(), RUNNING, BROKEN], ids=["cancelled", "running", "failed"])
async def test_a_task_that_does_not_succeed_costs_nothing(service: Service, history: History) -> None:
    task = await make(service, *history, estimated_credits="0.03")
    await service.cancel("chunkr", task)
    assert (await service.seen(task))["billing"]["charged_credits"] == "0"


# Routes


@at_both_mounts
@in_every_spelling
async def test_every_spelling_of_the_query_shows_the_same(service: Service, base: str, prefix: str) -> None:
    task = await make(service, *SUCCEEDED)
    wanted = await service.query("chunkr", task, prefix=prefix)
    for end in ("", "/parse"):
        reply = await service.ask("chunkr", Call("GET", f"{base}/{spell('chunkr', task)}{end}"), prefix=prefix)
        assert (reply.status, reply.body) == (200, wanted.body)


@at_both_mounts
@in_every_spelling
async def test_every_spelling_of_the_cancel_cancels(service: Service, base: str, prefix: str) -> None:
    task = await make(service)
    call = Call("GET", f"{base}/{spell('chunkr', task)}/cancel")
    assert_says(await service.ask("chunkr", call, prefix=prefix), 200, "Task cancelled")
    assert (await service.seen(task))["status"] == "cancelled"
    assert_says(await service.ask("chunkr", call, prefix=prefix), *conflict("Cancelled"))


@at_both_mounts
@in_every_spelling
async def test_only_a_get_cancels(service: Service, base: str, prefix: str) -> None:
    task = await make(service)
    for method in ("HEAD", "POST", "PUT", "DELETE", "OPTIONS"):
        reply = await service.ask("chunkr", Call(method, f"{base}/{spell('chunkr', task)}/cancel"), prefix=prefix)
        assert (reply.status, reply.headers["Allow"], reply.headers["Cache-Control"]) == (405, "GET", "no-store")
        assert reply.body == ("" if method == "HEAD" else "Method not allowed")
    assert (await service.seen(task))["status"] == "queued"


@in_every_spelling
async def test_a_slash_at_the_end_is_another_route_and_never_redirects(service: Service, base: str) -> None:
    task = await make(service)
    for end in ("/", "/cancel/", "/parse/", "//cancel"):
        reply = await service.ask("chunkr", Call("GET", f"{base}/{spell('chunkr', task)}{end}"))
        assert_says(reply, 404, "Not found")
        assert "Location" not in reply.headers
    assert (await service.seen(task))["status"] == "queued"


@pytest.mark.parametrize(
    "spelled",
    [
        "parse",
        "cancel",
        "3d0c1f57-2f0e-4c5c-9d51-6a6f2d0f7c1",
        "3d0c1f572f0e4c5c9d516a6f2d0f7c11",
        "{3d0c1f57-2f0e-4c5c-9d51-6a6f2d0f7c11}",
        "ldtask_3d0c1f572f0e4c5c9d516a6f2d0f7c11",
        "%00",
        "3d0c1f57-2f0e-4c5c-9d51-6a6f2d0f7c11",
    ],
)
async def test_what_is_no_tasks_id_is_not_found(service: Service, spelled: str) -> None:
    for base, end in product(BASES, ("", "/parse", "/cancel")):
        assert_says(await service.ask("chunkr", Call("GET", f"{base}/{spelled}{end}")), 404, "Task not found")


async def test_an_id_in_capital_letters_is_the_same_id(service: Service) -> None:
    task = await make(service)
    reply = await service.ask("chunkr", Call("GET", f"/task/{spell('chunkr', task).upper()}"))
    assert (reply.status, reply.json()["task_id"]) == (200, spell("chunkr", task))


async def test_the_task_url_leads_back_to_the_task_by_the_clients_own_way(service: Service) -> None:
    task = await make(service)
    for prefix in ("/chunkr", ""):
        for host in (None, "ledger.example.test:8443"):
            headers = {} if host is None else {"Host": host}
            reply = await service.ask("chunkr", query("chunkr", task), prefix=prefix, **headers)
            origin = service.base_url if host is None else f"http://{host}"
            assert reply.json()["task_url"] == f"{origin}{prefix}/api/v1/task/{spell('chunkr', task)}"


async def test_the_task_url_is_what_the_clients_cancel_is_built_on(service: Service) -> None:
    task = await make(service)
    url = (await service.query("chunkr", task)).json()["task_url"]
    path = url.removeprefix(service.base_url)
    assert_says(await service.ask("chunkr", Call("GET", f"{path}/cancel"), prefix=""), 200, "Task cancelled")


# What the query takes

WITHOUT_CHUNKS = MADE | {"chunks": []}
FLAGS = {
    "": MADE,
    "?include_chunks=true": MADE,
    "?include_chunks=false": WITHOUT_CHUNKS,
    "?base64_urls=true": MADE,
    "?base64_urls=true&include_chunks=false": WITHOUT_CHUNKS,
    "?base64_urls=false&include_chunks=false": WITHOUT_CHUNKS,
    "?something=else": MADE,
}


@pytest.mark.parametrize("end", ["", "/parse"])
async def test_chunks_are_left_out_on_request(service: Service, end: str) -> None:
    task = await make(service, *SUCCEEDED)
    for flags, wanted in [*FLAGS.items(), *FLAGS.items()]:
        reply = await service.ask("chunkr", Call("GET", f"/task/{spell('chunkr', task)}{end}{flags}"))
        assert reply.json()["output"] == wanted


@pytest.mark.parametrize("flag", ["include_chunks", "base64_urls"])
@pytest.mark.parametrize("value", ["", "1", "True", "yes"])
async def test_a_flag_is_true_or_false(service: Service, flag: str, value: str) -> None:
    task = await make(service, *SUCCEEDED)
    reply = await service.ask("chunkr", Call("GET", f"/task/{spell('chunkr', task)}?{flag}={value}"))
    assert_says(reply, 400, f"Invalid request: {flag} is not true or false")


async def test_the_output_has_four_members_and_what_else_a_worker_made_of_the_document(service: Service) -> None:
    bare = await make(service, COMPLETED)
    full = await make(service, reported("completed", output=MADE | {"mime_type": "application/pdf", "pages": [1]}))
    assert (await service.query("chunkr", bare)).json()["output"] == {
        "chunks": [],
        "file_name": None,
        "page_count": None,
        "pdf_url": None,
    }
    assert (await service.query("chunkr", full)).json()["output"] == MADE | {
        "mime_type": "application/pdf",
        "pages": [1],
    }


# What is told of the file

SECRET = "c2VjcmV0"
SENT = f"data:application/pdf;base64,{SECRET}"
SPREADSHEET = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"


class Told(NamedTuple):
    """What a task, whose create had these fields, tells of its file; ``data_url`` when it is asked for data URLs."""

    input: dict[str, Any]
    url: str | None
    data_url: str | None
    name: str | None
    mime_type: str | None


def of_address(address: str, name: str | None, mime_type: str | None, **further: str) -> Told:
    return Told({"file": address, **further}, address, address, name, mime_type)


def sent_along(file: str, data_url: str | None, mime_type: str | None, **further: str) -> Told:
    return Told({"file": file, **further}, None, data_url, further.get("file_name"), mime_type)


TOLD = {
    "an address": of_address("https://a.example.test/b/in.pdf", "in.pdf", "application/pdf"),
    "an address with a query": of_address("https://a.example.test/in.PDF?b=/c.png", "in.PDF", "application/pdf"),
    "an address with a fragment": of_address("https://a.example.test/in.jpeg#/p.png", "in.jpeg", "image/jpeg"),
    "an address of a folder": of_address("https://a.example.test/b/", None, None),
    "an address without a path": of_address("https://a.example.test", None, None),
    "an address of an unknown type": of_address("https://a.example.test/in.mp4", "in.mp4", None),
    "an address that ends like a type": of_address("https://a.example.test/pdf", "pdf", None),
    "an address, named": of_address("https://a.example.test/1", "in.xlsx", SPREADSHEET, file_name="in.xlsx"),
    "base64": sent_along(SECRET, f"data:application/octet-stream;base64,{SECRET}", None),
    "base64, named": sent_along(SECRET, f"data:image/tiff;base64,{SECRET}", "image/tiff", file_name="secret.TIF"),
    "a data url": sent_along(SENT, SENT, "application/pdf"),
    "a data url, named otherwise": sent_along(SENT, SENT, "application/pdf", file_name="secret.png"),
    "a data url without a type": sent_along(
        f"data:;base64,{SECRET}", f"data:;base64,{SECRET}", "image/png", file_name="secret.png"
    ),
    "as much as is small": sent_along("A" * 8192, f"data:application/octet-stream;base64,{'A' * 8192}", None),
    "more than is small": sent_along("A" * 8196, None, None),
    "a large data url": sent_along(SENT + "A" * 8192, None, "application/pdf"),
    "nothing": Told({}, None, None, None, None),
}


@pytest.mark.parametrize("told", TOLD.values(), ids=TOLD)
async def test_a_file_that_was_sent_along_is_shown_on_request_only_and_if_it_is_small(
    service: Service, told: Told
) -> None:
    task = await make(service, input=told.input)
    path = f"/task/{spell('chunkr', task)}"
    for flag, url in (("", told.url), ("base64_urls=false", told.url), ("base64_urls=true", told.data_url)):
        one = (await service.ask("chunkr", Call("GET", f"{path}?{flag}"))).json()
        listed = (await service.ask("chunkr", Call("GET", f"/tasks?{flag}"))).json()
        for shown in (one, *listed):
            assert shown["configuration"]["input_file_url"] == url
            assert shown["file_info"] == {
                "url": url,
                "name": told.name,
                "mime_type": told.mime_type,
                "page_count": None,
            }
            assert "file" not in shown["configuration"]


async def test_the_pages_are_counted_once_the_worker_has_told(service: Service) -> None:
    task = await make(service, *SUCCEEDED)
    assert (await service.query("chunkr", task)).json()["file_info"] == FILE_OF_3


# Expiry


@pytest.mark.parametrize(
    "history",
    [SUCCEEDED, BROKEN, (Later(10), CancelAsked()), (*SUCCEEDED, UPDATE, STARTED, PARSED)],
    ids=["succeeded", "failed", "cancelled", "updated"],
)
async def test_a_finished_task_is_not_found_from_the_end_of_its_expires_in(service: Service, history: History) -> None:
    task = await make(service, *history)
    await service.go_on(task, Later(3599))
    assert (await service.query("chunkr", task)).status == 200
    await service.go_on(task, Later(1))
    for call in (query("chunkr", task), cancel("chunkr", task)):
        assert_says(await service.ask("chunkr", call), 404, "Task not found")
    assert (await service.seen(task))["version"] > 1


@pytest.mark.parametrize(
    ("history", "input"),
    [
        ((), INPUT),
        (RUNNING, INPUT),
        ((*SUCCEEDED, UPDATE), INPUT),
        (SUCCEEDED, {}),
        (SUCCEEDED, {"expires_in": None}),
        (SUCCEEDED, {"expires_in": True}),
        (SUCCEEDED, {"expires_in": "1"}),
        (SUCCEEDED, {"expires_in": 10**15}),
        (SUCCEEDED, {"expires_in": 2**63 - 1}),
    ],
    ids=["queued", "running", "updating", "none", "null", "true", "text", "far away", "farther"],
)
async def test_what_has_not_finished_or_does_not_expire_is_kept(
    service: Service,
    history: History,
    input: dict[str, Any],  # noqa: A002 - the field's name
) -> None:
    task = await make(service, *history, input=input)
    await service.go_on(task, Later(400 * DAY_SECONDS))
    reply = await service.query("chunkr", task)
    assert (reply.status, reply.json()["expires_at"]) == (200, None)


# Keys

MISSING, WRONG = "Authorization header is missing", "Invalid or inactive API key"


@at_both_mounts
async def test_a_key_is_shown_raw_or_as_a_bearers(service: Service, prefix: str) -> None:
    key, task = await service.key("chunkr"), await make(service)
    for value in (key, f"Bearer {key}", f"bearer {key}", f" {key} "):
        call = query("chunkr", task)
        assert (await service.send(call.method, prefix + call.path, headers={"Authorization": value})).status == 200


@at_both_mounts
@both_ways
async def test_without_a_good_key_the_answer_is_text_too(service: Service, way: Way, prefix: str) -> None:
    key, task = await service.key("chunkr"), await make(service)
    asked = way("chunkr", task)
    refused = {
        None: MISSING,
        "": MISSING,
        "   ": MISSING,
        "Bearer": WRONG,
        "nonsense": WRONG,
        "Bearer nonsense": WRONG,
        f"Basic {key}": WRONG,
        f"{key}x": WRONG,
        await service.revoked_key("chunkr"): WRONG,
        f"Bearer {await service.revoked_key('chunkr')}": WRONG,
    }
    for value, text in refused.items():
        headers = {} if value is None else {"Authorization": value}
        reply = await service.send(asked.method, prefix + asked.path, headers=headers)
        assert_says(reply, 401, text)
        assert reply.headers["WWW-Authenticate"] == "Bearer"
    assert (await service.seen(task))["status"] == "queued"


@pytest.mark.parametrize("role", [Role.WORKER, Role.OPERATOR])
async def test_a_key_that_is_no_clients_is_forbidden(service: Service, role: Role) -> None:
    call = cancel("chunkr", await make(service))
    key = await service.key("chunkr", role=role)
    reply = await service.send(call.method, f"/chunkr{call.path}", headers={"Authorization": key})
    assert_says(reply, 403, "API key cannot be used here")


# The other refusals

DELETED: History = (*SUCCEEDED, DeleteAsked())


@pytest.mark.parametrize(
    ("history", "account"),
    [((), STRANGER), (RUNNING, STRANGER), (SUCCEEDED, STRANGER), (DELETED, STRANGER), (DELETED, ACCOUNT)],
    ids=["another's, queued", "another's, running", "another's, finished", "another's, deleted", "deleted"],
)
async def test_what_the_account_cannot_see_is_not_found(service: Service, history: History, account: str) -> None:
    task = await make(service, *history)
    version = (await service.seen(task))["version"]
    for call in (query("chunkr", task), cancel("chunkr", task)):
        assert_says(await service.ask("chunkr", call, account=account), 404, "Task not found")
    assert (await service.seen(task))["version"] == version


async def test_a_missing_key_is_the_first_reason_and_an_unseen_task_the_second(service: Service) -> None:
    task = await make(service, *RUNNING)
    absent = cancel("chunkr", TaskId(bytes(16)))
    for call in (absent, cancel("chunkr", task)):
        assert_says(await service.send(call.method, f"/chunkr{call.path}"), 401, MISSING)
    assert_says(await service.cancel("chunkr", task, account=STRANGER), 404, "Task not found")


@at_both_mounts
async def test_the_service_says_that_it_is_well_and_under_its_prefix_also_without_a_key(
    service: Service, prefix: str
) -> None:
    for path in ("/health", "/api/v1/health"):
        assert_says(await service.ask("chunkr", Call("GET", path), prefix=prefix), 200, "OK - Version 1.0.0")
        bare = await service.send("GET", prefix + path)
        if prefix:
            assert_says(bare, 200, "OK - Version 1.0.0")
        else:
            assert_says(bare, 401, MISSING)


async def test_how_the_service_is_takes_no_look_at_any_task(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    await make(service)

    async def broken(*_: object) -> None:
        raise StorageError

    monkeypatch.setattr(service.ledger.engine, "page", broken)
    assert_says(await service.ask("chunkr", Call("GET", "/health")), 200, "OK - Version 1.0.0")
    monkeypatch.setattr(service.ledger.engine, "head", broken)
    assert_says(await service.ask("chunkr", Call("GET", "/health")), 503, "Service is temporarily unavailable")


async def test_an_unknown_route_is_a_404_of_its_own(service: Service) -> None:
    assert_says(await service.ask("chunkr", Call("GET", "/api/v2/task/1")), 404, "Not found")


FAULTS: dict[str, tuple[Exception, int, str]] = {
    "storage": (StorageError("the disk is full"), 503, "Service is temporarily unavailable"),
    "ours": (ZeroDivisionError("a secret"), 500, "Internal server error"),
}


@pytest.mark.parametrize(("fault", "status", "text"), FAULTS.values(), ids=FAULTS)
async def test_a_fault_changes_nothing_and_tells_nothing(
    service: Service, fault: Exception, status: int, text: str
) -> None:
    task = await make(service)
    before = await service.query("chunkr", task)
    service.watched.commit_faults.append(fault)
    assert_says(await service.cancel("chunkr", task), status, text)
    assert (await service.query("chunkr", task)).body == before.body


async def test_a_create_that_breaks_is_a_500_in_the_servers_words(service: Service) -> None:
    task = await make(service, *SUCCEEDED)
    before = await service.query("chunkr", task)
    for call in (
        Call("POST", "/task/parse", json.dumps(INPUT).encode()),
        Call("PATCH", f"/task/{spell('chunkr', task)}/parse", b'{"expires_in":1}'),
    ):
        service.watched.commit_faults.append(ZeroDivisionError("a secret"))
        assert_says(await service.ask("chunkr", call), 500, "Failed to create task")
    assert (await service.query("chunkr", task)).body == before.body


async def test_a_full_queue_is_a_503_to_be_tried_again(service: Service) -> None:
    task = await make(service)
    await service.query("chunkr", task)
    service.ledger.writer._queue_max = 0
    reply = await service.cancel("chunkr", task)
    assert_says(reply, 503, "Service is busy")
    assert reply.headers["Retry-After"] == "1"


async def test_a_body_beyond_all_measure_is_a_413(service: Service) -> None:
    call = cancel("chunkr", await make(service))._replace(body=b" " * 2**17)
    assert_says(await service.ask("chunkr", call), 413, "Payload too large")
