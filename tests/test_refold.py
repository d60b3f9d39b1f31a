"""The fold of a replay gives the very bytes of the fold that decides, for every history and at every event of it."""

from collections.abc import Iterator, Sequence

import pytest

from ledger.credit import move_of
from ledger.events import School, TaskEvent, amount_of, encode, tag_of
from ledger.seals import KEY_BYTES, NONCE_BYTES, seal
from ledger.sqlite_rows import task_values
from ledger.task import NO_TASK, evolve, fold
from ledger.views import row_of
from projections.refold import _STEPS, HotRow, refold, row_values
from projections.replay_ranges import folded, moved_last
from tests.rules_dsl import ID
from tests.test_histories import SEEDS, history

KEY = bytes(range(KEY_BYTES))


def hot(events: Sequence[TaskEvent]) -> list[HotRow]:
    """The events as a replay reads them, at positions of their versions."""
    rows = []
    for version, event in enumerate(events, start=1):
        facts, payload = encode(event)
        if payload is not None:
            nonce = version.to_bytes(NONCE_BYTES, "big")
            payload = seal(payload, key=KEY, nonce=nonce, stream=ID, version=version)
        rows.append(
            (bytes(ID), version, tag_of(event), version, amount_of(event), event.at_us, facts.decode(), payload)
        )
    return rows


def lives(school: School) -> Iterator[tuple[int, list[TaskEvent]]]:
    for seed in range(SEEDS):
        yield seed, [event for step in history(school, seed) for event in step.events]


@pytest.mark.parametrize("school", School)
def test_at_every_event_of_a_history_the_row_is_to_the_byte_the_fold_of_what_came_before(school: School) -> None:
    for seed, events in lives(school):
        rows = hot(events)
        for end in range(1, len(rows) + 1):
            wanted = row_of(fold(events[:end], ID))
            task = refold(ID, rows[:end], KEY)
            assert row_of(task) == wanted, f"{school}, seed {seed}, event {end}"
            assert row_values(task, end) == task_values(wanted, end), f"{school}, seed {seed}, event {end}"


@pytest.mark.parametrize("school", School)
def test_without_the_key_the_row_is_what_the_events_give_without_their_content(school: School) -> None:
    for seed, events in lives(school):
        rows = hot(events)
        assert row_of(refold(ID, rows, None)) == row_of(folded(ID, rows, None)), f"{school}, seed {seed}"


@pytest.mark.parametrize("school", School)
def test_the_fold_that_decides_is_the_fold_of_the_decoded_events(school: School) -> None:
    for seed, events in lives(school):
        assert folded(ID, hot(events), KEY) == fold(events, ID), f"{school}, seed {seed}"


def test_every_event_of_a_task_has_a_step() -> None:
    seen = {row[2] for school in School for _, events in lives(school) for row in hot(events)}
    assert seen == set(_STEPS)


@pytest.mark.parametrize("school", School)
def test_what_last_moved_an_account_is_the_last_event_by_which_the_task_moved_it(school: School) -> None:
    for seed, events in lives(school):
        rows, task, last = hot(events), NO_TASK, 0
        for row, event in zip(rows, events, strict=True):
            before, task = task, evolve(task, event)
            last = last if move_of(before, task) is None else row[3]
        assert moved_last(rows) == last, f"seed {seed}"
