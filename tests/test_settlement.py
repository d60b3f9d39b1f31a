"""The money of every outcome in the three billing schools, in whole credits; every estimate here is ten."""

from functools import reduce

import pytest
from hypothesis import given as generated
from hypothesis import settings
from hypothesis import strategies as st
from msgspec.structs import replace

from ledger.commands import TaskCommand
from ledger.errors import AmountExceeds, KeyReused
from ledger.events import (
    Cancelled,
    CancelRequested,
    Charged,
    Completed,
    Created,
    Expired,
    Failed,
    Held,
    LateReported,
    Payload,
    Refunded,
    Released,
    School,
    Started,
    TaskEvent,
    Terms,
    UpdateReverted,
)
from ledger.money import AMOUNT_MAX_MICROS, MICROS_PER_CREDIT
from ledger.records import SUM_MAX_MICROS
from ledger.settlement import settle, violations
from ledger.task import NO_TASK, Run, Task, evolve
from tests.rules_dsl import (
    BEATRA,
    BYTESPIKE,
    HOLD,
    ID,
    METERED,
    ON_SUCCESS,
    PREPAID,
    Like,
    at,
    cancel,
    charge,
    charged,
    complete,
    confirm,
    create,
    expire,
    fail,
    given,
    like,
    progress,
    refund,
    refunded,
    released,
    start,
    terms,
    update,
)

QUEUED = (create(HOLD),)
RUNNING = (*QUEUED, start())
ASKED = (*RUNNING, cancel(BEATRA))
PART_CHARGED = (*RUNNING, charge(4))
PART_GIVEN_BACK = (*PART_CHARGED, refund(2))
METERED_AT = {percent: (create(METERED), start(), progress(percent)) for percent in (24, 25, 40, 80)}
METERED_CHARGED = (create(METERED), start(), charge(6), progress(25))

PAID = (create(PREPAID),)
PAID_RUNNING = (*PAID, start())
PAID_ASKED = (*PAID_RUNNING, cancel(BEATRA))
PAID_GIVEN_BACK = (*PAID_RUNNING, refund(3))

FREE = (create(ON_SUCCESS),)
FREE_RUNNING = (*FREE, start())
FREE_ASKED = (*FREE_RUNNING, cancel(BEATRA))

OUTCOMES = (Started, CancelRequested, Cancelled, Completed, Failed, Expired, UpdateReverted)

