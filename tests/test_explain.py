"""Explained: for every public field the events that gave it its value, for every figure a sum that adds up to it."""

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from msgspec.structs import asdict, replace

from api.contracts import spellings
from api.native_shapes import task_view
from ledger.commands import TaskCommand
from ledger.errors import DamagedError
from ledger.events import Deleted, School, Started, TaskEvent, Terms
from ledger.ids import Spelling
from ledger.records import Entry, Recorded, entry
from ledger.rules import decide
from ledger.seals import NONCE_BYTES, seal
from ledger.task import NO_TASK, Task, evolve
from projections.explain import costs as explain_costs
from projections.explain.explain import Explanation, explanations, is_set
from projections.explain.fields import FIELDS, MONEY, NoSuchFieldError, named, value_in
from projections.explain.rules import SENTENCES
from projections.explain.steps import Step, steps_of
from scripts.cli import app, run
from tests import stored
from tests.builders import SEAL_KEY, ident
from tests.rules_dsl import (
    ACCOUNT,
    BEATRA,
    HOLD,
    ID,
    METERED,
    ON_SUCCESS,
    PREPAID,
    cancel,
    charge,
    complete,
    confirm,
    create,
    delete,
    expire,
    fail,
    progress,
    refund,
    start,
    terms,
    update,
)
from tests.test_histories import history

FIRST = 101
"""The position of the first event."""
SEEDS = 40
CONTAINERS = {"progress", "error", "billing", "callback", "links"}
"""Fields of the native task that have fields; the others are content, whole."""


def shown(task: Task, position: int) -> dict[str, Any]:
    return task_view(task, position=position, log_id="log")


def recorded(events: Sequence[TaskEvent]) -> list[Recorded]:
    return [
        Recorded(
            lane=0,
            position=FIRST + number,
            stream=ID,
            version=number + 1,
            account=ACCOUNT,
            entry=_sealed(entry(event, actor="w", recorded_at_us=event.at_us), version=number + 1),
            hash=b"",
            seal_key=None if any(isinstance(event, Deleted) for event in events) else SEAL_KEY,
        )
        for number, event in enumerate(events)
    ]


def _sealed(told: Entry, *, version: int) -> Entry:
    if told.payload is None:
        return told
    nonce = version.to_bytes(NONCE_BYTES, "big")
    return replace(told, payload=seal(told.payload, key=SEAL_KEY, nonce=nonce, stream=ID, version=version))


def life(*commands: TaskCommand) -> list[Step]:
    """The steps of a task that was asked all this."""
    task, events = replace(NO_TASK, task_id=ID), list[TaskEvent]()
    for command in commands:
        for event in decide(task, command):
            task = evolve(task, event)
            events.append(event)
    return [*steps_of(ID, recorded(events))]


def explained(name: str, *commands: TaskCommand) -> Explanation:
    (one,) = explanations(life(*commands), named(name), shown)
    return one


def given(one: Explanation) -> list[tuple[str, Any]]:
    return [(event.type, event.value) for event in one.events]


# The fields


def names_in(view: Mapping[str, Any]) -> list[str]:
    groups = {name: [f"{name}.{inner}" for inner in view[name]] for name in CONTAINERS}
    return [dotted for name in view for dotted in groups.get(name, [name])]


def test_every_field_of_the_native_task_can_be_explained_and_no_other() -> None:
    failed = life(create(), start(), fail())[-1].after
    assert [*FIELDS] == names_in(shown(failed, FIRST))


def test_the_figures_are_all_fields_in_credits() -> None:
    assert [*MONEY] == [name for name in FIELDS if name.endswith("_credits")]


