"""What an account may spend: the rules of limits, grants and admission, and exposure as the sum of the tasks."""

from functools import reduce
from typing import Any

import pytest
from msgspec.structs import replace

from ledger.credit import (
    Credit,
    CreditCommand,
    Grant,
    RevokeGrant,
    SetLimit,
    admit,
    decide_credit,
    evolve_credit,
    move_of,
    moved,
    moves,
)
from ledger.engine import AccountChange
from ledger.errors import SETTLED_BY_MAX, AmountExceeds, InsufficientCredits, KeyReused, TooManyTasks
from ledger.events import (
    Cancelled,
    Completed,
    Created,
    CreditEvent,
    CreditGranted,
    CreditLimited,
    CreditRevoked,
    Expired,
    Failed,
    School,
    UpdateRequested,
    UpdateReverted,
)
from ledger.money import AMOUNT_MAX_MICROS, MICROS_PER_CREDIT
from ledger.records import SUM_MAX_MICROS, AccountRow, CreditTerms, Move
from ledger.task import NO_TASK, Task, evolve
from tests.rules_dsl import (
    ACCOUNT,
    BEATRA,
    HOLD,
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
    given,
    progress,
    refund,
    start,
    update,
)
from tests.test_histories import SEEDS, history

CREDIT = MICROS_PER_CREDIT


def account(*, limit: int | None = None, granted: int | None = None, **sums: int) -> AccountRow:
    """The account with these amounts, in whole credits."""
    return AccountRow(
        account=ACCOUNT,
        limit_micros=None if limit is None else limit * CREDIT,
        granted_micros=None if granted is None else granted * CREDIT,
        **{f"{name}_micros": amount * CREDIT for name, amount in sums.items()},
    )


def new_work(amount: int, **of: Any) -> Move:  # noqa: ANN401 - fields of the move
    return Move(**({"held_micros": amount * CREDIT} | of))


# Admission


@pytest.mark.parametrize(
    ("row", "asked"),
    [
        (account(), 10**6),
        (account(charged=10**6), 10**6),
        (account(limit=10), 10),
        (account(granted=10), 10),
        (account(limit=4, granted=6), 10),
        (account(limit=20, held=4, charged=5, expected=1), 10),
        (account(limit=10, charged=7, refunded=7), 10),
        (account(limit=0), 0),
        (account(limit=1, charged=5), 0),
    ],
)
def test_what_fits_into_limit_and_grants_less_the_exposure_is_admitted(row: AccountRow, asked: int) -> None:
    admit(row, new_work(asked), tasks_max=None)


@pytest.mark.parametrize(
    ("row", "available"),
    [
        (account(limit=10, held=1), 9),
        (account(limit=10, charged=1), 9),
        (account(limit=10, expected=1), 9),
        (account(granted=10, charged=2, refunded=1), 9),
        (account(limit=0), 0),
        (account(granted=0), 0),
        (account(limit=1, charged=5), -4),
        (account(limit=5, granted=5, held=1), 9),
    ],
)
def test_what_does_not_fit_is_refused_with_the_value_that_refused_it(row: AccountRow, available: int) -> None:
    with pytest.raises(InsufficientCredits) as refused:
        admit(row, new_work(10), tasks_max=None)
    no = refused.value
    assert (no.asked_micros, no.available_micros) == (10 * CREDIT, available * CREDIT)
    assert (no.limit_micros, no.granted_micros) == (row.limit_micros, row.granted_micros)
    assert no.exposure_micros == row.exposure_micros
    assert str(no) == f"10 credits asked, {available} available"
    assert str(no.at(7)) == f"10 credits asked, {available} available as of position 7"
    assert no.at(7).position == 7


@pytest.mark.parametrize("half", ["held_micros", "charged_micros", "expected_micros"])
def test_whatever_the_school_the_estimate_is_what_is_asked(half: str) -> None:
    row = account(limit=10)
    admit(row, Move(**{half: 10 * CREDIT}), tasks_max=None)
    with pytest.raises(InsufficientCredits):
        admit(row, Move(**{half: 10 * CREDIT + 1}), tasks_max=None)


@pytest.mark.parametrize(("live", "tasks_max"), [(0, 1), (4, 5), (999, None), (0, None)])
def test_one_more_task_is_admitted_while_there_are_fewer_than_the_cap(live: int, tasks_max: int | None) -> None:
    admit(replace(account(), live_tasks=live), new_work(1, live_tasks=1), tasks_max=tasks_max)