SETTLED: list[tuple[str, tuple[TaskCommand, ...], TaskCommand, list[Like], int]] = [
    # school and case, history, command, the money that moves, what the customer has paid in the end
    ("hold: completed at the estimate", RUNNING, complete(), [charged(10)], 10),
    ("hold: completed at just the estimate", RUNNING, complete(10), [charged(10)], 10),
    ("hold: completed for less", RUNNING, complete(4), [charged(4), released(6)], 4),
    ("hold: completed for nothing", RUNNING, complete(0), [released(10)], 0),
    ("hold: completed unstarted", QUEUED, complete(4), [charged(4), released(6)], 4),
    ("hold: failed", RUNNING, fail(), [released(10)], 0),
    ("hold: failed for nothing", RUNNING, fail(0), [released(10)], 0),
    ("hold: failed at a cost", RUNNING, fail(3), [charged(3), released(7)], 3),
    ("hold: failed at full cost", RUNNING, fail(10), [charged(10)], 10),
    ("hold: cancelled queued", QUEUED, cancel(), [released(10)], 0),
    ("hold: cancelled running", RUNNING, cancel(), [released(10)], 0),
    ("hold: cancel confirmed", ASKED, confirm(), [released(10)], 0),
    ("hold: cancel confirmed at a cost", ASKED, confirm(3), [charged(3), released(7)], 3),
    ("hold: expired queued", QUEUED, expire(), [released(10)], 0),
    ("hold: expired running", RUNNING, expire(), [released(10)], 0),
    # A worker has charged 4 of the 10
    ("hold, 4 charged: completed", PART_CHARGED, complete(), [charged(6)], 10),
    ("hold, 4 charged: completed for more", PART_CHARGED, complete(7), [charged(3), released(3)], 7),
    ("hold, 4 charged: completed for that", PART_CHARGED, complete(4), [released(6)], 4),
    ("hold, 4 charged: completed for less", PART_CHARGED, complete(3), [released(6), refunded(1)], 3),
    ("hold, 4 charged: failed", PART_CHARGED, fail(), [released(6)], 4),
    ("hold, 4 charged: failed at more", PART_CHARGED, fail(5), [charged(1), released(5)], 5),
    ("hold, 4 charged: failed for nothing", PART_CHARGED, fail(0), [released(6), refunded(4)], 0),
    ("hold, 4 charged: cancelled", PART_CHARGED, cancel(), [released(6)], 4),
    ("hold, 4 charged: confirmed", (*PART_CHARGED, cancel(BEATRA)), confirm(), [released(6)], 4),
    (
        "hold, 4 charged: confirmed for less",
        (*PART_CHARGED, cancel(BEATRA)),
        confirm(1),
        [released(6), refunded(3)],
        1,
    ),
    ("hold, 4 charged: expired", PART_CHARGED, expire(), [released(6)], 4),
    # and given back 2 of them
    ("hold, 2 given back: completed", PART_GIVEN_BACK, complete(), [charged(6)], 8),
    ("hold, 2 given back: completed for all that is left", PART_GIVEN_BACK, complete(8), [charged(6)], 8),
    ("hold, 2 given back: completed for less", PART_GIVEN_BACK, complete(1), [released(6), refunded(1)], 1),
    ("hold, 2 given back: failed", PART_GIVEN_BACK, fail(), [released(6)], 2),
    ("hold, all charged: completed", (*RUNNING, charge(10)), complete(), [], 10),
    ("hold, all charged: cancelled", (*RUNNING, charge(10)), cancel(), [], 10),
    # A cancel that takes effect at once, past the point of no return: a credit for each rendered second
    ("metered: cancelled queued", (create(METERED),), cancel(), [released(10)], 0),
    ("metered: cancelled before any progress", (create(METERED), start()), cancel(), [released(10)], 0),
    ("metered: cancelled just before the point", METERED_AT[24], cancel(), [released(10)], 0),
    ("metered: cancelled at the point", METERED_AT[25], cancel(), [charged(5), released(5)], 5),
    ("metered: cancelled past the point", METERED_AT[40], cancel(), [charged(8), released(2)], 8),
    ("metered: never more than the hold", METERED_AT[80], cancel(), [charged(10)], 10),
    ("metered: a worker charged more already", METERED_CHARGED, cancel(), [released(4)], 6),
    (
        "metered: a worker charged less",
        (*METERED_AT[40], charge(6)),
        cancel(),
        [charged(2), released(2)],
        8,
    ),
    ("metered: a hold all charged", (*METERED_AT[80], charge(10)), cancel(), [], 10),
    ("metered: failed past the point", METERED_AT[40], fail(), [released(10)], 0),
    ("metered: expired past the point", METERED_AT[40], expire(), [released(10)], 0),
    ("metered: completed past the point", METERED_AT[80], complete(9), [charged(9), released(1)], 9),
    # Paid at creation
    ("prepaid: completed at the estimate", PAID_RUNNING, complete(), [], 10),
    ("prepaid: completed at just the estimate", PAID_RUNNING, complete(10), [], 10),
    ("prepaid: completed for less", PAID_RUNNING, complete(4), [refunded(6)], 4),
    ("prepaid: completed for nothing", PAID_RUNNING, complete(0), [refunded(10)], 0),
    ("prepaid: completed unstarted", PAID, complete(4), [refunded(6)], 4),
    ("prepaid: failed", PAID_RUNNING, fail(), [refunded(10)], 0),
    ("prepaid: failed at a cost", PAID_RUNNING, fail(3), [refunded(7)], 3),
    ("prepaid: cancelled queued", PAID, cancel(), [refunded(10)], 0),
    ("prepaid: cancelled running", PAID_RUNNING, cancel(), [refunded(10)], 0),
    ("prepaid: cancel confirmed", PAID_ASKED, confirm(), [refunded(10)], 0),
    ("prepaid: cancel confirmed at a cost", PAID_ASKED, confirm(3), [refunded(7)], 3),
    ("prepaid: expired", PAID_RUNNING, expire(), [refunded(10)], 0),
    ("prepaid, 3 given back: completed", PAID_GIVEN_BACK, complete(), [], 7),
    ("prepaid, 3 given back: completed for less", PAID_GIVEN_BACK, complete(5), [refunded(2)], 5),
    ("prepaid, 3 given back: failed", PAID_GIVEN_BACK, fail(), [refunded(7)], 0),
    ("prepaid, all given back: failed", (*PAID_RUNNING, refund(10)), fail(), [], 0),
    # Paid on success
    ("on success: completed at the estimate", FREE_RUNNING, complete(), [charged(10)], 10),
    ("on success: completed for less", FREE_RUNNING, complete(4), [charged(4)], 4),
    ("on success: completed for more", FREE_RUNNING, complete(25), [charged(25)], 25),
    ("on success: completed for nothing", FREE_RUNNING, complete(0), [], 0),
    ("on success: failed", FREE_RUNNING, fail(), [], 0),
    ("on success: failed for nothing", FREE_RUNNING, fail(0), [], 0),
    ("on success: cancelled queued", FREE, cancel(), [], 0),
    ("on success: cancelled running", FREE_RUNNING, cancel(), [], 0),
    ("on success: cancel confirmed", FREE_ASKED, confirm(), [], 0),
    ("on success: expired", FREE_RUNNING, expire(), [], 0),
    ("on success, updated: completed", (*FREE_RUNNING, complete(4), update()), complete(), [charged(10)], 14),
    ("on success, updated: failed", (*FREE_RUNNING, complete(4), update()), fail(), [], 4),
    ("on success, updated: cancelled", (*FREE_RUNNING, complete(4), update()), cancel(), [], 4),
    ("on success, updated: expired", (*FREE_RUNNING, complete(4), update()), expire(), [], 4),
]


