"""What an engine is: every engine passes this suite, and whatever passes it can carry the ledger."""

import asyncio
import hashlib
from collections import Counter
from typing import Any

import pytest
from msgspec.structs import replace

from ledger.chain import GENESIS, Place, link
from ledger.engine import Engine
from ledger.errors import StorageError
from ledger.events import Created, Deleted, Held, Payload, Refunded, School, Terms
from ledger.ids import TaskId
from ledger.records import SUM_MAX_MICROS, AccountRow, Append, Entry, Head, Move, Placed, Recorded, Stale, TaskFilter
from ledger.sqlite_sql import READ_MAX
from ledger.task import Status
from tests.builders import (
    ENGINES,
    PERSISTENT,
    SEAL_KEY,
    Store,
    append,
    chained,
    claim_row,
    claims_only,
    credit,
    entries,
    ident,
    key_row,
    owes,
    progressed,
    sealed,
    task_row,
    whole_log,
)
from tests.rules_dsl import ACCOUNT, CREATED_US, STRANGER

on_engines_that_persist = pytest.mark.parametrize("store", PERSISTENT, indirect=True)
on_engines_that_fill_up = pytest.mark.parametrize(
    "store", [name for name, kind in ENGINES.items() if kind.full is not None], indirect=True
)

CREATED = Created(
    at_us=CREATED_US,
    payload=Payload(input={"prompt": "blå \U0001f600 \x00"}),
    account=ACCOUNT,
    contract="beatra",
    capability="text-to-music",
    model="suno-5",
    provider="suno",
    terms=Terms(school=School.HOLD, rate_version="7", estimated_micros=10),
)
HELD = Held(at_us=CREATED_US - 1, amount_micros=2**63 - 1, key="hold:1", cause="created")
REFUNDED = Refunded(at_us=0, payload=Payload(message=""), amount_micros=1, key="refunded:\N{SNOWMAN}", cause="refunded")

UNWRITABLE = entries(progressed())[0]
UNWRITABLE = replace(UNWRITABLE, actor="\ud800")  # half a character has no bytes


# A new log


async def test_a_new_log_is_empty(engine: Engine) -> None:
    assert await engine.head() == Head(lane=0, position=0, hash=GENESIS, recorded_at_us=0)
    assert await engine.after(0, 10) == []
    assert await engine.page(TaskFilter()) == []
    assert await engine.keys(None) == []
    assert await engine.key("k") is None


async def test_what_is_not_there_is_simply_not_found(engine: Engine) -> None:
    await engine.commit([append(1, claims=(claim_row("k"),))])
    assert await engine.tasks([ident(2)]) == {}
    assert await engine.claims([(ACCOUNT, "create", "k2"), (STRANGER, "create", "k"), (ACCOUNT, "cancel", "k")]) == {}
    assert await engine.streams([ident(2)]) == []
    assert await engine.after(1, 10) == []


async def test_asking_for_nothing_gives_nothing(engine: Engine) -> None:
    await engine.commit([append(1)])
    assert await engine.tasks([]) == {}
    assert await engine.claims([]) == {}
    assert await engine.streams([]) == []
    assert await engine.after(0, 0) == []
    assert await engine.page(TaskFilter(limit=0)) == []


async def test_recorded_time_never_runs_backwards_along_the_log_whoever_appends(engine: Engine) -> None:
    for number, at_us in enumerate((CREATED_US, CREATED_US - 5, CREATED_US + 7, CREATED_US + 6)):
        told = entries(progressed(1), recorded_at_us=at_us)
        await engine.commit([replace(append(number), entries=told)])
    rows = await whole_log(engine)
    assert [row.entry.recorded_at_us - CREATED_US for row in rows] == [0, 0, 7, 7]
    assert (await engine.head()).recorded_at_us == CREATED_US + 7


async def test_committing_nothing_writes_nothing(engine: Engine) -> None:
    assert await engine.commit([]) == []
    await engine.commit([append(1)])
    assert await engine.commit([]) == []
    assert len(await whole_log(engine)) == 1


async def test_every_log_has_a_name_and_a_pepper_of_its_own(engine: Engine, store: Store) -> None:
    log_id, pepper = engine.log_id, engine.pepper
    assert log_id
    assert len(pepper) == 32
    reopened = await store.open()
    assert ((reopened.log_id, reopened.pepper) == (log_id, pepper)) is store.kind.persists


# Places