GIVEN: list[tuple[str, tuple[TaskCommand, ...], list[tuple[str, Any]]]] = [
    ("status", (create(),), [("created", "queued")]),
    (
        "status",
        (create(), start(), complete()),
        [("created", "queued"), ("started", "running"), ("completed", "completed")],
    ),
    ("started_at", (create(), complete()), [("started", "2026-01-02T03:04:08Z")]),
    ("started_at", (create(),), []),
    (
        "percent",
        (create(), progress(40), progress(30, stage="s"), progress(60)),
        [("progressed", 40), ("progressed", 60)],
    ),
    ("percent", (create(), progress(0)), [("progressed", 0)]),
    ("error.code", (create(), start(), fail()), [("failed", "provider_error")]),
    ("error.code", (create(), complete()), []),
    ("cancel_requested", (create(), start(), cancel(BEATRA), cancel(BEATRA)), [("cancel-requested", True)]),
    ("cancel_requested", (create(), start()), []),
    ("late_reports", (create(), cancel(), fail(), complete()), [("late-reported", 1), ("late-reported", 2)]),
    ("metadata", (create(), complete()), [("created", {"order": 4711})]),
    ("metadata", (create(), complete(), delete()), []),  # what is erased has left nothing to tell of
    ("deleted", (create(), complete(), delete()), [("deleted", True)]),
    (
        "status",
        (create(ON_SUCCESS), complete(), update(), cancel(second=6)),
        [
            ("created", "queued"),
            ("started", "running"),
            ("completed", "completed"),
            ("update-requested", "queued"),
            ("update-reverted", "completed"),
        ],
    ),
    ("estimated_credits", (create(),), [("created", "10")]),
    ("estimated_credits", (create(terms(School.HOLD, estimated=0)),), [("created", "0")]),
    ("worker", (create(), start("w7")), [("started", "w7")]),
]


@pytest.mark.parametrize(("name", "commands", "events"), GIVEN)
def test_a_field_was_given_its_value_by_these_events(
    name: str, commands: tuple[TaskCommand, ...], events: list[tuple[str, Any]]
) -> None:
    one = explained(name, *commands)
    assert given(one) == events
    if events:
        assert one.value == events[-1][1]


def test_an_event_is_told_with_its_place_its_times_and_who_reported_it() -> None:
    (held,) = explained("held_credits", create()).events
    assert asdict(held) == {
        "position": FIRST + 1,
        "version": 2,
        "type": "held",
        "effective_at": "2026-01-02T03:04:05Z",
        "recorded_at": "2026-01-02T03:04:05Z",
        "actor": "w",
        "amount_credits": "10",
        "value": "10",
    }


# The money

SUMS: list[tuple[str, tuple[TaskCommand, ...], list[tuple[str, str]]]] = [
    ("estimated", (create(HOLD),), [("10", "hold.created.pinned-price")]),
    ("held", (create(HOLD),), [("10", "hold.created.held-estimate")]),
    (
        "held",
        (create(HOLD), complete(4)),
        [
            ("10", "hold.created.held-estimate"),
            ("-4", "hold.completed.charged-actual"),
            ("-6", "hold.completed.released-rest"),
        ],
    ),
    ("charged", (create(HOLD), complete()), [("10", "hold.completed.charged-actual")]),
    ("released", (create(HOLD), complete(4)), [("6", "hold.completed.released-rest")]),
    ("released", (create(HOLD), start(), fail()), [("10", "hold.failed.released-all")]),
    ("charged", (create(HOLD), start(), fail(3)), [("3", "hold.failed.charged-reported")]),
    ("released", (create(HOLD), start(), fail(3)), [("7", "hold.failed.released-rest")]),
    ("released", (create(HOLD), expire()), [("10", "hold.expired.released-all")]),
    ("released", (create(HOLD), cancel()), [("10", "hold.cancelled.released-all")]),
    ("released", (create(METERED), progress(20), cancel()), [("10", "hold.cancelled.released-all")]),
    ("charged", (create(METERED), progress(40), cancel()), [("8", "hold.cancelled.rendered-seconds")]),
    ("released", (create(METERED), progress(40), cancel()), [("2", "hold.cancelled.released-rest")]),
    ("charged", (create(METERED), progress(90), cancel()), [("10", "hold.cancelled.rendered-seconds")]),
    (
        "charged",
        (create(METERED), charge(3), progress(40), cancel()),
        [("3", "hold.reported.worker-charged"), ("5", "hold.cancelled.rendered-seconds")],
    ),
    (
        "charged",
        (create(METERED), progress(40), cancel(BEATRA), confirm(1)),
        [("1", "hold.cancelled.charged-reported")],
    ),
    (
        "net",
        (create(HOLD), charge(5), complete(2)),
        [("5", "hold.reported.worker-charged"), ("-3", "hold.completed.refunded-excess")],
    ),
    ("charged", (create(PREPAID),), [("10", "prepaid.created.charged-estimate")]),
    ("refunded", (create(PREPAID), complete(4)), [("6", "prepaid.completed.refunded-difference")]),
    ("refunded", (create(PREPAID), start(), fail()), [("10", "prepaid.failed.refunded")]),
    ("refunded", (create(PREPAID), cancel()), [("10", "prepaid.cancelled.refunded")]),
    ("refunded", (create(PREPAID), expire()), [("10", "prepaid.expired.refunded")]),
    (
        "net",
        (create(PREPAID), start(), cancel(BEATRA), confirm(4)),
        [("10", "prepaid.created.charged-estimate"), ("-6", "prepaid.cancelled.refunded-undelivered")],
    ),
    (
        "refunded",
        (create(PREPAID), complete(), refund(3, "a"), refund(2, "b")),
        [("3", "prepaid.reported.worker-refunded"), ("2", "prepaid.reported.worker-refunded")],
    ),
    ("charged", (create(ON_SUCCESS), complete(4)), [("4", "on-success.completed.charged-actual")]),
    ("charged", (create(ON_SUCCESS), start(), fail()), []),
    ("refunded", (create(HOLD), start(), fail()), []),
]


