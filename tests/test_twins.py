"""The same request again while the first is still under way: it waits for the first one's answer and is given it.

beatra's documentation has a code for such a moment, ``idempotency_in_progress``. Here nobody can meet it: the log has
one writer, and what comes later under a key is decided after what came before it.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import msgspec
import pytest

from ledger.catalogue import Catalogue
from ledger.errors import StorageError
from ledger.memory import MemoryEngine
from tests.builders import Watched
from tests.http import Call, cancel, compact
from tests.samples import SAMPLES
from tests.serving import Service, serving, spelled
from tests.wire import Reply


class Twins(NamedTuple):
    """A create that may be sent again, and how its answers tell first from second."""

    contract: str
    path: str
    body: dict[str, Any]
    other: dict[str, Any]
    conflict: str
    marked: bool = True


def of(contract: str, path: str, conflict: str, **other: Any) -> Twins:  # noqa: ANN401 - fields of another body
    body = SAMPLES[f"POST /{contract}{path}"][0]
    return Twins(contract, path, body, body | other, conflict)


CREATES = [
    of("lemondata", "/v1/videos/generations", "idempotency_key_reused", prompt="a dog"),
    of("lemondata", "/v1/images/generations", "idempotency_key_reused", prompt="a dog"),
    of("lemondata", "/v1/music/generations", "idempotency_key_reused", prompt="a dog"),
    of("lemondata", "/v1/3d/generations", "idempotency_key_reused", prompt="a dog"),
    of("bytespike", "/v1/tasks/submit", "duplicate_out_task_id", params={})._replace(marked=False),
    of("beatra", "/v1/images/generations", "idempotency_key_conflict", n=1),
    of("beatra", "/v1/images/image-to-image", "idempotency_key_conflict", n=1),
    of("beatra", "/v1/music/text-to-music", "idempotency_key_conflict", prompt="a dog"),
    of("beatra", "/v1/music/reference-audio-to-music", "idempotency_key_conflict", prompt="a dog"),
]
KEY = ("Idempotency-Key", "k")
every_create = pytest.mark.parametrize("twins", CREATES, ids=[f"{one.contract} {one.path}" for one in CREATES])


@pytest.fixture
def watched() -> Watched:
    return Watched(MemoryEngine())


@pytest.fixture
async def service(watched: Watched) -> AsyncIterator[Service]:
    async with serving(watched) as running:
        yield running
        watched.commit_gate.open()


async def at_once(service: Service, watched: Watched, contract: str, *calls: Call) -> list[Reply]:
    """The answers to calls of which the later ones come while the first one is being committed."""
    await service.key(contract)
    watched.commit_gate.shut()
    asked = [asyncio.create_task(service.client(contract, calls[0], KEY))]
    await watched.commit_gate.someone_waits()
    asked += [asyncio.create_task(service.client(contract, call, KEY)) for call in calls[1:]]
    done, _ = await asyncio.wait(asked, timeout=0.1)
    assert not done, "nobody is answered before the first is committed"
    watched.commit_gate.open()
    return await asyncio.gather(*asked)


def marks(replies: list[Reply]) -> list[bool]:
    return ["idempotent-replayed" in reply.headers for reply in replies]


@every_create
async def test_a_create_that_comes_again_before_its_answer_gets_that_answer(
    service: Service, watched: Watched, twins: Twins
) -> None:
    call = Call("POST", twins.path, compact(twins.body).encode())
    replies = await at_once(service, watched, twins.contract, call, call, call)
    assert {reply.status for reply in replies} == {202 if twins.contract == "beatra" else 200}
    assert len({reply.body for reply in replies}) == 1
    assert marks(replies) == [False, twins.marked, twins.marked]
    assert len((await service.native("GET", "/tasks")).json()["tasks"]) == 1


@every_create
async def test_another_body_before_the_answer_is_the_conflict_that_it_would_be_after_it(
    service: Service, watched: Watched, twins: Twins
) -> None:
    calls = [Call("POST", twins.path, compact(body).encode()) for body in (twins.body, twins.other)]
    first, second = await at_once(service, watched, twins.contract, *calls)
    assert first.status in {200, 202}
    assert (second.status, second.json()["error"]["code"]) == (409, twins.conflict)
    assert len((await service.native("GET", "/tasks")).json()["tasks"]) == 1


@every_create
async def test_when_the_first_fails_the_second_is_one_and_the_key_is_not_lost(
    service: Service, watched: Watched, twins: Twins
) -> None:
    call = Call("POST", twins.path, compact(twins.body).encode())
    await service.key(twins.contract)
    watched.commit_faults.append(StorageError("the disk is full"))
    replies = await at_once(service, watched, twins.contract, call, call)
    assert replies[0].status == 503
    later = await service.client(twins.contract, call, KEY)
    taken = [reply for reply in (replies[1], later) if reply.status != 503]
    assert {reply.status for reply in taken} == {202 if twins.contract == "beatra" else 200}
    assert len({reply.body for reply in taken}) == 1
    assert len((await service.native("GET", "/tasks")).json()["tasks"]) == 1


@every_create
async def test_a_create_finds_its_first_answer_when_its_model_has_left_the_catalogue_and_another_finds_none(
    service: Service, twins: Twins, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = Call("POST", twins.path, compact(twins.body).encode())
    first = await service.client(twins.contract, call, KEY)
    monkeypatch.setattr(Catalogue, "find", lambda *_: None)
    monkeypatch.setattr(Catalogue, "terms", {})
    again = await service.client(twins.contract, call, KEY)
    assert (again.status, again.body) == (first.status, first.body)
    new = compact(twins.body | ({"out_task_id": "new"} if twins.contract == "bytespike" else {})).encode()
    refused = await service.client(twins.contract, call._replace(body=new))
    assert (refused.status, refused.json()["error"]["code"]) == (
        400,
        "unsupported_model" if twins.contract == "beatra" else "model_not_found",
    )


@pytest.mark.parametrize("running", [False, True], ids=["queued", "running"])
async def test_a_cancel_that_comes_again_before_its_answer_gets_that_answer(
    service: Service, watched: Watched, *, running: bool
) -> None:
    task = (await service.create("beatra"))["id"]
    if running:
        await service.reported(task, "started")
    call = cancel("beatra", spelled(task))._replace(body=b'{"reason":"r"}')
    replies = await at_once(service, watched, "beatra", call, call, call._replace(body=b"{}"))
    assert [reply.status for reply in replies] == [202, 202, 409]
    assert replies[0].body == replies[1].body
    assert marks(replies) == [False, True, False]
    assert msgspec.json.decode(replies[2].body)["error"]["code"] == "idempotency_key_conflict"
    kinds = [event["type"] for event in await service.history(task)]
    assert kinds.count("cancel-requested") == 1