async def test_positions_count_from_one_without_holes_whatever_streams_the_events_are_of(engine: Engine) -> None:
    assert await engine.commit([append(1, events=2), append(2), append(3, events=3)]) == [2, 3, 6]
    assert await engine.commit([append(2, expected=1, events=2)]) == [8]
    assert await engine.commit([append(1, expected=2), append(4)]) == [9, 10]
    rows = await whole_log(engine)
    streams = [ident(n) for n in (1, 1, 2, 3, 3, 3, 2, 2, 1, 4)]
    assert [row.stream for row in rows] == streams
    assert [row.version for row in rows] == [1, 2, 1, 1, 2, 3, 2, 3, 3, 1]


async def test_one_batch_may_append_to_one_stream_several_times(engine: Engine) -> None:
    batch = [append(1), append(2), append(1, expected=1, events=2), append(1, expected=3)]
    assert await engine.commit(batch) == [1, 2, 4, 5]
    assert len(await whole_log(engine)) == 5
    assert await engine.tasks([ident(1)]) == {ident(1): Placed(row=task_row(1, version=4), position=5)}


async def test_many_commits_at_once_come_one_after_the_other(engine: Engine) -> None:
    outcomes = await asyncio.gather(*(engine.commit([append(n, events=n % 3 + 1)]) for n in range(1, 31)))
    rows = await whole_log(engine)
    ends = [outcome for (outcome,) in outcomes]
    assert sorted(ends, key=str) == sorted(
        (max(row.position for row in rows if row.stream == ident(n)) for n in range(1, 31)), key=str
    )


async def test_of_many_commits_to_one_version_one_is_written(engine: Engine) -> None:
    outcomes = await asyncio.gather(*(engine.commit([append(1)]) for _ in range(20)))
    assert Counter(outcome for (outcome,) in outcomes) == {1: 1, Stale(1): 19}
    assert len(await whole_log(engine)) == 1


# The chain


async def test_every_hash_covers_the_row_and_the_hash_before_it(engine: Engine) -> None:
    told = entries(CREATED, HELD, REFUNDED, progressed(), recorded_at_us=CREATED_US - 7)
    await engine.commit([replace(append(1), entries=told, account="æ"), append(2)])
    await engine.commit([append(2, expected=1)])
    rows = await engine.after(0, 10)
    assert len(rows) == 6
    assert [row.hash for row in rows] == chained(rows)
    assert await engine.head() == Head(lane=0, position=6, hash=rows[-1].hash, recorded_at_us=CREATED_US)


FIELDS: dict[str, Any] = {
    "type": "created",
    "recorded_at_us": 1,
    "effective_at_us": 2,
    "amount_micros": 3,
    "actor": "k1",
    "request_id": "r1",
    "facts": b"{}",
    "payload": b"",
}
OTHERS: list[tuple[str, object]] = [
    ("type", "createdk"),
    ("recorded_at_us", 2),
    ("effective_at_us", -2),
    ("amount_micros", None),
    ("amount_micros", 0),
    ("actor", "k"),
    ("request_id", ""),
    ("facts", b"{} "),
    ("payload", None),
    ("payload", b"\x00"),
]
PLACE = Place(lane=0, position=1, stream=bytes(16), version=1, account="acme")


def test_the_first_hash_of_a_log_is_what_it_has_been_since_the_first_release() -> None:
    assert hashlib.sha256(b"task-ledger log, first version").digest() == GENESIS
    assert link(GENESIS, PLACE, Entry(**FIELDS)).hex() == (
        "3087a8caba59f0d4a7962dc119415a6a7607bb16115c00c935e6de1da9a2d025"
    )


@pytest.mark.parametrize(("field", "other"), OTHERS)
def test_another_value_in_any_field_gives_another_hash(field: str, other: object) -> None:
    assert link(GENESIS, PLACE, Entry(**FIELDS)) != link(GENESIS, PLACE, Entry(**FIELDS | {field: other}))


@pytest.mark.parametrize(
    "place",
    [
        PLACE._replace(lane=1),
        PLACE._replace(position=2),
        PLACE._replace(stream=bytes(15) + b"\x01"),
        PLACE._replace(version=2),
        PLACE._replace(account="acm"),
    ],
)
def test_another_place_gives_another_hash(place: Place) -> None:
    assert link(GENESIS, PLACE, Entry(**FIELDS)) != link(GENESIS, place, Entry(**FIELDS))


async def test_an_event_comes_back_exactly_as_it_was_written(engine: Engine) -> None:
    told = sealed(1, entries(CREATED, HELD, REFUNDED))
    await engine.commit([replace(append(1), entries=told, seal_key=SEAL_KEY)])
    rows = await engine.streams([ident(1)])
    assert tuple(row.entry for row in rows) == told
    assert [row.event for row in rows] == [CREATED, HELD, REFUNDED]
    assert {(row.lane, row.account) for row in rows} == {(0, ACCOUNT)}
    assert rows == await engine.after(0, 10)