@pytest.mark.parametrize(("live", "tasks_max"), [(1, 1), (5, 5), (9, 5)])
def test_one_more_than_the_cap_is_refused_with_the_count_and_the_cap(live: int, tasks_max: int) -> None:
    with pytest.raises(TooManyTasks) as refused:
        admit(replace(account(), live_tasks=live), new_work(1, live_tasks=1), tasks_max=tasks_max)
    no = refused.value
    assert (no.live_tasks, no.tasks_max, no.position, no.at(7).position) == (live, tasks_max, None, 7)
    assert str(no) == f"{live} tasks under way, {tasks_max} at once allowed"
    assert str(no.at(7)) == f"{no} as of position 7"


def test_what_costs_nothing_needs_room_all_the_same() -> None:
    with pytest.raises(TooManyTasks):
        admit(replace(account(limit=0), live_tasks=1), Move(live_tasks=1), tasks_max=1)


def test_of_one_that_has_neither_room_nor_credit_it_is_said_that_it_has_no_room() -> None:
    with pytest.raises(TooManyTasks):
        admit(replace(account(limit=0), live_tasks=1), new_work(1, live_tasks=1), tasks_max=1)


# Exposure, and tasks under way


def exposure(task: Task) -> int:
    """What the task costs its account, in whole credits, by the move from nothing."""
    row = account()
    move = move_of(NO_TASK, task)
    return (row if move is None else moved(row, move)).exposure_micros // CREDIT


@pytest.mark.parametrize("terms", [HOLD, PREPAID, ON_SUCCESS], ids=lambda terms: terms.school)
def test_a_new_task_costs_its_estimate_in_every_school(terms: Any) -> None:  # noqa: ANN401 - parametrized
    assert exposure(given(create(terms)).task) == 10
    assert exposure(given(create(terms), start(), progress(50)).task) == 10


@pytest.mark.parametrize(
    ("history", "costs"),
    [
        ((create(HOLD), complete(4)), 4),
        ((create(HOLD), fail()), 0),
        ((create(HOLD), cancel()), 0),
        ((create(HOLD), charge(3, "a")), 10),
        ((create(HOLD), charge(3, "a"), refund(1, "b")), 9),
        ((create(PREPAID), complete(4)), 4),
        ((create(PREPAID), fail()), 0),
        ((create(ON_SUCCESS), complete()), 10),
        ((create(ON_SUCCESS), complete(12)), 12),
        ((create(ON_SUCCESS), complete(4)), 4),
        ((create(ON_SUCCESS), fail()), 0),
        ((create(ON_SUCCESS), cancel()), 0),
        ((create(ON_SUCCESS), complete(4), update("x")), 14),
        ((create(ON_SUCCESS), complete(4), update("x"), fail()), 4),
        ((create(ON_SUCCESS), complete(4), update("x"), complete(5)), 9),
    ],
)
def test_a_task_costs_what_it_holds_was_charged_and_is_expected_to(history: tuple[Any, ...], costs: int) -> None:
    assert exposure(given(*history).task) == costs


@pytest.mark.parametrize(
    ("history", "live"),
    [
        ((create(),), 1),
        ((create(), start(), progress(50)), 1),
        ((create(), complete()), 0),
        ((create(), fail()), 0),
        ((create(), cancel()), 0),
        ((create(), start(), cancel(BEATRA)), 1),
        ((create(), start(), cancel(BEATRA), confirm()), 0),
        ((create(), expire(second=9999)), 0),
        ((create(), complete(), complete()), 0),
        ((create(), complete(), delete()), 0),
        ((create(ON_SUCCESS), complete(), update("x")), 1),
        ((create(ON_SUCCESS), complete(), update("x"), complete()), 0),
        ((create(ON_SUCCESS), complete(), update("x"), fail()), 0),
        ((create(ON_SUCCESS), complete(), update("x"), cancel()), 0),
        ((create(ON_SUCCESS), complete(), update("x"), expire(second=9999)), 0),
    ],
)
def test_a_task_is_under_way_until_its_run_has_ended_and_an_update_is_a_further_run(
    history: tuple[Any, ...], live: int
) -> None:
    move = move_of(NO_TASK, given(*history).task)
    assert (0 if move is None else move.live_tasks) == live


