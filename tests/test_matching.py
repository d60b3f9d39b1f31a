"""Matching as a table: tasks in the books on one side, lines of a statement on the other, and the breaks between."""

from collections.abc import Sequence
from typing import NamedTuple

import pytest
from msgspec.structs import replace

from api.contracts import CONTRACTS, parse_any
from ledger.breaks import Difference
from ledger.ids import Spelling, TaskId
from ledger.times import US_PER_SECOND
from projections.books.booked import Booked
from projections.books.movements import Purpose
from projections.reconciliation.differences import Side, compare, duplicate, missing_here, missing_there
from projections.reconciliation.leftovers import Leftovers
from projections.reconciliation.matching import assign
from projections.reconciliation.statement_format import StatementFormat
from projections.reconciliation.statements import read_statement
from tests.billing import COLUMNS, MODEL, PROVIDER, ended_us, row, statement
from tests.builders import CREATED_US, ident

DAY_US = 86_400 * US_PER_SECOND
MONTH = (CREATED_US - 3600 * US_PER_SECOND, CREATED_US + 30 * 86_400 * US_PER_SECOND)
UUID = Spelling.UUID.spell


def booked(number: int, **other: object) -> Booked:
    """Task *number*, completed and charged one and a half credits, known by the provider's id."""
    task = Booked(
        task=ident(number),
        purpose=Purpose("acme", "lemondata", MODEL, PROVIDER, "hold"),
        model=MODEL,
        created_at_us=ended_us(number) - 30 * US_PER_SECOND,
        status="completed",
        finished_at_us=ended_us(number),
        cancel_requested_at_us=None,
        held_at_us=None,
        held_micros=0,
        charged_micros=1_500_000,
        refunded_micros=0,
        billed_micros=0,
        billed_came=0,
        identified=True,
    )
    return replace(task, **other)


RUNNING = {"status": "running", "finished_at_us": None, "charged_micros": 0, "held_micros": 10_000_000}
CANCELLED = {"status": "cancelled", "charged_micros": 0, "cancel_requested_at_us": ended_us(1) - US_PER_SECOND}
UNNAMED = {"provider_task_id": "", "our_task_id": ""}
Rows = Sequence[dict[str, str]]


def breaks(tasks: Sequence[Booked], rows: Rows, form: StatementFormat | None = None) -> list[Difference]:
    """Everything that differs, by the steps of `projections.reconciliation.comparison`, with the tasks at hand."""
    form = form or StatementFormat()
    read = read_statement(statement(rows, columns=COLUMNS), form, task_in=parse_any)
    assert not read.malformed
    side = Side(PROVIDER, read.currency, form, form.terms(), *MONTH)
    numbers = {task.task: f"prov-{number}" for number in range(20) for task in tasks if task.task == ident(number)}
    by_provider_id = {numbers[task.task]: [task] for task in tasks if task.identified}
    assigned = assign(read.lines, by_provider_id, {task.task: task for task in tasks})
    found = [duplicate(repeat, side) for repeat in assigned.repeats]
    for task, lines in assigned.groups.items():
        found += compare(assigned.tasks[task], lines, side)
    left = Leftovers(assigned.left, side)
    for one in sorted(tasks, key=lambda task: task.finished_at_us or 0):
        if one.finished_at_us is None:
            continue
        left.pass_by([one])
        if one.task in assigned.groups or one.net_micros <= 0:
            continue
        line = left.take(one, one.net_micros)
        found += [missing_there(one)] if line is None else compare(one, [line], side)
    return [*found, *missing_here(left.rest(), side)]


