"""Places for requests that stay: counted, looked after together, and let go for a reason."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from api import settings, stays
from api.stays import Stay, StayLimits, Stays, Why
from ledger.errors import Overloaded
from ledger.keyring import Keyring
from ledger.keys import Role
from ledger.memory import MemoryEngine
from tests.builders import ACCOUNT, CREATED_US, STRANGER, Watched, append


class Place:
    """Where requests stay, and their keys."""

    def __init__(self, limits: StayLimits) -> None:
        self.engine = Watched(MemoryEngine())
        self.keys = Keyring(self.engine)
        self.now_us = CREATED_US
        self.stays = Stays(self.engine, clock=lambda: self.now_us, limits=limits)

    async def key(self) -> str:
        new = await self.keys.issue(account=ACCOUNT, contract="chunkr", role=Role.CLIENT, by="test", at_us=self.now_us)
        return new.key_id

    def enter(self, key_id: str, account: str = ACCOUNT, *, follows_log: bool = False) -> Stay:
        return self.stays.enter(account=account, key_id=key_id, is_gone=lambda: False, follows_log=follows_log)


@pytest.fixture
async def place(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    monkeypatch.setattr(stays, "LOOK_SECONDS", 0.01)
    found = Place(StayLimits(requests_max=4, account_max=3, feed_max=1))
    yield found
    found.stays.close()


async def until_ended(stay: Stay) -> Why:
    await stay.wait(asyncio.Event().wait(), seconds=20)
    assert stay.why is not None
    return stay.why


async def test_a_place_is_counted_in_all_by_account_and_among_the_feeds_readers(place: Place) -> None:
    with place.enter("k"), place.enter("k", follows_log=True), place.enter("k"):
        with pytest.raises(Overloaded):
            place.enter("k")
        with pytest.raises(Overloaded):
            place.enter("k", STRANGER, follows_log=True)
        with place.enter("k", STRANGER), pytest.raises(Overloaded):
            place.enter("k", "another")
    assert len(place.stays) == 0
    assert place.stays._counts == place.stays._keys == {}
    assert place.stays._rows == place.stays._unsure == {}


async def test_a_place_is_given_back_once(place: Place) -> None:
    first, second = place.enter("k"), place.enter("k")
    first.leave()
    first.leave()
    assert len(place.stays) == 1
    second.leave()


async def test_what_is_waited_for_comes_or_its_time_is_over_or_the_stay_is(place: Place) -> None:
    with place.enter(await place.key()) as stay:
        assert await stay.wait(asyncio.sleep(0), seconds=20)
        assert not await stay.wait(asyncio.Event().wait(), seconds=0.01)
        waiting = asyncio.create_task(stay.wait(asyncio.Event().wait(), seconds=20))
        await asyncio.sleep(0)
        stay.end(Why.SHUTDOWN)
        stay.end(Why.LEFT)
        assert not await waiting
        assert stay.why is Why.SHUTDOWN, "the first reason stands"
        assert not await stay.wait(asyncio.Event().wait(), seconds=20)


async def test_whoever_has_left_is_noticed(place: Place) -> None:
    gone: list[None] = []
    key = await place.key()
    with place.stays.enter(account=ACCOUNT, key_id=key, is_gone=lambda: bool(gone)) as stay, place.enter(key) as other:
        gone.append(None)
        assert await until_ended(stay) is Why.LEFT
        assert other.why is None


async def test_a_key_that_was_rotated_dies_when_its_overlap_is_over_though_nothing_is_appended(place: Place) -> None:
    key = await place.key()
    await place.keys.rotate(key, overlap_us=60_000_000, by="test", at_us=place.now_us)
    with place.enter(key) as stay:
        await asyncio.sleep(0.1)
        assert stay.why is None
        place.now_us += 60_000_000
        assert await until_ended(stay) is Why.KEY_DEAD


async def test_with_many_keys_each_has_its_turn(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stays, "KEYS_LOOKED_AT_MAX", 1)
    keys = [await place.key() for _ in range(3)]
    entered = [place.enter(key) for key in keys]
    await place.keys.revoke(keys[-1], by="test", at_us=place.now_us)
    for number in range(1, 6):  # and the log grows all the while
        await place.engine.commit([append(number)])
        await asyncio.sleep(0.02)
    assert await until_ended(entered[-1]) is Why.KEY_DEAD
    assert [stay.why for stay in entered[:-1]] == [None, None]


async def test_nobody_is_let_in_once_the_service_stops(place: Place) -> None:
    stay = place.enter("k")
    place.stays.close()
    assert stay.why is Why.SHUTDOWN
    with pytest.raises(Overloaded):
        place.enter("k")


def test_the_bounds_are_settings() -> None:
    found = msgspec.convert({"waiting": {"feed_max": 7}}, settings.Settings)
    assert found.waiting == StayLimits(feed_max=7)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"waiting": {"feed_max": 0}}, settings.Settings)
