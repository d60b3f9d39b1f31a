"""Which rule moved the money of an event, and at what rate: `ledger.settlement` read backwards. Pure.

A rule's name is stable: SCHOOL.CAUSE.ACT, for example ``hold.cancelled.rendered-seconds``. No number is worked out
here that the settlement did not work out: amounts are the events', the arithmetic is shown with the settlement's own
functions, asked again about the task as it stood when the outcome was decided.
"""

from collections.abc import Sequence

import msgspec

from ledger.events import Cancelled, Charged, Created, Held, MoneyEvent, Refunded, Released, School
from ledger.money import Rounded, Rounding, credits_text, mixed_text
from ledger.settlement import FULL_PERCENT, cancel_due, rendered_micros
from ledger.task import TERMINAL, Task
from projections.explain.steps import Step

REPORTED = ("charged:", "refunded:")
"""What the keys of money begin with that a worker moved by itself, apart from an outcome."""

SENTENCES = {
    "pinned-price": "The price is what the price list, or the create itself, named; it was pinned in `created`.",
    "held-estimate": "The estimate is held when the task is created.",
    "charged-estimate": "The estimate is charged when the task is created.",
    "charged-actual": "A completion charges the actual cost, or the estimate if the worker named none.",
    "charged-reported": "The part that the worker reported as due is charged; else it would have cost nothing further.",
    "rendered-seconds": "Past the point of no return a cancel is charged by rendered seconds, at most what is held.",
    "released-rest": "What an outcome did not charge of the hold is released.",
    "released-all": "Nothing had been charged and nothing was due: the whole hold is released.",
    "refunded": "Without a result everything that was charged is given back.",
    "refunded-difference": "A completion gives back what was charged beyond the actual cost.",
    "refunded-undelivered": "What was charged beyond the part reported as delivered is given back.",
    "refunded-excess": "The worker had charged more than was due in the end: the excess is given back.",
    "worker-charged": "A worker charged a part of the hold while the task ran; a later cancel keeps it.",
    "worker-refunded": "A worker gave back a part of what had been charged.",
}
"""One for each act."""


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """Why an event moved what it moved."""

    name: str
    sentence: str


class Inexact(msgspec.Struct, frozen=True, kw_only=True):
    """That an amount was rounded: from what exactly, which way, and what that leaves, in micro-credits."""

    from_micros: str
    to: Rounding
    remainder_micros: str
    """Less than 0: it was rounded up."""


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """The terms that were pinned, and how they came to bear."""

    school: str
    rate_version: str
    price_credits: str
    pinned_at_position: int
    cancellable: bool
    point_of_no_return_percent: int | None
    cancel_credits_per_second: str | None
    """None, as the next: a cancel is not priced by the second."""
    output_seconds: int | None
    cancel: str | None
    """What its cancel cost, with the arithmetic; None: it was not cancelled at once."""


def rule_of(steps: Sequence[Step], number: int) -> Rule:
    """The rule by which event *number* of the task moved or pinned money."""
    step = steps[number]
    school, event = step.after.terms.school, step.event
    if isinstance(event, Created):
        return _rule(school, "created", "pinned-price")
    assert isinstance(event, MoneyEvent), "nothing else moves money"
    if event.key.startswith(REPORTED):
        act = "worker-charged" if isinstance(event, Charged) else "worker-refunded"
        return _rule(school, "reported", act)
    return _rule(school, event.cause, _act(step, _caused_by(steps[:number], event.cause)))


def inexact(amount: Rounded, to: Rounding) -> Inexact | None:
    """How *amount* was rounded; None: it is exact."""
    if not amount.left:
        return None
    exact, left = mixed_text(amount.whole + amount.remainder), mixed_text(amount.remainder)
    return Inexact(from_micros=exact, to=to, remainder_micros=left)


def rounding_of(steps: Sequence[Step], number: int) -> Inexact | None:
    """How the amount of event *number* was rounded: that of rendered seconds is; all others are what somebody named."""
    step = steps[number]
    outcome = _caused_by(steps[:number], "cancelled")
    if outcome is None or not isinstance(step.event, Charged) or not _is_metered(outcome):
        return None
    rendered = rendered_micros(outcome.before)
    assert rendered is not None, "it is metered"
    is_due = cancel_due(outcome.before) == rendered.whole  # and not what is held, or what a worker has charged already
    return inexact(rendered, Rounding.DOWN) if is_due else None


