"""What may come on top of a life: a callback, something sent again, money given back, a further run, a deletion."""

from collections.abc import Callable
from random import Random
from typing import Any, TypeAlias

from msgspec.structs import replace

from ledger.commands import Complete, Create, Delete, Fail, RecordCallback, RequestUpdate
from ledger.times import US_PER_DAY, US_PER_HOUR, US_PER_SECOND
from scripts.simulation.jobs import (
    MINUTE_US,
    Job,
    Life,
    asks_cancel,
    chance,
    create,
    done,
    fresh_id,
    gives_back,
    reported,
    request_id,
    swept,
    work,
)

Further: TypeAlias = Callable[[Job, Random, Life], Life]
"""What comes on top of what has been told of the job so far."""


def _called_back(job: Job, dice: Random, told: Life) -> Life:
    if not any(isinstance(one, Create) and one.callback_url for one in told):
        return []
    at_us, fine = _end_us(told) + dice.randrange(US_PER_SECOND, MINUTE_US), chance(dice, 0.85)
    first = RecordCallback(**swept(job, at_us), attempt=1, delivered=fine, error=None if fine else "503")
    again = RecordCallback(**swept(job, at_us + 5 * MINUTE_US), attempt=2, delivered=True)
    return [first] if fine else [first, again]


def _ordered_again(job: Job, dice: Random, told: Life) -> Life:
    """The customer's client saw no answer, and sends its create again; rarely with something else in it."""
    order = next(one for one in told if isinstance(one, Create))
    if not order.claims or not chance(dice, 0.04):
        return []
    again = replace(
        create(job._replace(task_id=fresh_id(dice, job.at_us)), dice),
        at_us=job.at_us + dice.randrange(US_PER_SECOND, MINUTE_US),
        claims=order.claims,
        callback_url=None,
    )
    if chance(dice, 0.05):
        again = replace(again, claims=tuple(replace(claim, fingerprint="another order") for claim in again.claims))
    return [again]


def _reported_again(job: Job, dice: Random, told: Life) -> Life:
    """The worker saw no answer, or its queue delivers twice; rarely it says something else the second time."""
    outcome = _outcome(told)
    if outcome is None or not chance(dice, 0.03):
        return []
    at_us = outcome.at_us + dice.randrange(US_PER_SECOND, MINUTE_US)
    if chance(dice, 0.1):
        return [Fail(**reported(job, dice, at_us), code="generation_failed", message="An old notice.")]
    return [replace(outcome, at_us=at_us)]


def _given_back(job: Job, dice: Random, told: Life) -> Life:
    """Goodwill, some days later."""
    outcome = _outcome(told)
    if not isinstance(outcome, Complete) or not chance(dice, 0.007):
        return []
    paid = job.offer.terms.estimated_micros if outcome.actual_micros is None else outcome.actual_micros
    at_us = outcome.at_us + dice.randrange(US_PER_HOUR, 10 * US_PER_DAY)
    amount = max(paid * dice.randint(10, 50) // 100, 1)
    return [gives_back(job, amount, at_us=at_us, why="goodwill")]


def _altered(job: Job, dice: Random, told: Life) -> Life:
    """The customer runs the finished task again, or deletes it."""
    if not job.offer.alters or _outcome(told) is None:
        return []
    at_us = _end_us(told) + dice.randrange(MINUTE_US, 2 * US_PER_DAY)
    asked: dict[str, Any] = {"task_id": job.task_id, "actor": job.account.key_id, "account": job.account.name}
    match dice.choices(("stays", "updated", "deleted"), (80, 15, 5))[0]:
        case "updated":
            again = RequestUpdate(**asked, at_us=at_us, request_id=request_id(dice), input={"ocr_strategy": "All"})
            return [again, *_further_run(job, dice, at_us)]
        case "deleted":
            return [Delete(**asked, at_us=at_us, request_id=request_id(dice))]
        case _:
            return []


def _further_run(job: Job, dice: Random, from_us: int) -> Life:
    match dice.choices(("done", "failed", "cancelled"), (70, 15, 15))[0]:
        case "done":
            return done(job, dice, from_us=from_us)
        case "failed":
            return [*work(job, dice, from_us=from_us, fails=True)]
        case _:
            return [asks_cancel(job, dice, from_us + US_PER_SECOND)]


def _outcome(told: Life) -> Complete | Fail | None:
    return next((one for one in told if isinstance(one, Complete | Fail)), None)


def _end_us(told: Life) -> int:
    return max(one.at_us for one in told)


FURTHER: tuple[Further, ...] = (_called_back, _ordered_again, _reported_again, _given_back, _altered)