async def test_the_recorded_time_of_the_head_never_goes_back(engine: Engine) -> None:
    for recorded_at_us, latest_us in ((5, 5), (9, 9), (7, 9)):
        head = await engine.head()
        told = entries(progressed(), recorded_at_us=recorded_at_us)
        await engine.commit([replace(append(1, expected=head.position), entries=told)])
        assert (await engine.head()).recorded_at_us == latest_us


# Stale appends

STALE = [  # what the stream holds, what the append was decided on
    (0, 1),
    (0, 7),
    (3, 0),
    (3, 2),
    (3, 4),
    (3, 99),
]


@pytest.mark.parametrize(("events", "expected"), STALE)
async def test_an_append_decided_on_another_version_is_passed_over_and_the_others_are_written(
    engine: Engine, events: int, expected: int
) -> None:
    if events:
        await engine.commit([append(1, events=events)])
    before = await engine.tasks([ident(1)])
    stale = append(1, expected=expected, claims=(claim_row("k"),), keys=(key_row("key"),))
    assert await engine.commit([append(2), stale, append(3)]) == [events + 1, Stale(events), events + 2]
    assert len(await whole_log(engine)) == events + 2
    assert len(await engine.streams([ident(1)])) == events
    assert await engine.tasks([ident(1)]) == before
    assert await engine.claims([(ACCOUNT, "create", "k")]) == {}
    assert await engine.key("key") is None


async def test_what_follows_a_stale_append_in_its_stream_was_decided_on_it_and_is_stale_too(engine: Engine) -> None:
    await engine.commit([append(1, events=2)])
    batch = [append(1, expected=1), append(1, expected=2), append(2), claims_only(1, claim_row("k"), expected=2)]
    assert await engine.commit(batch) == [Stale(2), Stale(2), 3, Stale(2)]
    assert len(await whole_log(engine)) == 3
    assert await engine.claims([(ACCOUNT, "create", "k")]) == {}


async def test_a_stale_append_can_be_decided_again_on_what_the_stream_holds(engine: Engine) -> None:
    await engine.commit([append(1, events=2)])
    (outcome,) = await engine.commit([append(1, expected=1)])
    assert isinstance(outcome, Stale)
    assert await engine.commit([append(1, expected=outcome.actual)]) == [3]
    assert len(await whole_log(engine)) == 3


async def test_a_batch_of_nothing_but_stale_appends_writes_nothing(engine: Engine) -> None:
    await engine.commit([append(1)])
    head = await engine.head()
    assert await engine.commit([append(1), append(2, expected=1)]) == [Stale(1), Stale(0)]
    assert await engine.head() == head
    assert await engine.commit([append(1, expected=1)]) == [2]


# What follows from the events


async def test_a_task_its_claims_and_the_keys_are_there_with_the_events(engine: Engine) -> None:
    claims = (claim_row("k1"), claim_row("k2", fingerprint="æ"))
    await engine.commit([append(1, events=2, claims=claims, keys=(key_row("key"),))])
    assert await engine.tasks([ident(1)]) == {ident(1): Placed(row=task_row(1, version=2), position=2)}
    assert await engine.claims([claim.id for claim in claims]) == {claim.id: claim for claim in claims}
    assert await engine.key("key") == key_row("key")


async def test_a_task_is_as_its_last_append_left_it(engine: Engine) -> None:
    await engine.commit([append(1), append(2)])
    running = task_row(1, version=2, status=Status.RUNNING, authorised_micros=9, held_micros=5, charged_micros=4)
    over = task_row(
        1,
        version=3,
        status=Status.FAILED,
        authorised_micros=9,
        released_micros=5,
        charged_micros=4,
        refunded_micros=3,
    )
    await engine.commit([append(1, expected=1, task=running)])
    assert await engine.tasks([ident(1)]) == {ident(1): Placed(row=running, position=3)}
    await engine.commit([append(1, expected=2, task=over), append(2, expected=1)])
    assert await engine.tasks([ident(1)]) == {ident(1): Placed(row=over, position=4)}


async def test_a_stream_without_a_task_has_only_events(engine: Engine) -> None:
    stream = bytes(range(16))
    account = Append(stream=stream, account=ACCOUNT, expected=0, entries=entries(progressed()), keys=(key_row("key"),))
    assert await engine.commit([account]) == [1]
    assert await engine.tasks([TaskId(stream)]) == {}
    assert await engine.page(TaskFilter()) == []
    assert [row.stream for row in await engine.streams([stream])] == [stream]