@pytest.mark.parametrize(("history", "command", "money", "net"), [pytest.param(*row[1:], id=row[0]) for row in SETTLED])
def test_an_outcome_moves_exactly_this_money(
    history: tuple[TaskCommand, ...], command: TaskCommand, money: list[Like], net: int
) -> None:
    answer = given(*history).when(command)
    outcome = [type(event) for event in answer.events if isinstance(event, OUTCOMES)]
    answer.then(*outcome, *money).leaving(net=net, held=0)


EXCESSIVE: list[tuple[str, tuple[TaskCommand, ...], TaskCommand, int]] = [
    # school and case, history, command, credits that are left
    ("hold: completed for more", RUNNING, complete(11), 10),
    ("hold: failed at more", RUNNING, fail(11), 10),
    ("hold: cancel confirmed at more", ASKED, confirm(11), 10),
    ("hold, 4 charged: completed for more", PART_CHARGED, complete(11), 10),
    ("hold, 2 given back: completed for more", PART_GIVEN_BACK, complete(9), 8),
    ("prepaid: completed for more", PAID_RUNNING, complete(11), 10),
    ("prepaid: failed at more", PAID_RUNNING, fail(11), 10),
    ("prepaid: cancel confirmed at more", PAID_ASKED, confirm(11), 10),
    ("prepaid, 3 given back: completed for more", PAID_GIVEN_BACK, complete(8), 7),
    ("on success: failed at a cost", FREE_RUNNING, fail(1), 0),
    ("on success: cancel confirmed at a cost", FREE_ASKED, confirm(1), 0),
    ("on success, updated: failed at a cost", (*FREE_RUNNING, complete(4), update()), fail(1), 0),
]


@pytest.mark.parametrize(("history", "command", "left"), [pytest.param(*row[1:], id=row[0]) for row in EXCESSIVE])
def test_more_than_was_authorised_is_refused_not_cut_off(
    history: tuple[TaskCommand, ...], command: TaskCommand, left: int
) -> None:
    before = given(*history)
    before.when(command).refused(
        AmountExceeds,
        what="actual_credits",
        left_micros=left * MICROS_PER_CREDIT,
        settled_by=tuple(before.task.money_keys),
    )


