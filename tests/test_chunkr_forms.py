"""Chunkr's forms over HTTP: the deprecated create and update, and what else a multipart body can be sent to.

Source: the open-source server (lumina-ai-inc/chunkr), "Create Task" and "Update Task" with multipart/form-data.
"""

import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ledger.ids import Spelling, TaskId
from ledger.keys import Role
from tests.form_bodies import BAD_FORMS, DECLARED, FILE, Bad, field, form, part, upload
from tests.http import Call, Reply, Service, compact, spell
from tests.processes import Server, keys_in
from tests.test_chunkr import BASES, INPUT, NEW, SUCCEEDED, assert_says, documented, in_every_spelling, make
from tests.test_chunkr_orders import create, position

PDF = b"%PDF-1.7"
PDF_BASE64 = base64.b64encode(PDF).decode()
both_ends = pytest.mark.parametrize("end", ["", "/parse"], ids=["deprecated", "parse"])


async def send(service: Service, *parts: bytes, base: str = "/task", end: str = "", **headers: str) -> Reply:
    return await service.ask("chunkr", Call("POST", base + end, form(*parts)), Content_Type=DECLARED, **headers)


async def change(service: Service, task: TaskId, *parts: bytes, base: str = "/task", end: str = "") -> Reply:
    call = Call("PATCH", f"{base}/{spell('chunkr', task)}{end}", form(*parts))
    return await service.ask("chunkr", call, Content_Type=DECLARED)


def named(reply: Reply) -> TaskId:
    assert reply.status == 200, reply
    task = Spelling.UUID.parse(reply.json()["task_id"])
    assert task is not None
    return task


# Create


@both_ends
@in_every_spelling
async def test_a_form_creates_a_task_of_the_file_that_it_brings(service: Service, base: str, end: str) -> None:
    reply = await send(service, upload(PDF, "in.pdf"), field("expires_in", "3600"), base=base, end=end)
    task = named(reply)
    wanted = documented(task, url=f"{service.base_url}/chunkr")
    wanted["configuration"]["input_file_url"] = wanted["file_info"]["url"] = None
    assert reply.json() == wanted
    assert (await service.query("chunkr", task)).body == reply.body
    assert await service.types(task) == ["created"]


async def test_json_creates_a_task_on_the_deprecated_route_too(service: Service) -> None:
    for base in BASES:
        task = named(await service.ask("chunkr", Call("POST", base, compact(INPUT).encode())))
        assert (await service.query("chunkr", task)).json() == documented(task, url=f"{service.base_url}/chunkr")


OFFICE = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
FILES = {
    "a type": (upload(PDF, "a.pdf", "Content-Type: application/pdf"), f"data:application/pdf;base64,{PDF_BASE64}"),
    "a type with a parameter": (
        upload(b"x", "a.png", "Content-Type: image/PNG; name=a"),
        f"data:image/png;base64,{base64.b64encode(b'x').decode()}",
    ),
    "an office document": (upload(b"PK", "a.docx", f"Content-Type: {OFFICE}"), f"data:{OFFICE};base64,UEs="),
    "no type": (upload(PDF, "a.pdf"), PDF_BASE64),
    "no type that is known": (upload(PDF, "a.pdf", "Content-Type: application/octet-stream"), PDF_BASE64),
    "bytes that are no text": (
        upload(b"%PDF-\x00\xff\r\n--b\r\n\r\n", "a.pdf"),
        base64.b64encode(b"%PDF-\x00\xff\r\n--b\r\n\r\n").decode(),
    ),
}


@pytest.mark.parametrize(("sent", "kept"), FILES.values(), ids=FILES)
async def test_a_forms_file_is_kept_as_json_would_have_brought_it(service: Service, sent: bytes, kept: str) -> None:
    task = named(await send(service, sent))
    asked = (await service.seen(task))["input"]
    assert asked["file"] == kept
    by_json = named(await create(service, file=kept, file_name=asked["file_name"]))
    assert (await service.seen(by_json))["input"] == asked


async def test_the_same_document_by_form_and_by_json_is_one_request(service: Service) -> None:
    key = {"Idempotency_Key": "k"}
    first = await send(service, upload(PDF, "a.pdf"), field("ocr_strategy", '"Auto"'), **key)
    for parts in ([field("ocr_strategy", "Auto"), upload(PDF, "a.pdf")], [field("ocr_strategy", "Auto"), FILE]):
        again = await send(service, *parts, **key)
        assert again.body == first.body
    by_json = await create(service, file=PDF_BASE64, file_name="a.pdf", ocr_strategy="Auto", key="k")
    assert by_json.body == first.body
    other = await send(service, upload(PDF + b"!", "a.pdf"), field("ocr_strategy", "Auto"), **key)
    assert_says(other, 409, "Idempotency key was used for another request")