def settled_by(task: Task) -> str | None:
    """The rule by which the outcome settled the task's money: what the names of its acts begin with; None: none yet."""
    return f"{task.terms.school}.{task.status}" if task.status in TERMINAL else None


def rate_of(steps: Sequence[Step]) -> Rate:
    """The rate of a task with at least its creation."""
    terms = steps[0].after.terms
    metered = terms.point_of_no_return_percent is not None
    cancelled = _caused_by(steps, "cancelled")
    return Rate(
        school=terms.school,
        rate_version=terms.rate_version,
        price_credits=credits_text(terms.estimated_micros),
        pinned_at_position=steps[0].row.position,
        cancellable=terms.cancellable,
        point_of_no_return_percent=terms.point_of_no_return_percent,
        cancel_credits_per_second=credits_text(terms.cancel_rate_micros_per_second) if metered else None,
        output_seconds=terms.output_seconds if metered else None,
        cancel=_cancel_text(cancelled) if metered else None,
    )


def _rule(school: School, cause: str, act: str) -> Rule:
    return Rule(name=f"{school}.{cause}.{act}", sentence=SENTENCES[act])


def _caused_by(steps: Sequence[Step], cause: str) -> Step | None:
    """The last event of that tag: the outcome that a settlement followed."""
    return next((step for step in reversed(steps) if step.row.entry.type == cause), None)


def _act(step: Step, outcome: Step | None) -> str:
    completed = outcome is not None and outcome.row.entry.type == "completed"
    match step.event:
        case Held():
            return "held-estimate"
        case Charged(cause="created"):
            return "charged-estimate"
        case Charged():
            if completed:
                return "charged-actual"
            return "rendered-seconds" if _is_metered(outcome) else "charged-reported"
        case Released():
            return "released-rest" if step.before.charged_micros else "released-all"
        case Refunded():
            return _refund_act(step, completed=completed)
        case _:
            raise AssertionError(step.event)


def _refund_act(step: Step, *, completed: bool) -> str:
    if step.after.terms.school is School.HOLD:
        return "refunded-excess"
    if completed:
        return "refunded-difference"
    return "refunded-undelivered" if step.after.net_micros else "refunded"


def _is_metered(outcome: Step | None) -> bool:
    """Whether it is a cancel that took effect with its request, past the point of no return."""
    at_once = outcome is not None and isinstance(outcome.event, Cancelled) and not outcome.event.confirmed
    return at_once and outcome is not None and rendered_micros(outcome.before) is not None


def _cancel_text(cancelled: Step | None) -> str | None:
    if cancelled is None or not isinstance(cancelled.event, Cancelled):
        return None
    if cancelled.event.confirmed:
        return "a worker confirmed the cancel, and what it reported was due"
    task = cancelled.before
    rendered = rendered_micros(task)
    if rendered is None:
        return f"cancelled at {task.run.percent or 0} %, before the point of no return: nothing further is due"
    due = f"at most the {credits_text(task.held_micros)} held: {credits_text(cancel_due(task))} due in all"
    how = inexact(rendered, Rounding.DOWN)
    left = "" if how is None else f" ({rounded_words(how)})"
    return f"{_product_text(task)} = {credits_text(rendered.whole)} credits{left}; {due}"


def rounded_words(how: Inexact) -> str:
    """It in words."""
    return f"rounded {how.to} from {how.from_micros} micro-credits, remainder {how.remainder_micros}"


def _product_text(task: Task) -> str:
    terms, percent = task.terms, task.run.percent or 0
    whole, hundredths = divmod(terms.output_seconds * percent, FULL_PERCENT)
    seconds = f"{whole}.{hundredths:02d}".rstrip("0").rstrip(".") if hundredths else f"{whole}"
    rate = credits_text(terms.cancel_rate_micros_per_second)
    return f"{terms.output_seconds} s x {percent} % = {seconds} s rendered; {seconds} s x {rate} credits/s"