@pytest.mark.parametrize(("figure", "commands", "lines"), SUMS)
def test_a_figure_is_the_sum_of_these_lines_by_these_rules(
    figure: str, commands: tuple[TaskCommand, ...], lines: list[tuple[str, str]]
) -> None:
    one = explained(f"{figure}_credits", *commands)
    assert one.figure is not None
    assert [(line.credits, line.rule) for line in one.figure.sum] == lines
    assert [rule.name for rule in one.figure.rules] == [*dict.fromkeys(rule for _, rule in lines)]
    assert Decimal(one.value) == sum(Decimal(credit) for credit, _ in lines)


def test_every_rule_is_met_by_a_line_of_the_table() -> None:
    assert {rule.rpartition(".")[2] for _, _, lines in SUMS for _, rule in lines} == set(SENTENCES)


CANCELS: list[tuple[tuple[TaskCommand, ...], str | None]] = [
    (
        (create(METERED), progress(40), cancel()),
        "20 s x 40 % = 8 s rendered; 8 s x 1 credits/s = 8 credits; at most the 10 held: 8 due in all",
    ),
    (
        (create(METERED), progress(37), cancel()),
        "20 s x 37 % = 7.4 s rendered; 7.4 s x 1 credits/s = 7.4 credits; at most the 10 held: 7.4 due in all",
    ),
    (
        (create(METERED), progress(90), cancel()),
        "20 s x 90 % = 18 s rendered; 18 s x 1 credits/s = 18 credits; at most the 10 held: 10 due in all",
    ),
    (
        (create(METERED), progress(24), cancel()),
        "cancelled at 24 %, before the point of no return: nothing further is due",
    ),
    (
        (create(METERED), progress(40), cancel(BEATRA), confirm(1)),
        "a worker confirmed the cancel, and what it reported was due",
    ),
    (
        (create(replace(METERED, cancel_rate_micros_per_second=333_333, output_seconds=7)), progress(33), cancel()),
        (
            "7 s x 33 % = 2.31 s rendered; 2.31 s x 0.333333 credits/s = 0.769999 credits (rounded down from 769999 "
            "23/100 micro-credits, remainder 23/100); at most the 10 held: 0.769999 due in all"
        ),
    ),
    ((create(METERED), complete()), None),
    ((create(HOLD), cancel()), None),
]


ODD = replace(METERED, cancel_rate_micros_per_second=333_333, output_seconds=7)
"""Past the point of no return its seconds come to no whole micro-credits."""
HALF = {"from_micros": "769999 23/100", "to": "down", "remainder_micros": "23/100"}
ROUNDED: list[tuple[Terms, tuple[TaskCommand, ...], list[tuple[str, dict[str, str] | None]]]] = [
    (ODD, (progress(33), cancel()), [("0.769999", HALF)]),
    (ODD, (charge(1), progress(33), cancel()), [("1", None)]),  # more than is rendered: that is not rounded
    (ODD, (progress(33), cancel(BEATRA), confirm(1)), [("1", None)]),
    (replace(ODD, estimated_micros=700_000), (progress(33), cancel()), [("0.7", None)]),  # all that is held
    (METERED, (progress(40), cancel()), [("8", None)]),
    (ODD, (progress(33), complete(4)), [("4", None)]),
]


@pytest.mark.parametrize(("terms", "commands", "lines"), ROUNDED)
def test_a_figure_that_was_rounded_says_from_what_and_what_that_leaves(
    terms: Terms, commands: tuple[TaskCommand, ...], lines: list[tuple[str, dict[str, str] | None]]
) -> None:
    figure = explained("charged_credits", create(terms), *commands).figure
    assert figure is not None
    told = [(line.credits, None if line.rounded is None else asdict(line.rounded)) for line in figure.sum]
    assert told == lines


