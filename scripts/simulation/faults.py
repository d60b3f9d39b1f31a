"""What is wrong with a provider's statement: faults planted on purpose, each in a bill of its own, and listed.

Each is of one kind only: a line with another amount has the right status, one with another status the right amount,
and so on; so whoever compares the statement with the ledger finds the list, each entry once, and nothing else.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from ledger.events import BreakKind
from ledger.ids import Spelling
from ledger.money import credits_text
from ledger.task import TERMINAL, Status
from ledger.times import US_PER_DAY, US_PER_SECOND
from scripts.simulation.bills import Bill, Line, line
from scripts.simulation.jobs import MINUTE_US, chance, fresh_id

LEAST = 2
"""Of each kind, if there are as many bills for it."""
DIFFERENCE_MIN_MICROS = 50_000
"""No difference is less, whatever the price: five hundredths of a credit are beyond any tolerance."""
LATE_DAYS = (10, 20)
"""So many days after the end of the month in which its task ended a late line is billed."""


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of the list. No lines: they are missing. No task: it is unknown here."""

    kind: BreakKind
    line_ids: tuple[str, ...]
    task: str | None
    amount_credits: str
    """What is at stake: the difference, or all that is billed or charged."""


class _Spoilt(NamedTuple):
    """The lines of a bill after a fault was planted in it, which of them it shows in, and micro-credits at stake."""

    lines: tuple[Line, ...]
    concerned: tuple[Line, ...]
    at_stake_micros: int
    known: bool = True


class _Planter(NamedTuple):
    """How faults of a kind are planted: in bills that fit, this part of the kind's number."""

    kind: BreakKind
    fits: Callable[[Bill], bool]
    spoil: Callable[[Bill, Random], _Spoilt]
    part: float = 1


def planted(bills: Sequence[Bill], dice: Random, *, share: float) -> tuple[list[Line], list[Fault]]:
    """The statement's lines in the order of their billing, with faults of all kinds in *share* of them, and those."""
    each = max(round(share * sum(len(bill.lines) for bill in bills) / len(BreakKind)), LEAST) if share else 0
    spoilt: dict[int, _Spoilt] = {}
    faults: list[Fault] = []
    for planter in PLANTERS:
        fitting = [place for place, bill in enumerate(bills) if place not in spoilt and planter.fits(bill)]
        for place in dice.sample(fitting, min(round(each * planter.part), len(fitting))):
            spoilt[place] = planter.spoil(bills[place], dice)
            faults.append(_fault(planter.kind, bills[place], spoilt[place]))
    lines = [
        one for place, bill in enumerate(bills) for one in (spoilt[place].lines if place in spoilt else bill.lines)
    ]
    return sorted(lines, key=lambda one: (one.billed_at_us, one.line_id)), faults


def _fault(kind: BreakKind, bill: Bill, spoilt: _Spoilt) -> Fault:
    return Fault(
        kind=kind,
        line_ids=tuple(one.line_id for one in spoilt.concerned),
        task=bill.task.task if spoilt.known else None,
        amount_credits=credits_text(spoilt.at_stake_micros),
    )


# Which bills a fault fits


def _paid(bill: Bill) -> bool:
    """A completed task that is billed in one line."""
    return bill.task.status is Status.COMPLETED and len(bill.lines) == 1 and bill.amount_micros > 0


def _charged(bill: Bill) -> bool:
    return bool(bill.lines) and bill.amount_micros > 0


def _failed(bill: Bill) -> bool:
    """A failed task that is listed, at nothing."""
    return bill.task.status is Status.FAILED and len(bill.lines) == 1 and bill.amount_micros == 0


def _under_way(bill: Bill) -> bool:
    return bill.task.status not in TERMINAL and bill.task.provider_task_id is not None


def _stopped(bill: Bill) -> bool:
    """A task that was cancelled under way, and costs nothing."""
    task = bill.task
    begun = task.provider_task_id is not None and task.cancel_requested_at_us is not None
    return task.status is Status.CANCELLED and begun and task.net_micros == 0


# How it is planted


