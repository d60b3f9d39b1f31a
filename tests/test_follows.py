"""A task that is ordered in the place of an earlier one: what may be followed, where the link shows, how it is found.

What the link is for is told by S29, among the scenarios of money.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from api import native_follows
from api.bodies import read_json
from api.contracts import CONTRACTS, spellings
from api.native_bodies import CreateBody
from api.native_create import create_claims
from ledger.ids import ENTROPY_BYTES, Spelling, born_us, earliest_id, task_id
from ledger.sqlite import open_to_serve
from ledger.task import Status
from ledger.times import rfc3339
from scripts.cli import app, run
from tests.builders import CREATED_US, STRANGER, Watched, ident
from tests.http import MODELS, query
from tests.invariants import common_invariant
from tests.serving import ACCOUNT, Service, serving, spelled
from tests.test_scenarios import batched
from tests.wire import Reply
from tests.worded import code_of

UUID = Spelling.UUID.spell
ENDED = (Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.EXPIRED)


@pytest.fixture
async def service(watched: Watched) -> AsyncIterator[Service]:
    async with serving(watched) as running:
        yield running
        await common_invariant(watched.engine)


def order(follows: Any = msgspec.UNSET, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - fields of the create
    body = {"account": ACCOUNT, "contract": "bytespike", "model": MODELS["bytespike"], **fields}
    return body if follows is msgspec.UNSET else {**body, "follows": follows}


async def ordered(service: Service, follows: Any, **fields: Any) -> Reply:  # noqa: ANN401 - as above
    return await service.native("POST", "/tasks", order(follows, **fields), key=service.worker)


async def ended(service: Service, status: Status = Status.FAILED, **fields: Any) -> str:  # noqa: ANN401 - as above
    expires = {"expires_at": rfc3339(CREATED_US + 1_000_000)} if status is Status.EXPIRED else {}
    task: str = (await service.bring(status, **expires, **fields))["id"]
    return task


async def run_anew(service: Service, task: str) -> None:
    """Its owner updates a task of Chunkr's that has ended."""
    path = f"/chunkr/api/v1/task/{CONTRACTS['chunkr'].spelling.spell(spelled(task))}/parse"
    reply = await service.ask("PATCH", path, key=await service.key("chunkr"), json={"ocr_strategy": "Auto"})
    assert reply.status == 200, reply


async def found(service: Service, query: str) -> list[str]:
    reply = await service.native("GET", f"/tasks?{query}")
    assert reply.status == 200, reply
    return [task["id"] for task in reply.json()["tasks"]]


# What may be followed


@pytest.mark.parametrize("status", ENDED)
async def test_a_task_that_has_ended_may_be_followed_and_is_as_it_was(service: Service, status: Status) -> None:
    old = await ended(service, status)
    before = await service.task(old)
    reply = await ordered(service, old)
    assert (reply.status, reply.json()["follows"]) == (201, old)
    assert await service.task(old) == before


@pytest.mark.parametrize("spelling", spellings())
async def test_it_may_be_named_in_the_spelling_of_any_contract_and_is_shown_in_ours(
    service: Service, spelling: Spelling
) -> None:
    old = await ended(service)
    assert (await ordered(service, spelling.spell(spelled(old)))).json()["follows"] == old


@pytest.mark.parametrize("status", [Status.QUEUED, Status.RUNNING])
async def test_a_task_that_has_not_ended_is_not_followed(service: Service, status: Status) -> None:
    old, position = (await service.bring(status))["id"], await service.position()
    reply = await ordered(service, old)
    assert (reply.status, code_of("ledger", reply), reply.json()["param"]) == (409, "not_ended", "follows")
    assert reply.json()["detail"] == f"a task that is {status} cannot be followed"
    assert await service.position() == position


async def test_a_task_that_is_run_anew_has_not_ended(service: Service) -> None:
    old = (await service.bring(Status.COMPLETED, "chunkr"))["id"]
    await run_anew(service, old)
    assert code_of("ledger", await ordered(service, old)) == "not_ended"


@pytest.mark.parametrize("name", [UUID(ident(999)), "nonsense", "task_nonsense"])
async def test_a_task_that_there_is_not_and_another_account_s_are_one_answer(service: Service, name: str) -> None:
    foreign = await ended(service, account=STRANGER)
    position = await service.position()
    replies = [await ordered(service, one) for one in (name, foreign)]
    absent = await service.native("GET", f"/tasks/{UUID(ident(999))}")
    told = [{**reply.json(), "request_id": ""} for reply in (absent, *replies)]
    assert [reply.status for reply in replies] == [404, 404]
    assert told[0] == told[1] == told[2]
    assert await service.position() == position