@pytest.mark.parametrize(("commands", "text"), CANCELS)
def test_what_a_cancel_cost_is_written_out(commands: tuple[TaskCommand, ...], text: str | None) -> None:
    figure = explained("charged_credits", *commands).figure
    assert figure is not None
    assert figure.rate.cancel == text


def test_the_rate_is_the_one_that_was_pinned() -> None:
    figure = explained("charged_credits", create(METERED), complete()).figure
    assert figure is not None
    assert asdict(figure.rate) == {
        "school": "hold",
        "rate_version": "7",
        "price_credits": "10",
        "pinned_at_position": FIRST,
        "cancellable": True,
        "point_of_no_return_percent": 25,
        "cancel_credits_per_second": "1",
        "output_seconds": 20,
        "cancel": None,
    }


# Whatever happens


@pytest.mark.parametrize("school", School)
def test_every_field_of_every_history_is_explained(school: School) -> None:
    for seed in range(SEEDS):
        events = [event for taken in history(school, seed) for event in taken.events]
        steps = [*steps_of(ID, recorded(events))]
        view = shown(steps[-1].after, steps[-1].row.position)
        for one in explanations(steps, [*FIELDS], shown):
            assert one.value == value_in(view, one.field)
            if one.events:
                assert one.events[-1].value == one.value, one.field
            else:
                assert not is_set(one.value), one.field
            if one.figure is not None:
                _adds_up(one)


def _adds_up(one: Explanation) -> None:
    assert one.figure is not None
    total = Decimal(0)
    for line in one.figure.sum:
        total += Decimal(line.credits)
        assert Decimal(line.total_credits) == total
        school, _, act = line.rule.split(".")
        assert school == one.figure.rate.school
        assert act in SENTENCES
    assert Decimal(one.value) == total


@pytest.mark.parametrize("school", School)
def test_s12_nothing_is_shown_as_refunded_that_no_refund_event_backs(school: School) -> None:
    refunds = 0
    for seed in range(SEEDS):
        events = [event for taken in history(school, seed) for event in taken.events]
        (one,) = explanations([*steps_of(ID, recorded(events))], ["billing.refunded_credits"], shown)
        assert {event.type for event in one.events} <= {"refunded"}
        assert Decimal(one.value) == sum(Decimal(event.amount_credits or "") for event in one.events)
        refunds += len(one.events)
    assert refunds or school is School.ON_SUCCESS


@pytest.mark.parametrize("school", School)
def test_the_price_and_the_rate_never_change(school: School) -> None:
    for seed in range(SEEDS):
        events = [event for taken in history(school, seed) for event in taken.events]
        steps = [*steps_of(ID, recorded(events))]
        first, last = explanations(steps[:1], [*MONEY], shown), explanations(steps, [*MONEY], shown)
        for then, now in zip(first, last, strict=True):
            assert then.figure is not None
            assert now.figure is not None
            assert replace(now.figure.rate, cancel=None) == then.figure.rate


def test_a_history_that_cannot_be_folded_is_a_fault() -> None:
    rows = recorded([Started(at_us=0)])
    bad = replace(rows[0], entry=replace(rows[0].entry, facts=b"{}"))
    with pytest.raises(DamagedError, match=f"position {FIRST} "):
        list(steps_of(ID, [bad]))


# Names


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("status", ("status",)),
        ("billing.charged_credits", ("billing.charged_credits",)),
        ("charged_credits", ("billing.charged_credits",)),
        ("percent", ("progress.percent",)),
        ("progress", ("progress.percent", "progress.stage", "progress.message")),
        ("billing", tuple(name for name in FIELDS if name.startswith("billing."))),
    ],
)
def test_a_field_is_named_in_full_or_by_its_end_or_with_its_group(text: str, fields: tuple[str, ...]) -> None:
    assert named(text) == fields


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("message", "'message' may be progress.message or error.message"),
        ("charged", "a task has no field 'charged'; near it are billing.charged_credits"),
        ("statsu", "a task has no field 'statsu'; near it are status"),
        ("zzz", "a task has no field 'zzz'; without a field all are explained"),
        ("", "a task has no field ''"),
    ],
)
def test_a_name_that_is_none_is_refused_with_those_that_are_near(text: str, message: str) -> None:
    with pytest.raises(NoSuchFieldError) as refused:
        named(text)
    assert str(refused.value).startswith(message)


# The verb


class Ended(NamedTuple):
    code: int
    out: str
    err: str