async def test_an_append_of_claims_alone_moves_nothing(engine: Engine) -> None:
    await engine.commit([append(1), append(2)])
    head = await engine.head()
    claim = claim_row("k", number=1, version=1)
    assert await engine.commit([claims_only(1, claim, expected=1)]) == [2]
    assert await engine.claims([claim.id]) == {claim.id: claim}
    assert await engine.head() == head
    assert await engine.tasks([ident(1)]) == {ident(1): Placed(row=task_row(1), position=1)}
    assert await engine.commit([append(1, expected=1)]) == [3]


@pytest.mark.parametrize(("events", "expected"), STALE)
async def test_claims_alone_are_passed_over_too_when_decided_on_another_version(
    engine: Engine, events: int, expected: int
) -> None:
    if events:
        await engine.commit([append(1, events=events)])
    batch = [claims_only(1, claim_row("k"), expected=expected), append(2)]
    assert await engine.commit(batch) == [Stale(events), events + 1]
    assert await engine.claims([(ACCOUNT, "create", "k")]) == {}


async def test_claims_alone_count_with_the_events_before_them_in_the_batch(engine: Engine) -> None:
    claim = claim_row("k", version=2)
    assert await engine.commit([append(1, events=2), claims_only(1, claim, expected=2), append(1, expected=2)]) == [
        2,
        2,
        3,
    ]
    assert await engine.claims([claim.id]) == {claim.id: claim}


async def test_claims_are_listed_in_the_order_of_their_ids_from_any_of_them_on(engine: Engine) -> None:
    rows = [claim_row(key) for key in ("b", "a", "c")]
    await engine.commit([append(1, claims=tuple(rows))])
    assert [row.key for row in await engine.claims_after(None, 10)] == ["a", "b", "c"]
    assert [row.key for row in await engine.claims_after(None, 2)] == ["a", "b"]
    assert await engine.claims_after(rows[0].id, 10) == [claim_row("c")]
    assert await engine.claims_after((ACCOUNT, "create", "c"), 10) == []


async def test_a_claim_that_is_taken_again_tells_of_its_last_taker(engine: Engine) -> None:
    again = claim_row("k", number=2, fingerprint="g")
    await engine.commit([append(1, claims=(claim_row("k"),))])
    await engine.commit([append(2, claims=(again,))])
    assert await engine.claims([again.id]) == {again.id: again}


def deletion(number: int, *, expected: int, **rows: Any) -> Append:  # noqa: ANN401 - as of `append`
    told = entries(Deleted(at_us=CREATED_US))
    return replace(append(number, expected=expected, **rows), entries=told)


def contents_of(number: int) -> tuple[Entry, ...]:
    return sealed(number, entries(CREATED, HELD, REFUNDED))


async def test_the_key_of_a_task_comes_with_its_row_and_with_each_of_its_events(engine: Engine) -> None:
    told = replace(append(1, task=task_row(1, version=3)), entries=contents_of(1), seal_key=SEAL_KEY)
    await engine.commit([told, append(2)])
    await engine.commit([append(1, expected=3)])
    assert {placed.row.task_id: placed.seal_key for placed in await engine.page(TaskFilter())} == {
        ident(1): SEAL_KEY,
        ident(2): None,
    }
    assert (await engine.tasks([ident(1)]))[ident(1)].seal_key == SEAL_KEY
    assert {row.seal_key for row in await engine.streams([ident(1)])} == {SEAL_KEY}
    assert [row.seal_key for row in await engine.after(0, 10)] == [SEAL_KEY] * 3 + [None, SEAL_KEY]


async def test_a_deletion_takes_the_key_with_it_and_leaves_every_event_and_every_other_key(engine: Engine) -> None:
    other_key = SEAL_KEY[::-1]
    await engine.commit(
        [
            replace(append(1, task=task_row(1, version=3)), entries=contents_of(1), seal_key=SEAL_KEY),
            replace(append(2, task=task_row(2, version=3)), entries=contents_of(2), seal_key=other_key),
        ]
    )
    before = await whole_log(engine)
    await engine.commit([deletion(1, expected=3)])
    *kept, last = await whole_log(engine)
    assert [replace(row, seal_key=None) for row in kept] == [replace(row, seal_key=None) for row in before]
    assert [row.seal_key for row in kept] == [None] * 3 + [other_key] * 3
    assert (last.entry.type, last.seal_key) == ("deleted", None)
    assert [row.event.content for row in kept[:3]] == [Payload()] * 3
    placed = await engine.tasks([ident(1), ident(2)])
    assert (placed[ident(1)].seal_key, placed[ident(2)].seal_key) == (None, other_key)


async def test_of_a_task_that_is_deleted_in_the_batch_that_creates_it_no_key_is_left(engine: Engine) -> None:
    await engine.commit([replace(append(1), seal_key=SEAL_KEY), deletion(1, expected=1)])
    assert {row.seal_key for row in await engine.after(0, 10)} == {None}
    assert (await engine.tasks([ident(1)]))[ident(1)].seal_key is None