def test_all_runs_of_a_task_together_cost_no_more_than_a_row_can_hold() -> None:
    most = AMOUNT_MAX_MICROS // MICROS_PER_CREDIT
    history: list[TaskCommand] = [*FREE_RUNNING, complete(most)]
    for run in range(8):
        history += [update(f"run {run}"), complete(most)]
    left = SUM_MAX_MICROS - 9 * AMOUNT_MAX_MICROS
    given(*history, update()).when(complete(most)).refused(AmountExceeds, left_micros=left)
    given(*history, update()).when(complete(1)).then(Started, Completed, Charged)


# Creation


@pytest.mark.parametrize(
    ("pinned", "money"),
    [
        (HOLD, [like(Held, amount_micros=10_000_000, key="hold:1", cause="created", at_us=at(0))]),
        (PREPAID, [like(Charged, amount_micros=10_000_000, key="charge:1", cause="created", at_us=at(0))]),
        (ON_SUCCESS, []),
    ],
)
def test_creation_holds_or_charges_the_estimate_or_nothing(pinned: Terms, money: list[Like]) -> None:
    given().when(create(pinned)).then(Created, *money)


@pytest.mark.parametrize("school", School)
def test_a_free_task_moves_no_money_at_all(school: School) -> None:
    free = terms(school, estimated=0)
    given().when(create(free)).then(Created)
    given(create(free), start()).when(complete()).then(Completed).leaving(net=0)
    given(create(free), start()).when(fail()).then(Failed)


# The keys and the causes of what an outcome moves


@pytest.mark.parametrize(
    ("command", "cause"),
    [(complete(3), "completed"), (fail(3), "failed"), (confirm(3), "cancelled")],
)
def test_an_outcomes_money_names_its_cause_and_its_run(command: TaskCommand, cause: str) -> None:
    answer = given(*PART_CHARGED, cancel(BEATRA)).when(replace(command, at_us=at(50)))
    moved = [event for event in answer.events if isinstance(event, Released | Refunded)]
    assert moved == [
        Released(at_us=at(50), amount_micros=6_000_000, key="release:settle:1", cause=cause),
        Refunded(at_us=at(50), amount_micros=1_000_000, key="refund:settle:1", cause=cause),
    ]


def test_an_expiry_is_a_cause_as_well() -> None:
    given(*QUEUED).when(expire()).then(Expired, like(Released, key="release:settle:1", cause="expired"))


def test_every_run_is_charged_under_a_key_of_its_own() -> None:
    first = given(*FREE_RUNNING).when(complete())
    first.then(Completed, like(Charged, key="charge:settle:1", cause="completed"))
    second = given(*FREE_RUNNING, complete(), update(), start()).when(complete())
    second.then(Completed, like(Charged, key="charge:settle:2", cause="completed"))


def test_rendered_micros_are_rounded_down() -> None:
    odd = replace(METERED, cancel_rate_micros_per_second=333_333, output_seconds=7)
    answer = given(create(odd), start(), progress(33)).when(cancel(BYTESPIKE))
    assert [event for event in answer.events if isinstance(event, Charged)] == [
        Charged(at_us=at(3), amount_micros=769_999, key="charge:settle:1", cause="cancelled")
    ]


# What a worker charges and gives back


def test_a_worker_charges_out_of_the_hold() -> None:
    answer = given(*RUNNING).when(charge(4, "frames", reason="40 frames"))
    answer.then(
        Charged(
            at_us=at(2),
            payload=Payload(message="40 frames"),
            amount_micros=4_000_000,
            key="charged:frames",
            cause="charged",
        )
    ).leaving(held=6, charged=4, authorised=10)
    given(*PART_CHARGED).when(charge(6, "rest")).then(charged(6)).leaving(held=0, charged=10)


@pytest.mark.parametrize("history", [RUNNING, PART_CHARGED, ASKED])
def test_a_worker_cannot_charge_more_than_is_held(history: tuple[TaskCommand, ...]) -> None:
    left = given(*history).task.held_micros
    given(*history).when(charge(11, "more")).refused(
        AmountExceeds, what="amount_credits", asked_micros=11_000_000, left_micros=left
    )


