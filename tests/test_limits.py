"""Budgets of requests: what may be spent at once, when it is back, whose it is, and how it is told."""

from collections.abc import AsyncIterator

import msgspec
import pytest

from api.contracts.shape import Alter, Browse, Cancel, Read, Submit
from api.limits import BUDGETS_MAX, WINDOW_US, Limits, Tier
from api.refusals import RateLimited, Standing
from api.settings import Settings
from ledger.memory import MemoryEngine
from tests.http import Call, query
from tests.samples import SAMPLES
from tests.serving import ACCOUNT, STRANGER, Service, serving, spelled

NOW_US = 1_700_000_000_000_000
THREE = Tier(read=3, create=3, cancel=3, failed=3)


def refused(limits: Limits, account: str = "a", kind: type = Read, *, at_us: int = NOW_US) -> RateLimited:
    with pytest.raises(RateLimited) as caught:
        limits.spend(account, kind, at_us)
    return caught.value


@pytest.mark.parametrize("limit", [1, 3, 7, 1000, 60_000_000])
def test_a_minutes_worth_may_be_spent_at_once_and_not_one_more(limit: int) -> None:
    limits = Limits(Tier(read=limit), {})
    spent = min(limit, 1000)
    standings = [limits.spend("a", Read, NOW_US) for _ in range(spent)]
    assert [one.remaining for one in standings] == [limit - number for number in range(1, spent + 1)]
    if spent == limit:
        assert refused(limits).standing.remaining == 0


def test_what_was_spent_comes_back_evenly() -> None:
    limits = Limits(THREE, {})
    for _ in range(3):
        limits.spend("a", Read, NOW_US)
    refusal = refused(limits)
    assert refusal.retry_after_seconds == 20  # a third of a minute
    assert refusal.standing == Standing(3, 0, NOW_US + WINDOW_US)
    refused(limits, at_us=NOW_US + 20_000_000 - 1)
    assert limits.spend("a", Read, NOW_US + 20_000_000).remaining == 0
    assert limits.spend("a", Read, NOW_US + 10 * WINDOW_US).remaining == 2  # not more than a minute's worth is saved


def test_who_comes_back_when_told_is_let_in() -> None:
    limits = Limits(Tier(read=7), {})
    for _ in range(7):
        limits.spend("a", Read, NOW_US)
    limits.spend("a", Read, NOW_US + refused(limits).retry_after_seconds * 1_000_000)


