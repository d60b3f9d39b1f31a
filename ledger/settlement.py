"""Settlement: the money that an outcome moves, for all three billing schools, in one place.

`settle` is the only way to an outcome's money, so a hold ends once, whatever code path ended its task. It leaves
nothing held, and the customer's net charge at exactly what is due:

============ ============ ================================ ===========================================
school       at creation  completed                        failed, expired, cancelled
============ ============ ================================ ===========================================
hold         held         charged actual, released rest    released all, or part charged past the
                                                           point of no return
prepaid      charged      refunded difference              refunded
on success   nothing      charged                          nothing
============ ============ ================================ ===========================================

More than was authorised is refused, not cut off: a cost that silently shrinks is a break nobody sees. The worker
reports again with what may be charged, and a provider's statement shows the difference.
"""

from typing import assert_never

from ledger.errors import AmountExceeds
from ledger.events import Charged, Held, Refunded, Released, School, Terms
from ledger.money import Rounded, Rounding, rounded
from ledger.records import SUM_MAX_MICROS
from ledger.task import Task

FULL_PERCENT = 100

Settlement = list[Held | Released | Charged | Refunded]


def authorise(terms: Terms, *, at_us: int) -> Settlement:
    """The money that a task's creation moves."""
    if terms.estimated_micros == 0:
        return []
    match terms.school:
        case School.HOLD:
            return [Held(at_us=at_us, amount_micros=terms.estimated_micros, key="hold:1", cause="created")]
        case School.PREPAID:
            return [Charged(at_us=at_us, amount_micros=terms.estimated_micros, key="charge:1", cause="created")]
        case School.ON_SUCCESS:
            return []
        case _:
            assert_never(terms.school)


def completion_due(task: Task, actual_micros: int | None) -> int:
    """What a completed run costs; on its own, without earlier runs, where runs are paid one by one."""
    if actual_micros is not None:
        return actual_micros
    if task.terms.school is School.ON_SUCCESS:
        return task.terms.estimated_micros
    return task.net_micros + task.held_micros  # the estimate, less what a worker has given back already


def abandonment_due(task: Task, actual_micros: int | None) -> int:
    """What a failed, expired or cancelled run costs: nothing, unless a worker has charged or now reports a part."""
    if actual_micros is not None:
        return actual_micros
    return task.net_micros if task.terms.school is School.HOLD else 0


def cancel_due(task: Task) -> int:
    """What a cancel that takes effect at once costs: rendered seconds once the point of no return is passed.

    The charge never passes the hold, and what a worker has charged already is kept.
    """
    kept, rendered = abandonment_due(task, None), rendered_micros(task)
    return kept if rendered is None else max(kept, min(rendered.whole, kept + task.held_micros))


def rendered_micros(task: Task) -> Rounded | None:
    """The price of the seconds rendered so far, which are the reported share of the output's length.

    Rounded down, in the customer's favour: what was not rendered whole is not charged. None: the point of no return has
    not been passed, and a cancel is free.
    """
    terms, percent = task.terms, task.run.percent or 0
    if terms.point_of_no_return_percent is None or percent < terms.point_of_no_return_percent:
        return None
    whole_micros = terms.cancel_rate_micros_per_second * terms.output_seconds
    return rounded(whole_micros * percent, FULL_PERCENT, to=Rounding.DOWN)


def settle(task: Task, *, due_micros: int, cause: str, at_us: int) -> Settlement:
    """The money events that end this run: nothing stays held, and the customer has paid *due_micros*.

    Raises:
        AmountExceeds: more is due than the school authorises, or than every engine holds.
    """
    match task.terms.school:
        case School.HOLD:
            return _settle_hold(task, due_micros=due_micros, cause=cause, at_us=at_us)
        case School.PREPAID:
            _within(task, due_micros, limit_micros=task.net_micros)
            return _move(Refunded, task, task.net_micros - due_micros, cause=cause, at_us=at_us)
        case School.ON_SUCCESS:
            # No ceiling is agreed; but the task's row, and the books, hold what all of its runs cost together.
            limit_micros = SUM_MAX_MICROS - task.charged_micros if cause == "completed" else 0
            _within(task, due_micros, limit_micros=limit_micros)
            return _move(Charged, task, due_micros, cause=cause, at_us=at_us)
        case _:
            assert_never(task.terms.school)


def _settle_hold(task: Task, *, due_micros: int, cause: str, at_us: int) -> Settlement:
    _within(task, due_micros, limit_micros=task.net_micros + task.held_micros)
    further = max(due_micros - task.net_micros, 0)
    too_much = max(task.net_micros - due_micros, 0)
    return [
        *_move(Charged, task, further, cause=cause, at_us=at_us),
        *_move(Released, task, task.held_micros - further, cause=cause, at_us=at_us),
        *_move(Refunded, task, too_much, cause=cause, at_us=at_us),
    ]


def _move(
    kind: type[Released | Charged | Refunded], task: Task, amount_micros: int, *, cause: str, at_us: int
) -> Settlement:
    """One movement of *amount_micros*, keyed by its run, so that a run is settled once; none for nothing."""
    if amount_micros == 0:
        return []
    key = f"{_VERBS[kind]}:settle:{task.run.number}"
    return [kind(at_us=at_us, amount_micros=amount_micros, key=key, cause=cause)]


_VERBS: dict[type[Released | Charged | Refunded], str] = {
    Released: "release",
    Charged: "charge",
    Refunded: "refund",
}


def _within(task: Task, due_micros: int, *, limit_micros: int) -> None:
    if due_micros > limit_micros:
        raise AmountExceeds(
            "actual_credits",
            asked_micros=due_micros,
            left_micros=limit_micros,
            settled_by=tuple(task.money_keys),
        )


def violations(task: Task) -> list[str]:
    """The invariants of money that *task* breaks, in words; empty for every task that these rules made."""
    captured = task.charged_micros if task.terms.school is School.HOLD else 0
    broken = []
    if task.authorised_micros != captured + task.released_micros + task.held_micros:
        broken.append("authorised is not captured + released + still held")
    if task.held_micros < 0:
        broken.append("less than nothing is held")
    if not 0 <= task.refunded_micros <= task.charged_micros:
        broken.append("refunded is not between nothing and what was charged")
    if task.held_micros and task.run.finished_at_us is not None:
        broken.append("money is still held after the outcome")
    return broken