@pytest.mark.parametrize("history", [PAID_RUNNING, FREE_RUNNING])
def test_where_nothing_is_held_a_worker_cannot_charge(history: tuple[TaskCommand, ...]) -> None:
    given(*history).when(charge(1)).refused(AmountExceeds, left_micros=0)


def test_a_worker_gives_back_of_what_was_charged() -> None:
    answer = given(*RUNNING, complete(4)).when(refund(3, "goodwill", reason="poor quality"))
    answer.then(
        Refunded(
            at_us=at(3),
            payload=Payload(message="poor quality"),
            amount_micros=3_000_000,
            key="refunded:goodwill",
            cause="refunded",
        )
    ).leaving(charged=4, refunded=3, net=1)


def test_never_more_is_given_back_than_was_charged() -> None:
    paid = (*RUNNING, complete(4), refund(3, "a"))
    given(*paid).when(refund(1, "b")).then(refunded(1)).leaving(net=0)
    given(*paid).when(refund(2, "b")).refused(
        AmountExceeds,
        what="amount_credits",
        asked_micros=2_000_000,
        left_micros=1_000_000,
        settled_by=("hold:1", "charge:settle:1", "release:settle:1", "refunded:a"),
    )


@pytest.mark.parametrize("history", [QUEUED, RUNNING, FREE_RUNNING, (*PAID, cancel())])
def test_where_nothing_is_charged_there_is_nothing_to_give_back(history: tuple[TaskCommand, ...]) -> None:
    given(*history).when(refund(1)).refused(AmountExceeds, left_micros=0)


def test_the_same_key_with_the_same_amount_moves_nothing() -> None:
    given(*PART_CHARGED).when(charge(4)).then().leaving(charged=4)
    given(*RUNNING, charge(10)).when(charge(10)).then().leaving(charged=10)
    given(*PART_GIVEN_BACK).when(refund(2)).then().leaving(refunded=2)
    given(*PAID, refund(10)).when(refund(10)).then().leaving(refunded=10)
    given(*PART_GIVEN_BACK, complete()).when(refund(2)).then().leaving(refunded=2)


def test_the_same_key_with_another_amount_is_refused() -> None:
    given(*PART_CHARGED).when(charge(5)).refused(
        KeyReused, operation="charged", key="k", amount_micros=4_000_000, task=ID
    )
    given(*PART_GIVEN_BACK).when(refund(1)).refused(
        KeyReused, operation="refunded", key="k", amount_micros=2_000_000, task=ID
    )
    given(*PART_CHARGED).when(charge(99)).refused(KeyReused)


def test_a_charge_and_a_refund_do_not_share_their_keys() -> None:
    given(*PART_CHARGED).when(refund(3, "k")).then(refunded(3)).leaving(held=6, net=1)


def test_a_worker_cannot_take_the_key_of_a_settlement() -> None:
    given(*PART_CHARGED, refund(1, "settle:1"), charge(1, "settle:1")).when(complete(3)).then(
        Completed, released(5), like(Refunded, amount_micros=1_000_000, key="refund:settle:1")
    )


def test_a_charge_after_the_outcome_is_only_evidence() -> None:
    given(*RUNNING, complete(4)).when(charge(6)).then(
        like(LateReported, reported="charged", claimed_micros=6_000_000)
    ).leaving(charged=4, held=0)


def test_the_price_is_the_one_of_the_creation() -> None:
    dear = replace(create(HOLD), terms=replace(HOLD, rate_version="8", estimated_micros=99_000_000))
    given(create(HOLD), start()).when(complete()).then(Completed, charged(10))
    given(dear, start()).when(complete()).then(Completed, charged(99))


# Settling, for all amounts


percents = st.integers(0, 100)