async def test_a_stale_append_brings_no_key_and_takes_none(engine: Engine) -> None:
    await engine.commit([replace(append(1), seal_key=SEAL_KEY), append(2)])
    stale = [deletion(1, expected=0), replace(append(2, expected=0), seal_key=SEAL_KEY)]
    assert await engine.commit(stale) == [Stale(1), Stale(1)]
    assert [row.seal_key for row in await engine.after(0, 10)] == [SEAL_KEY, None]


async def test_keys_are_listed_by_account_in_order_of_issue(engine: Engine) -> None:
    early, late = key_row("z", issued_at_us=1), key_row("b", issued_at_us=2)
    twin, foreign = key_row("a", issued_at_us=2), key_row("c", account=STRANGER, issued_at_us=0)
    await engine.commit([append(1, keys=(late, early)), append(2, keys=(foreign, twin))])
    assert await engine.keys(ACCOUNT) == [early, twin, late]
    assert await engine.keys(STRANGER) == [foreign]
    assert await engine.keys("nobody") == []
    assert await engine.keys(None) == [foreign, early, twin, late]


async def test_a_revoked_key_stays_and_tells_when_it_died(engine: Engine) -> None:
    dead = replace(key_row("key"), revoked_at_us=CREATED_US)
    await engine.commit([append(1, keys=(key_row("key"),))])
    await engine.commit([append(1, expected=1, keys=(dead,))])
    assert await engine.key("key") == dead
    assert await engine.keys(None) == [dead]


# Accounts


async def test_what_a_batch_does_to_an_account_is_one_row_at_the_place_of_the_last_of_it(engine: Engine) -> None:
    assert await engine.accounts(None) == {}
    batch = [owes(1, 5), append(2), owes(3, 7, events=2), append(4, move=Move(charged_micros=3, expected_micros=2))]
    assert await engine.commit([*batch, append(5)]) == [1, 2, 4, 5, 6]
    row = AccountRow(account=ACCOUNT, position=5, held_micros=12, charged_micros=3, expected_micros=2)
    assert await engine.accounts(None) == {ACCOUNT: row}
    await engine.commit([append(4, expected=1, move=Move(held_micros=-12, refunded_micros=1, expected_micros=-2))])
    row = AccountRow(account=ACCOUNT, position=7, charged_micros=3, refunded_micros=1)
    assert await engine.accounts([ACCOUNT]) == {ACCOUNT: row}


async def test_a_task_under_way_that_costs_nothing_makes_a_row_and_the_row_stays(engine: Engine) -> None:
    await engine.commit([append(1, move=Move(live_tasks=1)), append(2, move=Move(live_tasks=1))])
    assert await engine.accounts(None) == {ACCOUNT: AccountRow(account=ACCOUNT, position=2, live_tasks=2)}
    await engine.commit([append(1, expected=1, move=Move(live_tasks=-1)), owes(3, 5)])
    assert await engine.accounts(None) == {
        ACCOUNT: AccountRow(account=ACCOUNT, position=4, held_micros=5, live_tasks=1)
    }
    await engine.commit([credit(1, 100), append(2, expected=1, move=Move(live_tasks=-1))])
    row = AccountRow(account=ACCOUNT, position=6, version=1, limit_micros=100, held_micros=5)
    assert await engine.accounts([ACCOUNT]) == {ACCOUNT: row}


async def test_what_moves_no_account_makes_no_row(engine: Engine) -> None:
    await engine.commit([append(1), append(2, rests_on=0)])
    assert await engine.accounts(None) == {}


async def test_terms_are_set_by_an_account_s_own_events_and_kept_by_its_tasks(engine: Engine) -> None:
    await engine.commit([owes(1, 5)])
    await engine.commit([credit(1, 100)])
    await engine.commit([owes(2, 6)])
    row = AccountRow(account=ACCOUNT, position=3, version=1, limit_micros=100, held_micros=11)
    assert await engine.accounts(None) == {ACCOUNT: row}
    await engine.commit([credit(2, None, granted=0)])
    row = replace(row, position=4, version=2, limit_micros=None, granted_micros=0)
    assert await engine.accounts(None) == {ACCOUNT: row}
    assert await engine.accounts([STRANGER, ACCOUNT, "nobody"]) == {ACCOUNT: row}


async def test_accounts_are_listed_by_their_names(engine: Engine) -> None:
    await engine.commit([credit(1, 1, account=name) for name in ("b", "a", "\N{SNOWMAN}", "A")])
    assert [*await engine.accounts(None)] == ["A", "a", "b", "\N{SNOWMAN}"]