async def test_what_the_customer_has_deleted_has_ended_and_may_be_followed(service: Service) -> None:
    old = (await service.bring(Status.COMPLETED, "chunkr"))["id"]
    path = f"/chunkr/api/v1/task/{CONTRACTS['chunkr'].spelling.spell(spelled(old))}"
    assert (await service.ask("DELETE", path, key=await service.key("chunkr"))).status < 300
    assert (await ordered(service, old)).json()["follows"] == old


@pytest.mark.parametrize("follows", [5, {}, "", "x" * 129, "a b"])
async def test_what_is_no_name_is_refused_as_any_other_field(service: Service, follows: object) -> None:
    reply = await ordered(service, follows)
    assert (reply.status, code_of("ledger", reply), reply.json()["param"]) == (422, "invalid_request", "follows")


async def test_the_first_reason_that_holds_is_the_answer(service: Service) -> None:
    live = (await service.bring(Status.RUNNING))["id"]
    limit = await service.native("PUT", f"/accounts/{ACCOUNT}/limit", {"limit_credits": "0"})
    assert limit.status == 200
    past, unknown = rfc3339(CREATED_US - 1), {"model": "nobody-knows"}
    cases: list[tuple[Any, dict[str, Any], str]] = [
        (live, {"expires_at": "soon"}, "invalid_request"),
        ("nonsense", {"expires_at": past, **unknown}, "task_not_found"),
        (UUID(ident(999)), {"expires_at": past, **unknown}, "task_not_found"),
        (live, {"expires_at": past, **unknown}, "not_ended"),
        (None, {"expires_at": past, **unknown}, "invalid_request"),
        (None, unknown, "unknown_model"),
        (None, {}, "insufficient_credits"),
    ]
    for follows, fields, code in cases:
        assert code_of("ledger", await ordered(service, follows, **fields)) == code, (follows, fields)


async def test_what_ends_in_the_same_commit_has_ended_and_what_begins_in_it_has_not(
    service: Service, watched: Watched
) -> None:
    old = (await service.bring(Status.RUNNING))["id"]
    early, end, late = await batched(
        service,
        watched,
        [ordered(service, old), service.report(old, "failed", code="broke"), ordered(service, old)],
    )
    assert (early.status, end.status, late.status) == (409, 200, 201)


# Twice


async def test_the_same_create_again_is_a_replay_whatever_has_become_of_the_one_that_it_follows(
    service: Service,
) -> None:
    old = (await service.bring(Status.COMPLETED, "chunkr"))["id"]
    first = await service.native("POST", "/tasks", order(old), Idempotency_Key="k1")
    await run_anew(service, old)
    again = await service.native("POST", "/tasks", order(old), Idempotency_Key="k1")
    other = await service.native("POST", "/tasks", order(), Idempotency_Key="k1")
    assert (first.status, again.status, again.json()["id"]) == (201, 200, first.json()["id"])
    assert (other.status, code_of("ledger", other)) == (422, "idempotency_key_reused")


class Said:
    """A request with a key."""

    headers = {"Idempotency-Key": "k1"}  # noqa: RUF012 - never changed


@pytest.mark.parametrize("follows", ["", ',"follows":null'])
def test_a_create_that_follows_nothing_has_the_fingerprint_that_it_had_before_there_was_the_field(follows: str) -> None:
    raw = '{"account":"acme","contract":"beatra","model":"suno-5.5","input":{"prompt":"a cat"}' + follows + "}"
    (claim,) = create_claims(Said(), read_json(raw.encode(), CreateBody))  # type: ignore[arg-type]  # only its headers
    assert claim.fingerprint == "e43b3978e1b0ab96becb4735deb5942b30b6a66e4d1c8b16b41fb0caeca7a6f0"


# Finding those that follow


