"""The fold of a replay gives the very bytes of the fold that decides, for every history and at every event of it."""

from collections.abc import Iterator, Sequence

import pytest
from msgspec.structs import replace

from ledger.credit import move_of
from ledger.event_bytes import decode_plain, encode
from ledger.events import CallbackAttempted, Created, School, TaskEvent, tag_of
from ledger.seals import KEY_BYTES, NONCE_BYTES, seal
from ledger.sqlite_rows import task_values
from ledger.task import NO_TASK, Task, evolve, fold
from ledger.views import row_of
from projections.replay.ranges import FullRow, folded, moved_last
from projections.replay.refold import _STEPS, refold, row_values
from tests.rules_dsl import CREATED_US, ID, create, given
from tests.test_histories import SEEDS, history

KEY = bytes(range(KEY_BYTES))


def stored(events: Sequence[TaskEvent]) -> list[FullRow]:
    """The events as they are stored, at positions of their versions."""
    rows = []
    for version, event in enumerate(events, start=1):
        facts, payload = encode(event)
        if payload is not None:
            nonce = version.to_bytes(NONCE_BYTES, "big")
            payload = seal(payload, key=KEY, nonce=nonce, stream=ID, version=version)
        rows.append(FullRow(version, version, tag_of(event), facts.decode(), payload))
    return rows


def refolded(rows: Sequence[FullRow], key: bytes | None) -> Task:
    events = decode_plain([row.facts for row in rows])
    assert events is not None
    return refold(ID, events, [row.payload for row in rows], key)


def lives(school: School) -> Iterator[tuple[int, list[TaskEvent]]]:
    for seed in range(SEEDS):
        yield seed, [event for step in history(school, seed) for event in step.events]


@pytest.mark.parametrize("school", School)
def test_at_every_event_of_a_history_the_row_is_to_the_byte_the_fold_of_what_came_before(school: School) -> None:
    for seed, events in lives(school):
        rows = stored(events)
        for end in range(1, len(rows) + 1):
            wanted = row_of(fold(events[:end], ID))
            task = refolded(rows[:end], KEY)
            assert row_of(task) == wanted, f"{school}, seed {seed}, event {end}"
            assert row_values(task, end) == task_values(wanted, end), f"{school}, seed {seed}, event {end}"


@pytest.mark.parametrize("school", School)
def test_without_the_key_the_row_is_what_the_events_give_without_their_content(school: School) -> None:
    for seed, events in lives(school):
        rows = stored(events)
        assert row_of(refolded(rows, None)) == row_of(folded(ID, rows, None)), f"{school}, seed {seed}"


@pytest.mark.parametrize("school", School)
def test_the_fold_that_decides_is_the_fold_of_the_decoded_events(school: School) -> None:
    for seed, events in lives(school):
        assert folded(ID, stored(events), KEY) == fold(events, ID), f"{school}, seed {seed}"


def test_every_event_of_a_task_has_a_step() -> None:
    seen = {type(event) for school in School for _, events in lives(school) for event in events}
    assert seen == {Created, *_STEPS}


@pytest.mark.parametrize("school", School)
def test_what_last_moved_an_account_is_the_last_event_by_which_the_task_moved_it(school: School) -> None:
    for seed, events in lives(school):
        task, last, positions = NO_TASK, 0, range(1, len(events) + 1)
        for position, event in zip(positions, events, strict=True):
            before, task = task, evolve(task, event)
            last = last if move_of(before, task) is None else position
        assert moved_last(positions, events) == last, f"seed {seed}"


def test_what_is_posted_to_the_task_s_own_url_is_part_of_it_and_to_a_webhook_is_not() -> None:
    (created,) = given().when(replace(create(), callback_url="https://example.test/done")).events[:1]
    attempts = [
        CallbackAttempted(at_us=CREATED_US + 1, attempt=1, delivered=False, error="502", about=1),
        CallbackAttempted(at_us=CREATED_US + 2, attempt=9, delivered=False, error="404", about=1, webhook="w"),
        CallbackAttempted(at_us=CREATED_US + 3, attempt=2, delivered=False, error="502", about=1, gave_up=True),
        CallbackAttempted(at_us=CREATED_US + 4, attempt=1, delivered=True, about=2),
    ]
    for end in range(len(attempts) + 1):
        events: list[TaskEvent] = [created, *attempts[:end]]
        assert row_of(refolded(stored(events), KEY)) == row_of(fold(events, ID)), events[-1]