async def test_new_work_is_written_when_the_terms_are_those_it_was_admitted_by(engine: Engine) -> None:
    assert await engine.commit([owes(1, 5, rests_on=0)]) == [1]
    await engine.commit([credit(1, 100)])
    assert await engine.commit([owes(2, 5, rests_on=1), owes(3, 5, rests_on=1), owes(1, 1, expected=1)]) == [3, 4, 5]
    assert (await engine.accounts(None))[ACCOUNT].held_micros == 16


async def test_new_work_that_was_admitted_by_other_terms_is_stale_and_reports_are_not(engine: Engine) -> None:
    await engine.commit([owes(1, 5, rests_on=0)])
    await engine.commit([credit(1, 100)])
    await engine.commit([append(9)])
    stranger = replace(owes(4, 5, rests_on=0), account=STRANGER)
    batch = [owes(1, 2, expected=1), owes(2, 5, rests_on=0), owes(2, 1, expected=1), owes(3, 5, rests_on=1), stranger]
    outcomes = await engine.commit(batch)
    assert [isinstance(outcome, Stale) for outcome in outcomes] == [False, True, True, True, False]
    rows = await engine.accounts(None)
    assert {name: row.held_micros for name, row in rows.items()} == {ACCOUNT: 7, STRANGER: 5}
    assert await engine.commit([owes(3, 5, rests_on=1)]) == [(await engine.head()).position]
    await whole_log(engine)


async def test_what_was_admitted_on_top_of_a_stale_append_of_its_account_is_stale(engine: Engine) -> None:
    await engine.commit([owes(1, 50), credit(1, 50)])
    await engine.commit([append(1, expected=1)])
    release = append(1, expected=1, move=Move(held_micros=-50))
    assert await engine.commit([release, owes(2, 50, rests_on=1)]) == [Stale(2), Stale(0)]
    assert (await engine.accounts(None))[ACCOUNT].held_micros == 50


async def test_a_sum_is_kept_at_the_most_that_64_bits_hold(engine: Engine) -> None:
    await engine.commit([append(1, move=Move(charged_micros=SUM_MAX_MICROS))])
    await engine.commit([append(2, move=Move(charged_micros=1))])
    await engine.commit([append(number, move=Move(charged_micros=SUM_MAX_MICROS)) for number in (3, 4)])
    assert (await engine.accounts(None))[ACCOUNT].charged_micros == SUM_MAX_MICROS


# All or nothing


async def test_a_batch_that_cannot_be_written_is_not_written_at_all(engine: Engine) -> None:
    await engine.commit([append(1)])
    bad = replace(append(3, claims=(claim_row("k"),), keys=(key_row("key"),)), entries=(UNWRITABLE,))
    with pytest.raises(UnicodeEncodeError):
        await engine.commit([append(2), append(1, expected=1), bad, append(4)])
    assert len(await whole_log(engine)) == 1
    assert await engine.page(TaskFilter()) == [Placed(row=task_row(1), position=1)]
    assert await engine.claims([(ACCOUNT, "create", "k")]) == {}
    assert await engine.keys(None) == []
    assert await engine.commit([append(2), append(1, expected=1)]) == [2, 3]


async def test_a_caller_who_leaves_in_the_middle_of_a_commit_leaves_no_half_of_it(engine: Engine) -> None:
    for number in range(1, 31):
        whole = append(number, events=2, claims=(claim_row(f"k{number}", number=number),), keys=(key_row(str(number)),))
        committing = asyncio.create_task(engine.commit([whole]))
        for _ in range(number * number):  # the leavers are spread over the commit, and a few are too late
            await asyncio.sleep(0)
        committing.cancel()
        await asyncio.gather(committing, return_exceptions=True)
    await engine.commit([append(99)])
    streams = Counter(TaskId(row.stream) for row in await whole_log(engine))
    written = {task for task in streams if task != ident(99)}
    assert {streams[task] for task in written} <= {2}
    assert {key.key_id for key in await engine.keys(None)} == {str(n) for n in range(1, 31) if ident(n) in written}
    assert (await engine.tasks([ident(n) for n in range(1, 31)])).keys() == written
    claims = await engine.claims([(ACCOUNT, "create", f"k{n}") for n in range(1, 31)])
    assert {claim.task_id for claim in claims.values()} == written