async def test_those_that_follow_are_listed_newest_first_and_by_what_else_is_asked(service: Service) -> None:
    old, other = await ended(service), await ended(service)
    made = []
    for follows in (old, other, old, old):
        service.clock.advance(1)
        made.append((await ordered(service, follows)).json()["id"])
    await service.reported(made[2], "failed", code="broke")
    mine = [made[0], made[2], made[3]]
    assert await found(service, f"follows={old}&order=asc") == mine
    assert await found(service, f"follows={old}") == mine[::-1]
    assert await found(service, f"follows={old}&status=failed") == [made[2]]
    assert await found(service, f"follows={old}&model=another") == []
    assert await found(service, f"follows={old}&account={ACCOUNT}") == mine[::-1]
    assert await found(service, f"follows={old}&account={STRANGER}") == []
    assert await found(service, f"follows={made[0]}") == []
    assert await found(service, f"follows={UUID(ident(999))}") == []


@pytest.mark.parametrize("order_by", ["asc", "desc"])
@pytest.mark.parametrize("looked_at_max", [1, 3, 2000])
async def test_a_page_looks_at_no_more_than_its_bound_and_all_pages_have_each_once(
    service: Service, monkeypatch: pytest.MonkeyPatch, order_by: str, looked_at_max: int
) -> None:
    monkeypatch.setattr(native_follows, "LOOKED_AT_MAX", looked_at_max)
    monkeypatch.setattr(native_follows, "CHUNK", min(looked_at_max, 2))
    old = await ended(service)
    made = []
    for number in range(12):
        service.clock.advance(1)
        made.append((await ordered(service, old if number % 3 == 0 else None)).json()["id"])
    seen, cursor, pages = list[str](), "", 0
    while True:
        page = (await service.native("GET", f"/tasks?follows={old}&limit=2&order={order_by}{cursor}")).json()
        assert len(page["tasks"]) <= 2
        seen += [task["id"] for task in page["tasks"]]
        pages += 1
        if not page["has_more"]:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == (made[::3] if order_by == "asc" else made[::3][::-1])
    assert pages >= (12 // looked_at_max if looked_at_max < 12 else 2)


async def test_one_that_was_ordered_after_the_clock_fell_back_is_found_all_the_same(service: Service) -> None:
    old = await ended(service)
    service.clock.now_us -= 86_400_000_000
    new = (await ordered(service, old)).json()["id"]
    assert born_us(spelled(new)) >= born_us(spelled(old))
    assert await found(service, f"follows={old}") == [new]


@pytest.mark.parametrize("beside", ["stalled=true", "at=1"])
async def test_it_is_of_now_and_of_all_tasks(service: Service, beside: str) -> None:
    reply = await service.native("GET", f"/tasks?follows={await ended(service)}&{beside}")
    assert (reply.status, code_of("ledger", reply), reply.json()["param"]) == (422, "invalid_request", "follows")


def test_an_id_tells_the_millisecond_of_its_birth_and_nothing_of_that_is_before_its_first() -> None:
    one = task_id(at_us=CREATED_US + 1234, lane=0, entropy=bytes(ENTROPY_BYTES))
    assert born_us(one) == CREATED_US + 1000
    assert earliest_id(CREATED_US + 999) < earliest_id(CREATED_US + 1234) < one < earliest_id(CREATED_US + 2000)


# Wherever the link shows


async def test_the_link_is_a_fact_that_every_reader_shows_and_every_copy_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "ledger.db"
    async with serving(await open_to_serve(path)) as service:
        old = await ended(service)
        new = (await ordered(service, old)).json()["id"]
        (created, *_) = await service.history(new)
        assert created["data"]["follows"] == old
        shown = await service.client("bytespike", query("bytespike", spelled(new)))
        assert "follows" not in shown.json(), "a vendor's page has no such field"

    async def verb(*words: str) -> str:
        assert await asyncio.to_thread(run, app, words) == 0, capsys.readouterr()
        return capsys.readouterr().out

    exported, copy = tmp_path / "log.jsonl", tmp_path / "copy.db"
    exported.write_text(await verb("export", "--store", f"sqlite:{path}"))
    await verb("import", str(exported), "--store", f"sqlite:{copy}")
    for store in (f"sqlite:{path}", f"sqlite:{copy}"):
        assert f"follows={old}" in await verb("trace", new, "--store", store)
        (told,) = map(json.loads, (await verb("explain", new, "follows", "--store", store, "--json")).splitlines())
        assert (told["value"], [one["type"] for one in told["events"]]) == (old, ["created"])
        assert json.loads(await verb("verify", "--store", store, "--json"))["found"] == 0
        (last,) = (await verb("trace", new, "--store", store, "--json")).splitlines()[-1:]
        assert json.loads(last)["state"]["follows"] == old
    assert "never set" in await verb("explain", old, "follows", "--store", f"sqlite:{copy}")
