"""The headers of every answer, good or bad: LemonData and ByteSpike tell with each what is left of a budget.

Sources: the rate limit pages of LemonData (docs.lemondata.cc, an older copy: "on every response") and ByteSpike
(docs.bytespike.ai: "every response, success or failure").
"""

from collections.abc import AsyncIterator

import pytest

from api.limits import FAILURES_PER_MINUTE, PER_MINUTE, Limits, Tier
from ledger.errors import StorageError
from ledger.ids import TaskId
from ledger.memory import MemoryEngine
from ledger.task import Status
from tests.builders import Watched
from tests.http import CREATED_US, Call, cancel, query
from tests.samples import SAMPLES
from tests.serving import VENDORS, Service, serving, spelled
from tests.test_concurrency_limit import CREATES
from tests.wire import Reply

TELL = {"lemondata", "bytespike"}
"""The contracts that have such headers."""
NAMES = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset")
NOW_SECONDS = CREATED_US // 1_000_000
LIMITS = {"account": str(PER_MINUTE), "address": str(FAILURES_PER_MINUTE)}
"""Whose budget is told of, by its size."""


@pytest.fixture
def watched() -> Watched:
    return Watched(MemoryEngine())


@pytest.fixture
async def service(watched: Watched) -> AsyncIterator[Service]:
    async with serving(watched, limits=Limits(Tier(tasks_max=1), {})) as running:
        yield running


async def every_answer(service: Service, watched: Watched, contract: str) -> dict[str, tuple[int, str, Reply]]:
    """An answer of each kind, the status that it should have, and whose budget it should tell of."""
    ended = spelled((await service.bring(Status.COMPLETED, contract))["id"])
    task, absent = spelled((await service.create(contract))["id"]), TaskId(bytes(16))
    key, worker = await service.key(contract), service.worker
    one, missing, stop = query(contract, task), query(contract, absent), cancel(contract, task)
    prefix, order = f"/{contract}", f"/{contract}{CREATES[contract]}"

    async def ask(call: Call, *, key: str | None = key, prefix: str = prefix, body: bytes | None = None) -> Reply:
        sent = call.body or b"" if body is None else body
        return await service.ask(call.method, prefix + call.path, key=key, body=sent)

    answers = {
        "too many tasks": (429, "account", await service.ask("POST", order, key=key, json=SAMPLES[f"POST {order}"][0])),
        "a query": (200, "account", await ask(one)),
        "a poll": (200, "account", await ask(one)),
        "a query at the root": (200, "account", await ask(one, prefix="")),
        "a cancel": (202 if contract == "beatra" else 200, "account", await ask(stop)),
        "no such task": (404, "account", await ask(missing)),
        "too much": (413, "account", await ask(stop, body=b" " * 2**21)),
        "no route": (404, "account", await ask(Call("GET", "/nothing"))),
        "no route at the root": (404, "account", await ask(Call("GET", "/nothing"), prefix="")),
        "no route, a wrong key": (404, "address", await ask(Call("GET", "/nothing"), key="tl_wrong")),
        "no route, no key": (404, "address", await ask(Call("GET", "/nothing"), key=None)),
        "no such method": (405, "account", await ask(one._replace(method="PUT"))),
        "no key": (401, "address", await ask(one, key=None)),
        "no key, at the root": (401, "address", await ask(stop, key=None, prefix="")),
        "a wrong key": (401, "address", await ask(one, key="tl_wrong")),
        "a worker's key": (403, "account", await ask(one, key=worker)),
    }
    watched.read_faults.append(StorageError("the disk is gone"))
    answers["the store is down"] = (503, "account", await ask(missing))
    watched.read_faults.append(ZeroDivisionError())
    answers["our fault"] = (500, "account", await ask(missing))
    service.ledger.writer._queue_max = 0
    refuses = cancel("bytespike", ended) if contract == "bytespike" else stop
    answers["too many at once"] = (503, "account", await ask(refuses))
    return answers


@pytest.mark.parametrize("contract", VENDORS)
async def test_every_answer_tells_what_is_left_where_the_vendor_does(
    service: Service, watched: Watched, contract: str
) -> None:
    for what, (status, owner, reply) in (await every_answer(service, watched, contract)).items():
        assert reply.status == status, what
        told = [reply.headers.get(name) for name in NAMES]
        if contract not in TELL:
            assert told == [None] * 3, what
            continue
        limit, remaining, reset = told
        assert limit == LIMITS[owner], what
        assert remaining is not None, what
        assert reset is not None, what
        assert 0 < int(remaining) <= int(limit), what
        assert 0 <= int(reset) - NOW_SECONDS <= 60, what


@pytest.mark.parametrize("contract", VENDORS)
async def test_every_answer_has_its_own_request_id_and_says_when_to_come_back(
    service: Service, watched: Watched, contract: str
) -> None:
    answers = await every_answer(service, watched, contract)
    assert len({reply.headers["x-request-id"] for _, _, reply in answers.values()}) == len(answers)
    for what, (status, _, reply) in answers.items():
        assert ("retry-after" in reply.headers) == (status in {429, 503}), what
        assert reply.headers.get("www-authenticate") == ("Bearer" if status == 401 else None), what
        assert reply.headers["cache-control"] == "no-store", what


@pytest.mark.parametrize("contract", sorted(TELL))
async def test_keys_that_open_nothing_use_up_the_addresss_budget_and_the_answers_count_it_down(contract: str) -> None:
    async with serving(MemoryEngine(), limits=Limits(Tier(failed=2), {})) as service:
        call = query(contract, TaskId(bytes(16)))
        replies = [
            await service.ask(call.method, f"/{contract}{call.path}", key=None, body=call.body or b"") for _ in range(3)
        ]
        assert [(one.status, *(one.headers[name] for name in NAMES)) for one in replies] == [
            (401, "2", "1", str(NOW_SECONDS + 30)),
            (401, "2", "0", str(NOW_SECONDS + 60)),
            (429, "2", "0", str(NOW_SECONDS + 60)),
        ]
        lost = await service.ask("GET", f"/{contract}/nothing")
        assert [lost.headers[name] for name in NAMES] == ["2", "0", str(NOW_SECONDS + 60)]


@pytest.mark.parametrize("contract", sorted(TELL))
async def test_each_request_counts_down_and_the_reset_is_in_unix_seconds(contract: str) -> None:
    async with serving(MemoryEngine(), limits=Limits(Tier(read=60), {})) as service:
        call = query(contract, spelled((await service.create(contract))["id"]))
        replies = [await service.client(contract, call) for _ in range(3)]
    assert [[one.headers[name] for name in NAMES] for one in replies] == [
        ["60", str(60 - number), str(NOW_SECONDS + number)] for number in (1, 2, 3)
    ]


@pytest.mark.parametrize("contract", sorted(TELL))
async def test_a_request_without_a_route_costs_nothing_and_is_told_what_its_account_has_left_to_read(
    contract: str,
) -> None:
    async with serving(MemoryEngine(), limits=Limits(Tier(read=60), {})) as service:
        await service.client(contract, query(contract, spelled((await service.create(contract))["id"])))
        lost = [await service.client(contract, Call("GET", "/nothing")) for _ in range(2)]
    assert [[one.headers[name] for name in NAMES] for one in lost] == [["60", "59", str(NOW_SECONDS + 1)]] * 2