@on_engines_that_fill_up
async def test_a_commit_that_fails_writes_nothing_and_the_next_one_works(engine: Engine, store: Store) -> None:
    assert store.kind.full is not None
    await engine.commit([append(1)])
    told = replace(entries(progressed())[0], payload=bytes(1_000_000))
    large = replace(append(2, claims=(claim_row("k"),), keys=(key_row("key"),)), entries=(told,))
    async with store.kind.full(engine):
        for _ in range(2):
            with pytest.raises(StorageError):
                await engine.commit([append(1, expected=1), large])
        assert len(await whole_log(engine)) == 1
        assert await engine.page(TaskFilter()) == [Placed(row=task_row(1), position=1)]
        assert await engine.claims([(ACCOUNT, "create", "k")]) == {}
        assert await engine.keys(None) == []
    assert await engine.commit([append(1, expected=1), large]) == [2, 3]
    assert len(await whole_log(engine)) == 3


# Reading


async def listed(engine: Engine, wanted: TaskFilter) -> list[int]:
    """The numbers of the tasks on a page."""
    numbers = {ident(n): n for n in range(20)}
    return [numbers[placed.row.task_id] for placed in await engine.page(wanted)]


PAGES = [  # of tasks 1 to 12: even ones are the stranger's, every third runs, from 7 on they are of another model
    (TaskFilter(), [12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1]),
    (TaskFilter(limit=3), [12, 11, 10]),
    (TaskFilter(before=ident(4)), [3, 2, 1]),
    (TaskFilter(before=ident(4), limit=2), [3, 2]),
    (TaskFilter(before=ident(1)), []),
    (TaskFilter(after=ident(10)), [12, 11]),
    (TaskFilter(after=ident(2), before=ident(6)), [5, 4, 3]),
    (TaskFilter(oldest_first=True), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]),
    (TaskFilter(oldest_first=True, after=ident(4), limit=2), [5, 6]),
    (TaskFilter(account=ACCOUNT), [11, 9, 7, 5, 3, 1]),
    (TaskFilter(account=STRANGER, limit=2), [12, 10]),
    (TaskFilter(account="nobody"), []),
    (TaskFilter(status="running"), [12, 9, 6, 3]),
    (TaskFilter(status="running", after=ident(3), oldest_first=True), [6, 9, 12]),
    (TaskFilter(model="sora-2"), [6, 5, 4, 3, 2, 1]),
    (TaskFilter(model="suno-5", before=ident(9)), [8, 7]),
    (TaskFilter(account=ACCOUNT, status="running"), [9, 3]),
    (TaskFilter(account=ACCOUNT, status="running", model="suno-5"), [9]),
    (TaskFilter(account=STRANGER, status="queued", model="sora-2", before=ident(4), limit=1), [2]),
]


async def test_a_page_has_the_tasks_that_fit_in_the_order_asked_for(engine: Engine) -> None:
    for number in (3, 12, 1, 7, 2, 11, 5, 4, 9, 6, 8, 10):
        row = task_row(
            number,
            account=STRANGER if number % 2 == 0 else ACCOUNT,
            status=Status.RUNNING if number % 3 == 0 else Status.QUEUED,
            model="suno-5" if number >= 7 else "sora-2",
        )
        await engine.commit([append(number, task=row)])
    found = [(wanted, await listed(engine, wanted)) for wanted, _ in PAGES]
    assert found == PAGES


SIZED = [  # bytes_max, and which of tasks 5 to 1, with views of so many hundred bytes as their number, are read
    (None, [5, 4, 3, 2, 1]),
    (1501, [5, 4, 3, 2, 1]),
    (1401, [5, 4, 3, 2, 1]),
    (1400, [5, 4, 3, 2]),
    (501, [5, 4]),
    (500, [5]),
    (1, [5]),
]


async def test_a_page_ends_with_the_task_whose_view_fills_it(engine: Engine) -> None:
    rows = [replace(task_row(number), view=b"x" * 100 * number) for number in range(1, 6)]
    await engine.commit([append(number, task=row) for number, row in enumerate(rows, start=1)])
    found = [(size, await listed(engine, TaskFilter(bytes_max=size))) for size, _ in SIZED]
    assert found == SIZED
    assert await listed(engine, TaskFilter(bytes_max=201, oldest_first=True)) == [1, 2]
    assert await listed(engine, TaskFilter(bytes_max=501, after=ident(2), limit=1)) == [5]
    assert await listed(engine, TaskFilter(bytes_max=1, before=ident(3), account=ACCOUNT)) == [2]


async def test_the_pages_of_a_list_follow_each_other_without_gap_or_overlap(engine: Engine) -> None:
    await engine.commit([append(number) for number in range(1, 12)])
    seen: list[int] = []
    wanted = TaskFilter(limit=4)
    while page := await listed(engine, wanted):
        seen += page
        wanted = replace(wanted, before=ident(page[-1]))
    assert seen == list(range(11, 0, -1))


