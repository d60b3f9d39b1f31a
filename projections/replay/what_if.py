"""What if: what tasks would have cost under another catalogue, by the rules of settlement and nothing else. Pure.

A task's events are folded once more with its terms replaced. Wherever money moved, it is decided anew: at the creation,
at the outcome, and what a worker charged or gave back in between. All else that happened stays: nobody would have
cancelled sooner, and what was cancelled stays so though the model could not be cancelled now.

A price changes as its model's does, in proportion: what was asked for (how many images, which quality) is in the price
that was pinned and cannot be told from a price of the task's own. A cost that a worker reported changes with it. Cancel
terms are replaced where the two catalogues differ in them. So a catalogue held against itself changes nothing.
"""

from collections.abc import Sequence
from fractions import Fraction
from functools import reduce
from typing import NamedTuple

from msgspec.structs import replace

from ledger.catalogue import Catalogue, Model
from ledger.errors import AmountExceeds
from ledger.events import (
    Cancelled,
    Charged,
    Completed,
    Created,
    Expired,
    Failed,
    MoneyEvent,
    Refunded,
    School,
    TaskEvent,
    Terms,
)
from ledger.ids import TaskId
from ledger.money import Rounding, parse_credits, rounded
from ledger.settlement import abandonment_due, authorise, cancel_due, completion_due, settle
from ledger.task import NO_TASK, Task, evolve

_OUTCOMES = (Completed, Failed, Cancelled, Expired)
_SETTLES = ":settle:"
"""In the money keys of an outcome; a worker's keys begin with what it reports."""


class Cost(NamedTuple):
    """What the customer paid, and what is held still, as it was and as it would be; in micro-credits."""

    was: Task
    would: Task
    remainder: Fraction = Fraction()
    """What the amounts that it would be made of lack, all added up, for they are whole; in micro-credits."""

    @property
    def more_micros(self) -> int:
        """By how much more the customer would pay, counting what is held still; < 0: less."""
        was, would = self.was, self.would
        return would.net_micros + would.held_micros - was.net_micros - was.held_micros


class Rates(NamedTuple):
    """The catalogue that tasks were priced by, and the other one."""

    base: Catalogue
    other: Catalogue

    def terms(self, created: Created) -> Terms:
        """The terms that the task would have, but for the price; its own, where not both catalogues have its model."""
        name, pinned = (created.contract, created.model), created.terms
        base, other = self.base.find(*name), self.other.find(*name)
        if base is None or other is None:
            return pinned
        before, after = self.base.terms[name], self.other.terms[name]
        fields = ("cancellable", "point_of_no_return_percent", "cancel_rate_micros_per_second", "output_seconds")
        changed = {one: getattr(after, one) for one in fields if getattr(before, one) != getattr(after, one)}
        return replace(pinned, **changed)

    def ratio(self, created: Created) -> Fraction:
        """How its price changes; 1 where there is nothing to go by."""
        base, other = (one.find(created.contract, created.model) for one in (self.base, self.other))
        if base is None or other is None:
            return Fraction(1)
        before, after = _price(base, created.capability), _price(other, created.capability)
        return Fraction(after, before) if before else Fraction(1)


def what_if(task: TaskId, events: Sequence[TaskEvent], rates: Rates) -> Cost:
    """What the task of these events, oldest first, came to, and would come to."""
    created = events[0]
    assert isinstance(created, Created), "a task begins with its creation"
    scaled = _Scaled(rates.ratio(created))
    terms = replace(rates.terms(created), estimated_micros=scaled(created.terms.estimated_micros))
    was = would = replace(NO_TASK, task_id=task)
    number = 0
    while number < len(events):
        event = events[number]
        money = _money_of(events, number)
        after = reduce(evolve, [event, *money], was)
        if isinstance(event, Created):
            would = evolve(would, replace(event, terms=terms))
            would = reduce(evolve, authorise(terms, at_us=event.at_us), would)
        elif isinstance(event, Charged | Refunded):
            would = _by_worker(would, event, scaled)
        elif isinstance(event, _OUTCOMES):
            would = _ended(would, event, _actual(was, event, after), scaled)
        else:
            would = evolve(would, event)
        was, number = after, number + 1 + len(money)
    return Cost(was, would, scaled.remainder)


def _money_of(events: Sequence[TaskEvent], number: int) -> list[TaskEvent]:
    """The money that this event moved: what follows it and is settled by it, or was authorised by it."""
    found: list[TaskEvent] = []
    cause = events[number]
    for event in events[number + 1 :]:
        if not isinstance(event, MoneyEvent):
            break
        is_settled = isinstance(cause, _OUTCOMES) and _SETTLES in event.key
        is_authorised = isinstance(cause, Created) and event.cause == "created"
        if not (is_settled or is_authorised):
            break
        found.append(event)
    return found


def _actual(was: Task, event: TaskEvent, after: Task) -> int | None:
    """What a worker said it cost; None: what the rules give by themselves."""
    per_run = was.terms.school is School.ON_SUCCESS
    due = after.charged_micros - was.charged_micros if per_run else after.net_micros
    return None if due == _due(was, event, None) else due


def _due(task: Task, event: TaskEvent, actual_micros: int | None) -> int:
    if isinstance(event, Completed):
        return completion_due(task, actual_micros)
    if isinstance(event, Cancelled) and not event.confirmed and actual_micros is None:
        return cancel_due(task)
    return abandonment_due(task, actual_micros)


def _ended(would: Task, event: TaskEvent, actual_micros: int | None, scaled: "_Scaled") -> Task:
    due = _due(would, event, None if actual_micros is None else scaled(actual_micros))
    cause = str(event.__struct_config__.tag)
    try:
        moved = settle(would, due_micros=due, cause=cause, at_us=event.at_us)
    except AmountExceeds as exceeds:  # a worker may charge what is held, and would have reported that
        moved = settle(would, due_micros=exceeds.left_micros, cause=cause, at_us=event.at_us)
    return reduce(evolve, moved, evolve(would, event))


def _by_worker(would: Task, event: Charged | Refunded, scaled: "_Scaled") -> Task:
    """What a worker charged or gave back, in proportion, and never more than there is."""
    amount = scaled(event.amount_micros)
    if isinstance(event, Refunded):
        amount = min(amount, would.net_micros)
    elif would.terms.school is School.HOLD:
        amount = min(amount, would.held_micros)
    return evolve(would, replace(event, amount_micros=amount)) if amount > 0 else would


def _price(model: Model, capability: str) -> int:
    price = model.price_of(capability)
    return price if price is not None else parse_credits(model.price_credits) or 0


class _Scaled:
    """Amounts in proportion, each to the nearest micro-credit: nobody is charged by them; and what that leaves."""

    def __init__(self, ratio: Fraction) -> None:
        self._ratio = ratio
        self.remainder = Fraction()

    def __call__(self, micros: int) -> int:
        amount = rounded(micros * self._ratio.numerator, self._ratio.denominator, to=Rounding.NEAREST)
        self.remainder += amount.remainder
        return amount.whole