@pytest.mark.parametrize("back_us", [1, WINDOW_US, 60 * WINDOW_US])
def test_a_clock_that_was_set_back_locks_nobody_out(back_us: int) -> None:
    limits = Limits(THREE, {})
    for _ in range(3):
        limits.spend("a", Read, NOW_US)
        limits.fail("10.0.0.1", NOW_US)
    now_us = NOW_US - back_us
    assert limits.address("10.0.0.1", now_us) == Standing(3, 3, now_us)
    assert limits.spend("a", Read, now_us) == Standing(3, 2, now_us + WINDOW_US // 3)


def test_a_clock_that_was_set_back_a_little_holds_nobody_up_for_more_than_a_minute() -> None:
    limits = Limits(THREE, {})
    limits.spend("a", Read, NOW_US)
    assert refused(limits, at_us=NOW_US - WINDOW_US // 2).retry_after_seconds == 10
    assert limits.spend("a", Read, NOW_US - WINDOW_US // 2 + 10_000_000).remaining == 0


def test_each_account_and_each_class_has_a_budget_of_its_own() -> None:
    limits = Limits(THREE, {"vip": Tier(read=5)})
    for _ in range(3):
        limits.spend("a", Read, NOW_US)
    refused(limits)
    refused(limits, kind=Browse)  # reading too
    limits.spend("b", Read, NOW_US)
    limits.spend("a", Submit, NOW_US)
    limits.spend("a", Cancel, NOW_US)
    assert limits.spend("a", Alter, NOW_US).remaining == 1  # one class with cancels
    assert limits.spend("vip", Read, NOW_US).limit == 5


def test_budgets_take_a_bounded_memory() -> None:
    limits = Limits(THREE, {})
    for number in range(BUDGETS_MAX + 10):
        limits.spend(str(number), Read, NOW_US)
    assert len(limits._budgets) <= BUDGETS_MAX
    limits.spend("late", Read, NOW_US + 2 * WINDOW_US)


def test_a_tier_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match=r"acme is in tier 'gold', and there is no \[tiers.gold\]"):
        Settings(accounts={"acme": "gold"})
    budgets = Settings(tiers={"gold": Tier(read=1)}, accounts={"acme": "gold"}).budgets()
    assert budgets.spend("acme", Read, NOW_US).limit == 1
    assert budgets.spend("other", Read, NOW_US).limit == 100_000


# Over HTTP


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with serving(MemoryEngine(), limits=Limits(THREE, {})) as running:
        yield running


WORDS = {
    "lemondata": ("rate_limit_exceeded", True),
    "bytespike": ("rate_limit_exceeded", True),
    "chunkr": ("Usage limit exceeded", False),
    "beatra": ("rate_limited", False),
}


@pytest.mark.parametrize("contract", WORDS)
async def test_an_account_that_asks_too_often_is_told_so_in_its_contracts_words(
    service: Service, contract: str
) -> None:
    word, tells = WORDS[contract]
    task = spelled((await service.create(contract))["id"])
    for remaining in (2, 1, 0):
        reply = await service.client(contract, query(contract, task))
        assert reply.status == 200
        assert reply.headers.get("x-ratelimit-remaining") == (str(remaining) if tells else None)
    reply = await service.client(contract, query(contract, task))
    assert (reply.status, reply.headers["retry-after"]) == (429, "20")
    assert word.encode() in reply.body
    assert reply.headers.get("x-ratelimit-remaining") == ("0" if tells else None)
    assert reply.headers.get("x-ratelimit-limit") == ("3" if tells else None)
    assert service.logged()[-1]["refusal"] == "RateLimited"
    service.clock.advance(20)
    assert (await service.client(contract, query(contract, task))).status == 200


async def test_a_key_is_not_taken_by_a_create_that_came_too_soon(service: Service) -> None:
    body = SAMPLES["POST /beatra/v1/music/text-to-music"][0]
    call, keyed = Call("POST", "/v1/music/text-to-music", msgspec.json.encode(body)), ("Idempotency-Key", "k")
    for _ in range(3):
        assert (await service.client("beatra", call)).status == 202
    assert (await service.client("beatra", call, keyed)).status == 429
    service.clock.advance(60)
    replies = [await service.client("beatra", call, keyed) for _ in range(2)]
    assert [(reply.status, "idempotent-replayed" in reply.headers) for reply in replies] == [(202, False), (202, True)]


async def test_workers_and_operators_are_not_limited(service: Service) -> None:
    for _ in range(10):
        assert (await service.native("GET", "/tasks")).status == 200


async def test_another_accounts_haste_holds_nobody_up(service: Service) -> None:
    task = spelled((await service.create())["id"])
    for _ in range(5):
        await service.client("lemondata", query("lemondata", task))
    stranger = await service.key("lemondata", account=STRANGER)
    assert STRANGER != ACCOUNT
    call = query("lemondata", task)
    assert (await service.ask(call.method, f"/lemondata{call.path}", key=stranger)).status == 404


async def test_keys_that_open_nothing_are_counted_by_address_and_good_ones_pass_still(service: Service) -> None:
    task = spelled((await service.create())["id"])
    call = query("lemondata", task)
    replies = [await service.ask(call.method, f"/lemondata{call.path}", key="tl_wrong") for _ in range(5)]
    assert [reply.status for reply in replies] == [401, 401, 401, 429, 429]
    assert replies[-1].headers["retry-after"] == "20"
    assert (await service.client("lemondata", call)).status == 200
    service.clock.advance(60)
    assert (await service.ask(call.method, f"/lemondata{call.path}", key="tl_wrong")).status == 401