async def test_streams_come_one_after_the_other_oldest_event_first(engine: Engine) -> None:
    await engine.commit([append(1), append(2, events=2), append(3)])
    await engine.commit([append(3, expected=1), append(1, expected=1), append(2, expected=2)])
    rows = await engine.streams([ident(3), ident(1), ident(9)])
    assert stories(rows) == {ident(1): [1, 2], ident(3): [1, 2]}
    assert await engine.streams([ident(2)]) == [row for row in await whole_log(engine) if row.stream == ident(2)]


def stories(rows: list[Recorded]) -> dict[bytes, list[int]]:
    """The versions in each stream; all events of a stream stand together."""
    found: dict[bytes, list[int]] = {}
    for before, row in zip([None, *rows], rows, strict=False):
        assert row.stream not in found or (before is not None and before.stream == row.stream)
        found.setdefault(row.stream, []).append(row.version)
    return found


async def test_a_follower_reads_the_log_in_order_at_most_so_many_events_at_a_time(engine: Engine) -> None:
    await engine.commit([append(1, events=3), append(2, events=4)])
    rows = await whole_log(engine)
    assert await engine.after(0, 3) == rows[:3]
    assert await engine.after(3, 3) == rows[3:6]
    assert await engine.after(6, 3) == rows[6:]
    assert await engine.after(7, 3) == []
    assert await engine.after(2**62, 3) == []


@pytest.mark.parametrize("count", [1, 2, 8, 9, READ_MAX - 1, READ_MAX, READ_MAX + 1, 2 * READ_MAX + 3])
async def test_any_number_of_rows_can_be_asked_for_at_once(engine: Engine, count: int) -> None:
    numbers = range(1, count + 1)
    claims = {number: claim_row(f"k{number}", number=number) for number in numbers}
    await engine.commit([append(n, events=2, claims=(claims[n],)) for n in numbers] + [append(count + 1)])
    ids = [ident(number) for number in numbers]
    await engine.commit([credit(1, n, account=f"a{n}") for n in numbers])
    found = await engine.accounts([f"a{n}" for n in numbers])
    assert {name: row.limit_micros for name, row in found.items()} == {f"a{n}": n for n in numbers}
    assert await engine.tasks(ids) == {
        ident(number): Placed(row=task_row(number, version=2), position=2 * number) for number in numbers
    }
    assert await engine.claims([claim.id for claim in claims.values()]) == {c.id: c for c in claims.values()}
    assert stories(await engine.streams(ids)) == {task: [1, 2] for task in ids}


async def test_a_batch_may_be_larger_than_what_is_read_at_once(engine: Engine) -> None:
    count = 2 * READ_MAX + 3
    await engine.commit([append(number) for number in range(1, count + 1)])
    batch = [append(number, expected=1 if number % 2 else 0) for number in range(1, count + 1)]
    outcomes = await engine.commit(batch)
    assert [outcome for outcome in outcomes if isinstance(outcome, Stale)] == [Stale(1)] * (count // 2)
    assert len(await whole_log(engine)) == count + count - count // 2


# What outlives the process


async def contents(engine: Engine) -> tuple[object, ...]:
    tasks = await engine.page(TaskFilter(limit=1000))
    claims = await engine.claims([(ACCOUNT, "create", f"k{n}") for n in range(5)])
    kept = (await engine.keys(None), await engine.accounts(None))
    return await whole_log(engine), await engine.head(), tasks, claims, kept


@on_engines_that_persist
async def test_a_log_that_is_opened_again_is_the_same_and_goes_on(engine: Engine, store: Store) -> None:
    await engine.commit([append(1, events=2, claims=(claim_row("k1"),)), owes(2, 5, keys=(key_row("key"),))])
    await engine.commit([replace(append(4), seal_key=SEAL_KEY), deletion(2, expected=1)])
    await engine.commit([append(1, expected=2, claims=(claim_row("k2"),))])
    before = await contents(engine)
    reopened = await store.open()
    assert await contents(reopened) == before
    assert await reopened.commit([append(1, expected=2), append(1, expected=3), append(3)]) == [Stale(3), Stale(3), 7]
    assert await reopened.commit([append(1, expected=3)]) == [8]
    assert len(await whole_log(reopened)) == 8


@on_engines_that_persist
async def test_in_a_snapshot_all_is_of_one_moment_whatever_is_written_meanwhile(engine: Engine) -> None:
    await engine.commit([append(1, claims=(claim_row("k1"),))])
    async with engine.snapshot():
        before = await contents(engine)
        assert await engine.commit([append(1, expected=1, claims=(claim_row("k2"),), keys=(key_row("key"),))]) == [2]
        assert await engine.commit([owes(2, 5)]) == [3]
        assert await contents(engine) == before
    assert len(await whole_log(engine)) == 3
    async with engine.snapshot():
        assert len(await whole_log(engine)) == 3