@pytest.mark.parametrize("school", School)
def test_in_every_history_the_moves_add_up_to_the_task_and_are_told_by_the_event_alone(school: School) -> None:
    for seed in range(SEEDS):
        row, task = account(), NO_TASK
        for step in history(school, seed):
            for event in step.events:
                after = evolve(task, event)
                move = move_of(task, after)
                assert (move is not None) is moves(event), f"{school}, seed {seed}, {event}"
                row, task = row if move is None else moved(row, move), after
                assert row.live_tasks == _lives(task), f"{school}, seed {seed}, {event}"
        expected = row.expected_micros
        assert (row.held_micros, row.charged_micros) == (task.held_micros, task.charged_micros), seed
        assert row.refunded_micros == task.refunded_micros
        assert expected == (task.terms.estimated_micros if school is School.ON_SUCCESS and _lives(task) else 0)


def test_every_ending_of_a_run_and_nothing_else_takes_the_task_off_the_count() -> None:
    by: dict[int, set[type]] = {1: set(), -1: set()}
    for school, seed in ((school, seed) for school in School for seed in range(SEEDS)):
        task = NO_TASK
        for event in (event for step in history(school, seed) for event in step.events):
            before, task = task, evolve(task, event)
            move = move_of(before, task)
            if move is not None and move.live_tasks:
                by[move.live_tasks].add(type(event))
    assert by == {1: {Created, UpdateRequested}, -1: {Completed, Failed, Cancelled, Expired, UpdateReverted}}


def _lives(task: Task) -> bool:
    return task.status in {"queued", "running"}


# Limits and grants


def after(*commands: CreditCommand) -> Credit:
    """The credit that these leave behind."""
    credit = Credit()
    for command in commands:
        credit = reduce(evolve_credit, decide_credit(credit, command), credit)
    return credit


def limit(amount: int | None) -> SetLimit:
    return SetLimit(at_us=1, limit_micros=None if amount is None else amount * CREDIT)


def grant(amount: int, key: str = "g") -> Grant:
    return Grant(at_us=1, amount_micros=amount * CREDIT, key=key)


def revoke(amount: int, key: str = "r", *, of: str = "g") -> RevokeGrant:
    return RevokeGrant(at_us=1, amount_micros=amount * CREDIT, key=key, grant=of)


CAUSED: list[tuple[tuple[CreditCommand, ...], CreditCommand, list[CreditEvent]]] = [
    ((), limit(5), [CreditLimited(at_us=1, limit_micros=5 * CREDIT)]),
    ((limit(5),), limit(5), []),
    ((limit(5),), limit(None), [CreditLimited(at_us=1, limit_micros=None)]),
    ((), limit(None), []),
    ((), grant(5), [CreditGranted(at_us=1, amount_micros=5 * CREDIT, key="g")]),
    ((grant(5),), grant(5), []),
    ((grant(5),), grant(5, "g2"), [CreditGranted(at_us=1, amount_micros=5 * CREDIT, key="g2")]),
    ((grant(5), revoke(5)), grant(5), []),
    ((grant(5),), revoke(2), [CreditRevoked(at_us=1, amount_micros=2 * CREDIT, key="r", grant="g")]),
    ((grant(5), revoke(2)), revoke(2), []),
    ((grant(5), revoke(2)), revoke(3, "r2"), [CreditRevoked(at_us=1, amount_micros=3 * CREDIT, key="r2", grant="g")]),
]


@pytest.mark.parametrize(("before", "command", "events"), CAUSED)
def test_a_limit_a_grant_and_its_correction_are_events_and_the_same_again_is_none(
    before: tuple[CreditCommand, ...], command: CreditCommand, events: list[CreditEvent]
) -> None:
    assert decide_credit(after(*before), command) == events


def test_the_reason_is_kept_with_the_books() -> None:
    (event,) = decide_credit(after(grant(2)), replace(revoke(1), reason="a slip"))
    assert event == CreditRevoked(at_us=1, amount_micros=CREDIT, key="r", reason="a slip", grant="g")


@pytest.mark.parametrize(
    ("before", "command", "first"),
    [
        ((grant(5),), grant(6), 5),
        ((grant(5), revoke(2)), revoke(3), 2),
        ((grant(5), grant(5, "h"), revoke(2)), revoke(2, of="h"), 2),
    ],
)
def test_a_key_does_not_move_another_amount(
    before: tuple[CreditCommand, ...], command: CreditCommand, first: int
) -> None:
    with pytest.raises(KeyReused) as refused:
        decide_credit(after(*before), command)
    assert (refused.value.amount_micros, refused.value.fingerprint) == (first * CREDIT, None)