FIELDS: dict[str, tuple[str, str, object]] = {
    "a number": ("expires_in", "60", 60),
    "a flag": ("high_resolution", "true", True),
    "a word": ("ocr_strategy", "Auto", "Auto"),
    "a word as JSON": ("segmentation_strategy", ' "Page" ', "Page"),
    "an object": (
        "chunk_processing",
        '{"target_length": 100}',
        {"target_length": 100, "tokenizer": {"Enum": "Word"}},
    ),
    "segments": (
        "segment_processing",
        '{"table": {"format": "Html"}, "Text": null}',
        {"Table": {"format": "Html"}},
    ),
    "a model": ("llm_processing", '{"model_id": "m1"}', {"model_id": "m1"}),
    "a pipeline": ("pipeline", "Azure", "Azure"),
    "how errors are handled": ("error_handling", "Continue", "Continue"),
}


@pytest.mark.parametrize(("name", "text", "value"), FIELDS.values(), ids=FIELDS)
async def test_a_field_of_a_form_is_json_or_a_word(service: Service, name: str, text: str, value: object) -> None:
    task = named(await send(service, field(name, text), FILE))
    wanted = {key: one for key, one in NEW["configuration"].items() if key != "expires_in"}
    shown = (await service.query("chunkr", task)).json()["configuration"]
    assert shown == wanted | {"input_file_url": None, name: value}


async def test_what_a_form_brings_that_nobody_knows_is_passed_over(service: Service) -> None:
    odd = part(b"\xff{", 'name="nobody_knows"; filename="b.pdf"')
    task = named(await send(service, odd, FILE, field("file_name", "other.pdf"), field("ocr_strategy", "null")))
    assert (await service.seen(task))["input"]["file_name"] == "a.pdf"
    assert (await service.query("chunkr", task)).json()["configuration"]["ocr_strategy"] == "All"


UNFIT = {
    "a file without a name": (part(PDF, "name=file"), "File must have a filename"),
    "an empty name": (upload(PDF, ""), "File must have a filename"),
    "an address in the place of a file": (
        field("file", "https://files.example.test/in.pdf"),
        "File must have a filename",
    ),
    "an empty file": (upload(b"", "a.pdf"), "Unsupported file type"),
    "text": (upload(b"hello", "a.txt", "Content-Type: text/plain"), "Unsupported file type"),
    "text without a type": (upload(b"hello", "a.pdf"), "Unsupported file type"),
    "a film": (upload(PDF, "a.mp4", "Content-Type: video/mp4"), "Unsupported file type"),
    "a type that is none": (upload(PDF, "a.pdf", "Content-Type: pdf"), "Unsupported file type"),
    "no file": (field("expires_in", "1"), "Invalid request: Object missing required field `file`"),
}


@pytest.mark.parametrize(("sent", "text"), UNFIT.values(), ids=UNFIT)
async def test_what_is_no_document_is_refused_and_leaves_nothing(service: Service, sent: bytes, text: str) -> None:
    before = await position(service)
    assert_says(await send(service, sent), 400, text)
    assert await position(service) == before


MISSHAPEN = {
    "an unknown word": ("ocr_strategy", "Some"),
    "no number": ("expires_in", "soon"),
    "a negative time": ("expires_in", "-1"),
    "a number in quotation marks": ("expires_in", '"1"'),
    "Python's true": ("high_resolution", "True"),
    "nothing": ("high_resolution", ""),
    "half an object": ("segment_processing", "{"),
    "a list": ("chunk_processing", "[]"),
    "a member twice": ("chunk_processing", '{"target_length": 1, "target_length": 2}'),
    "a huge number": ("expires_in", "9" * 30),
    "a segment twice": ("segment_processing", '{"Table": {}, "table": {}}'),
    "a NUL": ("llm_processing", '{"model_id": "\\u0000"}'),
    "too deep": ("segment_processing", "[" * 10_000 + "]" * 10_000),
}


@pytest.mark.parametrize(("name", "text"), MISSHAPEN.values(), ids=MISSHAPEN)
async def test_a_field_of_another_shape_is_a_400_that_names_it(service: Service, name: str, text: str) -> None:
    task = await make(service, *SUCCEEDED)
    before = await position(service)
    for reply in (await send(service, FILE, field(name, text)), await change(service, task, field(name, text))):
        assert (reply.status, reply.headers["Content-Type"]) == (400, "text/plain; charset=utf-8")
        assert reply.body.startswith("Invalid request: ")
        assert name in reply.body
    assert await position(service) == before


@pytest.mark.parametrize("bad", BAD_FORMS.values(), ids=BAD_FORMS)
async def test_what_is_no_form_is_a_400_and_leaves_nothing(service: Service, bad: Bad) -> None:
    task = await make(service, *SUCCEEDED)
    before = await position(service)
    for call in (Call("POST", "/task"), Call("PATCH", f"/task/{spell('chunkr', task)}")):
        told = {"Content_Type": bad.declared}
        assert_says(
            await service.ask("chunkr", call._replace(body=bad.body), **told), 400, f"Invalid request: {bad.reason}"
        )
    assert await position(service) == before