CASES: dict[str, tuple[Sequence[Booked], Rows, list[tuple[str, int]]]] = {
    "both agree": ([booked(1)], [row(1)], []),
    "nothing on either side": ([], [], []),
    "a line without a task": ([], [row(1)], [("missing-here", 1_500_000)]),
    "a task without a line": ([booked(1)], [], [("missing-there", 1_500_000)]),
    "a task that cost nothing needs no line": ([booked(1, charged_micros=0)], [], []),
    "a task that was given back needs no line": ([booked(1, refunded_micros=1_500_000)], [], []),
    "billed more": ([booked(1)], [row(1, amount="1.500001")], [("amount", 1)]),
    "billed less": ([booked(1)], [row(1, amount="1")], [("amount", 500_000)]),
    "two lines of one task are added up": (
        [booked(1)],
        [row(1, amount="1", line_id="a"), row(1, amount="0.5", line_id="b")],
        [],
    ),
    "two equal halves are no duplicate": (
        [booked(1)],
        [row(1, amount="0.75", line_id="a"), row(1, amount="0.75", line_id="b")],
        [],
    ),
    "a credit note is added up as well": (
        [booked(1)],
        [row(1, amount="2", line_id="a"), row(1, amount="-0.5", line_id="b")],
        [],
    ),
    "the same line twice": ([booked(1)], [row(1), row(1)], [("duplicate", 1_500_000)]),
    "the same line three times": ([booked(1)], [row(1), row(1), row(1)], [("duplicate", 1_500_000)] * 2),
    "the same under another line id": (
        [booked(1)],
        [row(1), row(1, line_id="again")],
        [("duplicate", 1_500_000)],
    ),
    "two lines that say different things and are too much": (
        [booked(1)],
        [row(1), row(1, line_id="b", amount="1", finished_at="")],
        [("amount", 1_000_000)],
    ),
    "another currency": ([booked(1), booked(2)], [row(1), row(2, currency="EUR")], [("currency", 1_500_000)]),
    "no currency is the agreed one": ([booked(1), booked(2)], [row(1), row(2, currency="")], []),
    "failed there, completed here": (
        [booked(1)],
        [row(1, status="failed", amount="0")],
        [("status-conflict", 1_500_000)],
    ),
    "completed there, failed here": (
        [booked(1, status="failed", charged_micros=0)],
        [row(1)],
        [("status-conflict", 1_500_000)],
    ),
    "failed there, expired here": (
        [booked(1, status="expired", charged_micros=0)],
        [row(1, status="FAILED", amount="0")],
        [],
    ),
    "a word that nobody knows": ([booked(1)], [row(1, status="finito")], [("status-conflict", 1_500_000)]),
    "no word": ([booked(1)], [row(1, status="")], []),
    "billed while it runs here": ([booked(1, **RUNNING)], [row(1)], [("unsettled", 1_500_000)]),
    "billed after it was cancelled": (
        [booked(1, **CANCELLED)],
        [row(1, status="cancelled")],
        [("avoidable-cost", 1_500_000)],
    ),
    "billed beyond the part that a cancel costs": (
        [booked(1, **CANCELLED | {"charged_micros": 500_000})],
        [row(1, status="cancelled")],
        [("avoidable-cost", 1_000_000)],
    ),
    "billed the part that a cancel costs": (
        [booked(1, **CANCELLED | {"charged_micros": 1_500_000})],
        [row(1, status="cancelled")],
        [],
    ),
    "it ended there before the cancel was asked for": (
        [booked(1, **CANCELLED | {"cancel_requested_at_us": ended_us(1)})],
        [row(1, status="cancelled")],
        [("amount", 1_500_000)],
    ),
    "completed although a cancel was asked for": (
        [booked(1, cancel_requested_at_us=ended_us(1) - 1)],
        [row(1)],
        [],
    ),
    "billed beyond what was delivered although a cancel was asked for": (
        [booked(1, cancel_requested_at_us=ended_us(1) - 1)],
        [row(1, amount="2")],
        [("avoidable-cost", 500_000)],
    ),
    "billed five days after the month in which it ended": (
        [booked(1)],
        [row(1, billed_at="2026-02-06T00:00:00Z")],
        [],
    ),
    "billed later than that": (
        [booked(1)],
        [row(1, billed_at="2026-02-06T00:00:00.000001Z")],
        [("late", 1_500_000)],
    ),
    "late, and at another amount": (
        [booked(1)],
        [row(1, amount="2", billed_at="2026-03-01T00:00:00Z")],
        [("amount", 500_000), ("late", 2_000_000)],
    ),
    "it ended five days before the period, and nobody says when it was billed": (
        [booked(1, finished_at_us=MONTH[0] - 5 * DAY_US)],
        [row(1, billed_at="")],
        [],
    ),
    "it ended earlier than that": (
        [booked(1, finished_at_us=MONTH[0] - 5 * DAY_US - 1)],
        [row(1, billed_at="")],
        [("late", 1_500_000)],
    ),
    "by our id alone": ([booked(1)], [row(1, provider_task_id="")], []),
    "by our id, where the provider's is not known": ([booked(1, identified=False)], [row(1)], []),
    "both ids contradict: the provider's counts": (
        [booked(1), booked(2)],
        [row(1, our_task_id=UUID(ident(2)))],
        [("missing-there", 1_500_000)],
    ),
    "by amount and time": ([booked(1, identified=False)], [row(1, **UNNAMED)], []),
    "by amount and time, another amount": (
        [booked(1, identified=False)],
        [row(1, **UNNAMED, amount="1.4")],
        [("missing-here", 1_400_000), ("missing-there", 1_500_000)],
    ),
    "by amount and time, another model": (
        [booked(1, identified=False)],
        [row(1, **UNNAMED, model="another")],
        [("missing-here", 1_500_000), ("missing-there", 1_500_000)],
    ),
    "by amount and time, at the end of the window": (
        [booked(1, identified=False)],
        [row(61, **UNNAMED)],
        [],
    ),
    "by amount and time, beyond the window": (
        [booked(1, identified=False)],
        [row(62, **UNNAMED)],
        [("missing-here", 1_500_000), ("missing-there", 1_500_000)],
    ),
    "by amount and time each line is used once": (
        [booked(1, identified=False), booked(2, identified=False)],
        [row(1, **UNNAMED)],
        [("missing-there", 1_500_000)],
    ),
    "by amount and time each task is used once": (
        [booked(1, identified=False)],
        [row(1, **UNNAMED), row(2, **UNNAMED)],
        [("missing-here", 1_500_000)],
    ),
    "two ids of the provider's are not one task": (
        [booked(1)],
        [row(1, provider_task_id="prov-other", our_task_id="")],
        [("missing-here", 1_500_000), ("missing-there", 1_500_000)],
    ),
    "a line that names another task is not matched by amount": (
        [booked(1, identified=False)],
        [row(1, provider_task_id="", our_task_id="order-7")],
        [("missing-here", 1_500_000), ("missing-there", 1_500_000)],
    ),
    "two strays that say the same are two breaks": (
        [],
        [row(1, line_id=""), row(1, line_id="")],
        [("missing-here", 1_500_000)] * 2,
    ),
    "two faults that cancel each other out are two breaks": (
        [booked(1), booked(2)],
        [row(1, amount="1"), row(2, amount="2")],
        [("amount", 500_000)] * 2,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_differs(case: str) -> None:
    tasks, rows, expected = CASES[case]
    found = breaks(tasks, rows)
    assert sorted((one.kind.value, one.at_stake_micros) for one in found) == sorted(expected)
    assert len({one.break_id for one in found}) == len(found), "each is a break of its own"


@pytest.mark.parametrize("case", CASES)
def test_the_order_of_the_lines_changes_nothing_but_who_came_first(case: str) -> None:
    tasks, rows, expected = CASES[case]
    found = breaks(tasks, list(reversed(rows)))
    assert sorted((one.kind.value, one.at_stake_micros) for one in found) == sorted(expected)


class Edge(NamedTuple):
    credits: str
    percent: str
    amount: str
    agrees: bool


@pytest.mark.parametrize(
    "edge",
    [
        Edge("0", "0", "1.5", agrees=True),
        Edge("0", "0", "1.500001", agrees=False),
        Edge("0.01", "0", "1.51", agrees=True),
        Edge("0.01", "0", "1.49", agrees=True),
        Edge("0.01", "0", "1.510001", agrees=False),
        Edge("0.01", "0", "1.489999", agrees=False),
        Edge("0", "2", "1.53", agrees=True),
        Edge("0", "2", "1.47", agrees=True),
        Edge("0", "2", "1.530001", agrees=False),
        Edge("0", "1/3", "1.505", agrees=True),
        Edge("0", "1/3", "1.505001", agrees=False),
        Edge("0.1", "2", "1.6", agrees=True),
        Edge("0.01", "2", "1.53", agrees=True),
    ],
)
@pytest.mark.parametrize("identified", [True, False])
def test_the_tolerance_holds_to_its_very_edge(edge: Edge, identified: bool) -> None:  # noqa: FBT001 - a column
    form = StatementFormat(tolerance_credits=edge.credits, tolerance_percent=edge.percent)
    line = row(1, amount=edge.amount) if identified else row(1, amount=edge.amount, **UNNAMED)
    found = breaks([booked(1, identified=identified)], [line], form)
    assert (not found) is edge.agrees


@pytest.mark.parametrize("contract", CONTRACTS)
def test_our_id_is_read_in_the_spelling_of_any_contract(contract: str) -> None:
    spelled = CONTRACTS[contract].spelling.spell(ident(1))
    assert breaks([booked(1)], [row(1, provider_task_id="", our_task_id=spelled)]) == []


def test_of_several_lines_the_nearest_in_time_is_the_tasks() -> None:
    found = breaks([booked(5, identified=False)], [row(number, **UNNAMED) for number in (1, 4, 7)])
    assert [one.line_ids for one in found] == [("L1",), ("L7",)]


def test_of_tasks_that_share_a_providers_id_the_one_that_our_id_names_is_meant() -> None:
    read = read_statement(statement([row(1, our_task_id=UUID(ident(2)))]), StatementFormat(), task_in=parse_any)
    assigned = assign(read.lines, {"prov-1": [booked(1), booked(2)]}, {})
    assert list(assigned.groups) == [TaskId(ident(2))]


def test_a_difference_is_the_same_break_whatever_the_amounts() -> None:
    (once,) = breaks([booked(1)], [row(1, amount="2")])
    (again,) = breaks([booked(1)], [row(1, amount="3", line_id="other")])
    assert once.break_id == again.break_id
    assert (once.at_stake_micros, again.at_stake_micros) == (500_000, 1_500_000)


@pytest.mark.parametrize(
    ("word", "outcome"), [("DONE", "completed"), ("Aborted", "cancelled"), ("succeeded", "completed")]
)
def test_a_providers_own_words_come_from_its_configuration(word: str, outcome: str) -> None:
    form = StatementFormat(statuses={"done": "completed", "aborted": "cancelled"})  # type: ignore[dict-item]
    assert form.outcome(word) == outcome


def test_with_a_wide_tolerance_every_line_finds_its_task() -> None:
    form = StatementFormat(tolerance_percent="100", match_window_seconds=10**7)
    rows = [row(1, **UNNAMED, line_id=f"L{n}", amount=f"1.{n:04}") for n in range(500)]
    assert breaks([booked(n, identified=False) for n in range(500)], rows, form) == []


def test_a_crowd_of_lines_that_no_task_may_be_are_all_told() -> None:
    rows = [row(1, line_id=f"L{n}", provider_task_id=f"other-{n}", our_task_id="") for n in range(2000)]
    found = breaks([booked(number) for number in range(20)], rows)
    assert len(found) == 2020