@pytest.mark.parametrize(
    ("before", "command", "left", "settled_by"),
    [
        ((), revoke(1), 0, ()),
        ((grant(5),), revoke(6), 5, ()),
        ((grant(5), revoke(3)), revoke(3, "r2"), 2, ("r",)),
        ((grant(5), grant(9, "h"), revoke(9, of="h")), revoke(6, "r2"), 5, ()),
    ],
)
def test_no_more_is_taken_back_than_is_left_of_the_grant(
    before: tuple[CreditCommand, ...], command: CreditCommand, left: int, settled_by: tuple[str, ...]
) -> None:
    with pytest.raises(AmountExceeds) as refused:
        decide_credit(after(*before), command)
    assert (refused.value.left_micros, refused.value.settled_by) == (left * CREDIT, settled_by)


def test_a_refusal_names_the_last_of_the_movements_that_left_too_little() -> None:
    taken = [revoke(1, f"r{number}") for number in range(SETTLED_BY_MAX + 5)]
    with pytest.raises(AmountExceeds) as refused:
        decide_credit(after(grant(100), *taken), revoke(100, "r"))
    assert refused.value.settled_by == tuple(command.key for command in taken[-SETTLED_BY_MAX:])


def test_to_take_an_event_in_costs_the_same_however_many_came_before() -> None:
    credit = after(*(grant(1, f"g{number}") for number in range(100)), revoke(1, of="g0"))
    kept = (credit.grants, credit.revoked, credit.left)
    (granted,) = decide_credit(credit, grant(1, "one more"))
    (revoked,) = decide_credit(credit, revoke(1, "r2", of="g1"))
    folded = evolve_credit(evolve_credit(credit, granted), revoked)
    assert all(one is other for one, other in zip((folded.grants, folded.revoked, folded.left), kept, strict=True))
    assert (folded.granted_micros, folded.left_of("g1"), folded.left_of("g2")) == (99 * CREDIT, 0, CREDIT)


def test_taking_back_a_grant_that_there_is_not_says_so() -> None:
    with pytest.raises(AmountExceeds, match="there is no grant 'g2': 1 credits asked, 0 left"):
        decide_credit(after(grant(1, "g1")), revoke(1, of="g2"))


def test_all_grants_together_are_no_more_than_the_largest_amount() -> None:
    most = replace(grant(1), amount_micros=AMOUNT_MAX_MICROS)
    with pytest.raises(AmountExceeds, match="1 credits asked, 0 left"):
        decide_credit(after(most), grant(1, "one more"))
    assert decide_credit(after(most, revoke(1)), grant(1, "one more"))


@pytest.mark.parametrize(
    ("commands", "limit_credits", "granted"),
    [
        ((), None, None),
        ((limit(0),), 0, None),
        ((limit(5), limit(None)), None, None),
        ((grant(5), grant(2, "h"), revoke(3)), None, 4),
        ((grant(5), revoke(5)), None, 0),
        ((limit(3), grant(5)), 3, 5),
    ],
)
def test_an_account_is_unlimited_that_has_no_limit_and_was_never_granted_anything(
    commands: tuple[CreditCommand, ...], limit_credits: int | None, granted: int | None
) -> None:
    terms = after(*commands).terms
    row = account(limit=limit_credits, granted=granted)
    assert (terms.limit_micros, terms.granted_micros) == (row.limit_micros, row.granted_micros)
    assert row.unlimited is (limit_credits is None and granted is None)


# What a batch does to an account's row


def test_sums_are_moved_and_terms_are_set() -> None:
    change = AccountChange()
    change.position = 9
    change.add(Move(held_micros=2, charged_micros=3, expected_micros=-1, live_tasks=1))
    change.add(Move(held_micros=-1, refunded_micros=4, live_tasks=-3))
    row = AccountRow(
        account=ACCOUNT, position=5, version=2, limit_micros=7, held_micros=10, expected_micros=1, live_tasks=9
    )
    assert change.applied(row) == replace(
        row, position=9, held_micros=11, charged_micros=3, refunded_micros=4, expected_micros=0, live_tasks=7
    )
    change.terms = CreditTerms(version=3, limit_micros=None, granted_micros=8)
    assert change.applied(row).granted_micros == 8
    assert change.applied(row).limit_micros is None
    assert change.applied(row).version == 3


def test_a_sum_beyond_what_every_engine_holds_is_kept_at_that() -> None:
    change = AccountChange()
    change.add(Move(charged_micros=SUM_MAX_MICROS))
    assert change.applied(AccountRow(account=ACCOUNT, charged_micros=5)).charged_micros == SUM_MAX_MICROS