async def test_a_forms_file_may_fill_the_body_that_a_create_may_have(service: Service) -> None:
    frame = len(form(upload(b"", "a.pdf")))
    largest = PDF + b"\x00" * (2**20 - frame - len(PDF))
    task = named(await send(service, upload(largest, "a.pdf")))
    assert (await service.seen(task))["input"]["file"] == base64.b64encode(largest).decode()
    assert_says(await send(service, upload(largest + b"!", "a.pdf")), 413, "Payload too large")


@both_ends
@pytest.mark.parametrize("flag", ["include_chunks", "base64_urls"])
async def test_a_create_reads_no_query_for_what_it_has_done_is_done(service: Service, end: str, flag: str) -> None:
    call = Call("POST", f"/task{end}?{flag}=perhaps", compact(INPUT).encode())
    assert (await service.ask("chunkr", call)).status == 200
    task = await make(service, *SUCCEEDED)
    call = Call("PATCH", f"/task/{spell('chunkr', task)}{end}?{flag}=perhaps", b'{"expires_in":1}')
    assert (await service.ask("chunkr", call)).json()["status"] == "Starting"


# Update


@both_ends
@in_every_spelling
async def test_a_form_updates_a_task(service: Service, base: str, end: str) -> None:
    task = await make(service, *SUCCEEDED)
    reply = await change(service, task, field("high_resolution", "true"), base=base, end=end)
    assert reply.json() == documented(task, url=f"{service.base_url}/chunkr") | {
        "message": "Task queued for update",
        "configuration": NEW["configuration"] | {"high_resolution": True},
    }
    assert (await service.types(task))[-1] == "update-requested"


async def test_json_updates_a_task_on_the_deprecated_route_too(service: Service) -> None:
    for base in BASES:
        task = await make(service, *SUCCEEDED)
        call = Call("PATCH", f"{base}/{spell('chunkr', task)}", b'{"high_resolution":true}')
        assert (await service.ask("chunkr", call)).json()["configuration"]["high_resolution"] is True


UNCHANGED = {
    "nothing": [],
    "what is there": [field("expires_in", "3600")],
    "a default": [field("ocr_strategy", "All")],
    "a file": [upload(b"%PDF-2.0", "other.pdf")],
    "a file that is none": [field("file", "")],
    "another pipeline": [field("pipeline", "Azure")],
}


@pytest.mark.parametrize("parts", UNCHANGED.values(), ids=UNCHANGED)
async def test_a_form_that_changes_nothing_is_refused(service: Service, parts: list[bytes]) -> None:
    task = await make(service, *SUCCEEDED)
    assert_says(await change(service, task, *parts), 400, "Task cannot be updated: configuration is unchanged")


async def test_a_form_that_updates_too_early_is_refused_with_the_status(service: Service) -> None:
    task = await make(service)
    assert_says(
        await change(service, task, field("expires_in", "1")), 400, "Task cannot be updated: status is Starting"
    )


# A program that sends forms


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
async def test_curl_creates_and_updates_by_form(tmp_path: Path) -> None:
    path, file = tmp_path / "ledger.db", tmp_path / "in.pdf"
    file.write_bytes(b"%PDF-1.7\r\n\x00\xff")
    key, worker = await keys_in(path, ("chunkr", Role.CLIENT), ("ledger", Role.WORKER))
    async with Server(path) as server:
        await server.start()
        base, native = (f"http://127.0.0.1:{server.port}{end}" for end in ("/chunkr/api/v1/task", "/ledger/v1/tasks"))
        made = curl(key, base, f"file=@{file}", 'segment_processing={"Table":{"format":"Html"}}', "ocr_strategy=Auto")
        assert (made["status"], made["file_info"]["name"]) == ("Starting", "in.pdf")
        assert made["configuration"]["segment_processing"] == {"Table": {"format": "Html"}}
        report = f"{native}/{made['task_id']}/events"
        curl(f"Bearer {worker}", report, body='{"type":"completed","output":{"chunks":[]}}')
        changed = curl(key, f"{base}/{made['task_id']}", "expires_in=60", method="PATCH")
        assert (changed["message"], changed["configuration"]["expires_in"]) == ("Task queued for update", 60)
        assert await server.stop() == 0


def curl(key: str, url: str, *fields: str, method: str = "POST", body: str | None = None) -> dict[str, Any]:
    sent = [word for one in fields for word in ("-F", one)] if body is None else ["-d", body]
    command = ["curl", "-sSf", "--noproxy", "*", "-m", "30", "-X", method, "-H", f"Authorization: {key}", *sent, url]
    answer: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)
    return answer