UUID = Spelling.UUID.spell(ident(0))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("original") / "ledger.db"
    stored.make(path)
    return path


class Shell:
    """Where `explain` is typed in."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Ended:
        self._capsys.readouterr()
        code = run(app, ("explain", *arguments))
        return Ended(code, *self._capsys.readouterr())

    def json(self, *arguments: str) -> list[dict[str, Any]]:
        ended = self(*arguments, "--json")
        assert (ended.code, ended.err) == (0, "")
        return [json.loads(line) for line in ended.out.splitlines()]


@pytest.fixture
def shell(original: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    monkeypatch.setenv("TASK_LEDGER_STORE", f"sqlite:{original}")
    return Shell(capsys)


@pytest.mark.parametrize("spelling", spellings())
def test_it_takes_any_spelling_of_the_id(shell: Shell, spelling: Spelling) -> None:
    ended = shell(spelling.spell(ident(0)), "status")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("status = ")


def test_without_a_field_it_tells_all_that_have_a_value_and_the_money_in_full(shell: Shell) -> None:
    lines, told = shell(UUID).out.splitlines(), {one["field"]: one for one in shell.json(UUID)}
    facts = lines[: lines.index("")]
    assert [line.split()[0] for line in facts] == [name for name in told if name not in {*MONEY, explain_costs.NAME}]
    assert set(MONEY) < set(told)
    for name in MONEY:
        assert any(line.startswith(f"{name} = {told[name]['value']}: ") for line in lines)
    assert sum(line.startswith("rate: ") for line in lines) == 1
    place = told["status"]
    assert lines[-1] == f"as of position {place['as_of']}, hash {place['head']}"
    cost = told["provider_cost"]
    assert (cost["value"], cost["as_of"], cost["head"]) == ("0", place["as_of"], place["head"])
    assert [line for line in lines if line.startswith("provider_cost = 0: ")] == [lines[-4]]


def test_where_the_books_have_no_place_all_but_the_cost_is_told(shell: Shell, original: Path) -> None:
    books = original.with_name(f"{original.name}.books")
    books.unlink(missing_ok=True)
    books.write_text("something else, and long enough to be looked at as a database " * 20)
    for option in ((), ("--json",)):
        ended = shell(UUID, *option)
        assert (ended.code, ended.err.count("\n")) == (0, 1)
        assert ended.err.startswith("provider_cost is not known: ")
        assert "billing.net_credits" in ended.out
        assert "provider_cost" not in ended.out
    books.unlink()


def test_a_figure_reads_like_this(shell: Shell) -> None:
    lines = shell(UUID, "charged_credits").out.splitlines()
    assert lines == [
        "billing.charged_credits = 10: all that was charged, whatever was given back later",
        "  +10  charged (position 8, v6) at 2026-01-02T03:04:37Z by w: hold.completed.charged-actual",
        "  = 10",
        f"  hold.completed.charged-actual: {SENTENCES['charged-actual']}",
        "rate: school hold, rate version 7, price 10, pinned at position 3",
        "      point of no return 0 %, then 1 credits/s of 20 s",
        lines[-1],
    ]


def test_a_field_that_no_event_gave_says_so(shell: Shell) -> None:
    lines = shell(UUID, "expires_at").out.splitlines()
    assert lines[:2] == [
        "expires_at = null: the deadline, pinned at creation",
        "  never set: no event gave it a value",
    ]


def test_as_of_an_earlier_position_it_tells_what_was_so_then(shell: Shell) -> None:
    (then,) = shell.json(UUID, "held_credits", "--at", "4")
    (now,) = shell.json(UUID, "held_credits")
    assert (then["value"], then["as_of"]) == ("10", 4)
    assert (now["value"], now["events"][:1]) == ("0", then["events"])
    assert len(then["head"]) == 64


WRONG = [
    ((UUID, "statsu"), "near it are status"),
    (("nonsense",), "is no task id in any spelling"),
    ((Spelling.UUID.spell(ident(999)),), "there is no task"),
    ((UUID, "status", "--at", "1"), "as of position 1"),
    ((UUID, "status", "--at", "999999"), "the log ends at position"),
    ((UUID, "status", "--at", "yesterday"), "neither a position nor a time"),
]


@pytest.mark.parametrize(("arguments", "fragment"), WRONG)
def test_wrong_use_is_one_line_and_ends_in_two(shell: Shell, arguments: tuple[str, ...], fragment: str) -> None:
    ended = shell(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert fragment in ended.err
    assert ended.err.count("\n") == 1