def _unknown(bill: Bill, dice: Random) -> _Spoilt:
    """Another job much like this one is billed, which the ledger has never heard of."""
    (like,) = bill.lines
    job = replace(
        like,
        line_id=_line_id(dice),
        provider_task_id=f"lost-{dice.randbytes(8).hex()}",
        our_task_id=Spelling.UUID.spell(fresh_id(dice, like.started_at_us)) if chance(dice, 0.5) else None,
    )
    return _Spoilt((like, job), (job,), job.amount_micros, known=False)


def _unbilled(bill: Bill, _: Random) -> _Spoilt:
    return _Spoilt((), (), bill.amount_micros)


def _misbilled(bill: Bill, dice: Random) -> _Spoilt:
    (right,) = bill.lines
    difference = max(right.amount_micros * dice.randint(10, 50) // 100, DIFFERENCE_MIN_MICROS)
    less = difference < right.amount_micros and chance(dice, 0.3)
    return _changed(
        replace(right, amount_micros=right.amount_micros + (-difference if less else difference)), difference
    )


def _billed_twice(bill: Bill, dice: Random) -> _Spoilt:
    (first,) = bill.lines
    both = (first, replace(first, line_id=_line_id(dice)))
    return _Spoilt(both, both, first.amount_micros)


def _billed_late(bill: Bill, dice: Random) -> _Spoilt:
    (right,) = bill.lines
    ended = datetime.fromtimestamp(right.finished_at_us // US_PER_SECOND, UTC)
    next_month = (ended.replace(day=1, hour=0, minute=0, second=0) + timedelta(days=32)).replace(day=1)
    at_us = int(next_month.timestamp()) * US_PER_SECOND + dice.randint(*LATE_DAYS) * US_PER_DAY
    return _changed(replace(right, billed_at_us=at_us), right.amount_micros)


def _in_dollars(bill: Bill, dice: Random) -> _Spoilt:
    (right,) = bill.lines
    return _changed(replace(right, currency=dice.choice(("USD", "EUR"))), right.amount_micros)


def _called_failed(bill: Bill, dice: Random) -> _Spoilt:
    (right,) = bill.lines
    return _changed(replace(right, status=dice.choice(("failed", "cancelled"))), right.amount_micros)


def _called_completed(bill: Bill, _: Random) -> _Spoilt:
    (right,) = bill.lines
    return _changed(replace(right, status="completed"), right.amount_micros)


def _billed_unended(bill: Bill, dice: Random) -> _Spoilt:
    task = bill.task
    finished_at_us = task.started_at_us + dice.randint(1, 10) * MINUTE_US
    return _changed(_ended_at(line(task, dice, task.estimated_micros), finished_at_us), task.estimated_micros)


def _worked_on(bill: Bill, dice: Random) -> _Spoilt:
    task = bill.task
    assert task.cancel_requested_at_us is not None, "only such bills fit"
    finished_at_us = task.cancel_requested_at_us + dice.randint(1, 30) * MINUTE_US
    amount = max(task.estimated_micros * dice.randint(30, 100) // 100, 1)
    return _changed(_ended_at(line(task, dice, amount), finished_at_us), amount)


def _ended_at(told: Line, finished_at_us: int) -> Line:
    """The line, of work that ended then; billed a day later."""
    return replace(told, finished_at_us=finished_at_us, billed_at_us=finished_at_us + US_PER_DAY)


def _changed(told: Line, at_stake_micros: int) -> _Spoilt:
    """This one line is all there is of the bill."""
    return _Spoilt((told,), (told,), at_stake_micros)


def _line_id(dice: Random) -> str:
    return dice.randbytes(8).hex()


PLANTERS = (  # those first that fewest bills fit
    _Planter(BreakKind.UNSETTLED, _under_way, _billed_unended),
    _Planter(BreakKind.AVOIDABLE_COST, _stopped, _worked_on),
    _Planter(BreakKind.STATUS_CONFLICT, _failed, _called_completed, 0.5),
    _Planter(BreakKind.STATUS_CONFLICT, _paid, _called_failed, 0.5),
    _Planter(BreakKind.MISSING_HERE, _paid, _unknown),
    _Planter(BreakKind.MISSING_THERE, _charged, _unbilled),
    _Planter(BreakKind.AMOUNT, _paid, _misbilled),
    _Planter(BreakKind.DUPLICATE, _paid, _billed_twice),
    _Planter(BreakKind.LATE, _paid, _billed_late),
    _Planter(BreakKind.CURRENCY, _paid, _in_dollars),
)
