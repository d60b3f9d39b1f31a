"""Every shape in which an event of a task was ever written is read, and what no version wrote is refused by name.

``shapes/histories.jsonl`` has the bytes: lines may be added, never changed.
"""

from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from ledger.event_bytes import decode, decode_plain, encode
from ledger.events import Completed, Notice, Payload, TaskEvent, tag_of
from ledger.seals import NONCE_BYTES, seal
from ledger.sqlite_rows import task_values
from ledger.task import fold
from ledger.upcasts import OLD_SHAPES, UnknownShapeError
from ledger.views import row_of
from projections.replay.ranges import FullRow, compare
from tests.rules_dsl import ID
from tests.test_refold import KEY, refolded

LINES: list[dict[str, Any]] = [
    msgspec.json.decode(line)
    for line in Path(__file__).with_name("shapes").joinpath("histories.jsonl").read_bytes().splitlines()
]
golden = pytest.mark.parametrize("line", LINES, ids=[line["name"] for line in LINES])


def events_of(line: dict[str, Any]) -> list[TaskEvent]:
    return [decode(facts.encode(), _bytes(payload)) for facts, payload in line["events"]]  # type: ignore[misc]


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


@golden
def test_a_history_of_any_shape_folds_into_its_golden_view(line: dict[str, Any]) -> None:
    assert row_of(fold(events_of(line), ID)).view.decode() == line["view"]


@golden
def test_a_replay_finds_no_difference_to_the_golden_view(line: dict[str, Any]) -> None:
    """The quick fold may give up an old shape, and never gives something else than what decides."""
    rows = stored(line)
    task = fold(events_of(line), ID)
    live = (*task_values(row_of(task), len(rows))[:-1], line["view"].encode())
    assert compare(ID, rows, live, KEY) is None
    if "among the facts" in line["name"]:
        assert decode_plain([row.facts for row in rows]) is None
    else:
        assert row_of(refolded(rows, KEY)).view.decode() == line["view"]


def stored(line: dict[str, Any]) -> list[FullRow]:
    rows = []
    for version, (facts, payload) in enumerate(line["events"], start=1):
        event = decode(facts.encode(), _bytes(payload))
        nonce = version.to_bytes(NONCE_BYTES, "big")
        sealed = None if payload is None else seal(payload.encode(), key=KEY, nonce=nonce, stream=ID, version=version)
        rows.append(FullRow(version, version, tag_of(event), facts, sealed))
    return rows


def test_the_histories_have_every_event_of_a_task_and_every_old_shape() -> None:
    kinds = {type(event) for line in LINES for event in events_of(line)}
    assert kinds == set(get_args(TaskEvent))
    old = {
        tag_of(decode(facts.encode(), None))
        for line in LINES
        for facts, _ in line["events"]
        if any(shape.field in msgspec.json.decode(facts) for shape in OLD_SHAPES.values())
    }
    assert old == set(OLD_SHAPES)


OLD = b'{"type":"completed","at_us":1,"warnings":[{"code":"c","message":"m"}]}'
WARNED = Payload(warnings=(Notice(code="c", message="m"),))


@pytest.mark.parametrize(
    ("facts", "payload", "event"),
    [
        (OLD, None, Completed(at_us=1, payload=WARNED)),
        (OLD, b'{"output":{"n":1}}', Completed(at_us=1, payload=Payload(output={"n": 1}, warnings=WARNED.warnings))),
        (b'{"type":"completed","at_us":1,"usage":{"warnings":2}}', None, Completed(at_us=1, usage={"warnings": 2})),
    ],
)
def test_warnings_among_the_facts_of_a_completion_are_content(
    facts: bytes, payload: bytes | None, event: TaskEvent
) -> None:
    read = decode(facts, payload)
    assert read == event
    assert decode(*encode(read)) == event, "and are written as that from then on"


@pytest.mark.parametrize(
    ("facts", "named"),
    [
        (b'{"type":"exploded","at_us":1}', "no event 'exploded'"),
        (b'{"type":"expired","at_us":1,"shape":2}', "event 'expired' has shape 2"),
        (b'{"type":"completed","at_us":1,"shape":3,"usage":{}}', "event 'completed' has shape 3"),
    ],
)
def test_what_a_newer_program_wrote_is_refused_by_name(facts: bytes, named: str) -> None:
    with pytest.raises(UnknownShapeError, match=named):
        decode(facts, None)


@pytest.mark.parametrize("facts", [b'{"type":"expired"}', b'{"at_us":1}', b"[]"])
def test_what_is_broken_is_not_taken_for_something_newer(facts: bytes) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        decode(facts, None)
    assert not isinstance(caught.value, UnknownShapeError)