@generated(
    school=st.sampled_from(School),
    paid=st.tuples(st.integers(0, 10**18), percents, percents),
    due_percent=st.integers(0, 120),
    cause=st.sampled_from(["completed", "failed", "cancelled", "expired"]),
)
@settings(deadline=None, max_examples=400)
def test_a_settlement_leaves_nothing_held_and_exactly_what_was_due_or_is_refused(
    school: School, paid: tuple[int, int, int], due_percent: int, cause: str
) -> None:
    task = _paid_in_part(school, *paid)
    limit, due = task.net_micros + task.held_micros, paid[0] * due_percent // 100
    if school is School.ON_SUCCESS:
        limit = SUM_MAX_MICROS - task.charged_micros if cause == "completed" else 0
    if due > limit:
        with pytest.raises(AmountExceeds):
            settle(task, due_micros=due, cause=cause, at_us=0)
        return
    events = settle(task, due_micros=due, cause=cause, at_us=0)
    after = _after(task, *events)
    assert violations(after) == []
    assert after.held_micros == 0
    assert after.net_micros == due
    assert len({type(event) for event in events}) == len(events) <= 2
    assert all(event.amount_micros > 0 for event in events)


def _paid_in_part(school: School, estimated: int, charged_percent: int, refunded_percent: int) -> Task:
    """A running task that has charged, and then given back, these percentages of what it could."""
    pinned = Terms(school=school, rate_version="7", estimated_micros=estimated)
    task = given(create(pinned), start()).task
    amount = task.held_micros * charged_percent // 100
    task = _after(task, Charged(at_us=0, amount_micros=amount, key="c", cause="charged"))
    amount = task.net_micros * refunded_percent // 100
    return _after(task, Refunded(at_us=0, amount_micros=amount, key="r", cause="refunded"))


def _after(task: Task, *events: TaskEvent) -> Task:
    return reduce(evolve, events, task)


@generated(percent=percents, rate=st.integers(0, 10**7), seconds=st.integers(0, 60))
@settings(deadline=None)
def test_a_cancel_never_costs_more_than_the_hold(percent: int, rate: int, seconds: int) -> None:
    metered = replace(METERED, cancel_rate_micros_per_second=rate, output_seconds=seconds)
    answer = given(create(metered), start(), progress(percent)).when(cancel(BYTESPIKE))
    rendered = rate * seconds * percent // 100 if percent >= 25 else 0
    assert answer.task.net_micros == min(rendered, 10_000_000)


# The invariants notice what breaks them

BROKEN: list[tuple[Task, list[str]]] = [
    (NO_TASK, []),
    (
        replace(NO_TASK, terms=HOLD, authorised_micros=10, held_micros=9),
        ["authorised is not captured + released + still held"],
    ),
    (
        replace(NO_TASK, terms=HOLD, authorised_micros=10, charged_micros=4, released_micros=7),
        ["authorised is not captured + released + still held"],
    ),
    (
        replace(NO_TASK, terms=HOLD, authorised_micros=10, charged_micros=12, held_micros=-2),
        ["less than nothing is held"],
    ),
    (
        replace(NO_TASK, terms=PREPAID, charged_micros=4, refunded_micros=5),
        ["refunded is not between nothing and what was charged"],
    ),
    (
        replace(NO_TASK, terms=PREPAID, charged_micros=4, refunded_micros=-1),
        ["refunded is not between nothing and what was charged"],
    ),
    (
        replace(NO_TASK, terms=HOLD, authorised_micros=10, held_micros=10, run=Run(finished_at_us=1)),
        ["money is still held after the outcome"],
    ),
    (replace(NO_TASK, terms=PREPAID, charged_micros=4, refunded_micros=4, run=Run(finished_at_us=1)), []),
    (replace(NO_TASK, terms=HOLD, authorised_micros=10, charged_micros=4, held_micros=6), []),
]


@pytest.mark.parametrize(("task", "broken"), BROKEN)
def test_money_that_does_not_add_up_is_named(task: Task, broken: list[str]) -> None:
    assert violations(task) == broken


def test_a_second_settlement_of_one_hold_would_be_noticed() -> None:
    settled = given(*RUNNING, complete(4)).task
    twice = evolve(settled, Released(at_us=0, amount_micros=6_000_000, key="again", cause="sweep"))
    assert "less than nothing is held" in violations(twice)
