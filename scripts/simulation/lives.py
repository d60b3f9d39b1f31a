"""The plan of a task's life: all that is asked and reported of it, each at its time. Pure, from the task's own dice.

A life is one of `PLOTS`, with what may come on top of it: a callback, a request or a report that is sent again, money
that is given back days later, an update, a deletion. What the rules make of a command is theirs: some are refused, as
they would be, and a life goes on as one does that was refused.

Two things never happen here, since each is a break by itself, and there are to be none but those that are planted in a
provider's statement: money is kept for a task that is never heard of again, and a task completes although its worker
has been asked to stop.
"""

from collections.abc import Callable
from random import Random
from typing import TypeAlias

from msgspec.structs import replace

from api.native_tasks import CANCEL as OPERATORS
from ledger.commands import Charge, Complete, ConfirmCancel, Effect, Expire, Fail, MarkStalled
from ledger.events import School
from ledger.times import US_PER_DAY, US_PER_HOUR, US_PER_SECOND
from scripts.simulation.further import FURTHER
from scripts.simulation.jobs import (
    MINUTE_US,
    OPERATOR,
    Job,
    Life,
    asks_cancel,
    chance,
    create,
    done,
    gives_back,
    part,
    reported,
    swept,
    work,
)
from scripts.simulation.market import Urn

Plot: TypeAlias = Callable[[Job, Random], Life]

PATIENCE_US = 10 * MINUTE_US
"""After so long a silence a running task is marked as stalled."""


def life(job: Job, dice: Random) -> Life:
    """All that is asked and reported of the task, in order of time."""
    told = PLOTS.draw(dice)(job, dice)
    told += [one for further in FURTHER for one in further(job, dice, told)]
    return sorted(told, key=lambda command: command.at_us)


# Plots


def _completes(job: Job, dice: Random) -> Life:
    return [create(job, dice), *done(job, dice)]


def _fails(job: Job, dice: Random) -> Life:
    run: Life = [*work(job, dice, from_us=job.at_us, fails=True)]
    if job.offer.terms.school is School.HOLD and isinstance(run[-1], Fail) and chance(dice, 0.1):
        run[-1] = replace(run[-1], actual_micros=part(job, dice, 5, 40))
    return [create(job, dice), *run]


def _charged_on_the_way(job: Job, dice: Random) -> Life:
    """The provider's point of no return is passed: a part is charged, and stays so whatever comes."""
    if job.offer.terms.school is not School.HOLD:
        return _completes(job, dice)
    run: Life = [*done(job, dice)] if chance(dice, 0.7) else [*work(job, dice, from_us=job.at_us, fails=True)]
    began_us, ended_us = run[0].at_us, run[-1].at_us
    at_us = began_us + (ended_us - began_us) * dice.randint(20, 80) // 100
    charge = Charge(**reported(job, dice, at_us), amount_micros=part(job, dice, 10, 30), key="point-of-no-return")
    twice = [replace(charge, at_us=charge.at_us + US_PER_SECOND)] if chance(dice, 0.2) else []
    return [create(job, dice), *run, charge, *twice]


def _cancelled_while_queued(job: Job, dice: Random) -> Life:
    """The customer changes their mind at once. Where the provider cannot cancel, the task goes on."""
    at_us = job.at_us + dice.randrange(US_PER_SECOND, 20 * US_PER_SECOND)
    asked = asks_cancel(job, dice, at_us)
    goes_on = job.offer.cancel.needs_support and not job.offer.terms.cancellable
    overtaken = chance(dice, 0.15)  # the worker had begun, and learns of it when it has finished
    run = done(job, dice, from_us=at_us) if goes_on or overtaken else []
    return [create(job, dice), asked, *run]


def _cancelled_while_running(job: Job, dice: Random) -> Life:
    run = done(job, dice)
    at_us = run[0].at_us + (run[-1].at_us - run[0].at_us) * dice.randint(5, 95) // 100
    asked = asks_cancel(job, dice, at_us)
    if job.offer.cancel.running is Effect.ASK:
        return [create(job, dice), asked, *_stopped(job, dice, run, at_us)]
    return [create(job, dice), asked, *run]  # refused, or at once; then what the worker reports is late


def _cancelled_by_the_operator(job: Job, dice: Random) -> Life:
    run = done(job, dice)
    at_us = run[0].at_us + (run[-1].at_us - run[0].at_us) * dice.randint(5, 95) // 100
    asked = replace(asks_cancel(job, dice, at_us), actor=OPERATOR, account=None, policy=OPERATORS, reason="runaway job")
    return [create(job, dice), asked, *_stopped(job, dice, run, at_us)]


def _expires(job: Job, dice: Random) -> Life:
    """Nobody takes it in time, or it takes too long; and sometimes it turns up after all."""
    deadline_us = job.at_us + dice.randint(10, 120) * MINUTE_US
    run: Life = []
    if chance(dice, 0.6):
        run = [one for one in work(job, dice, from_us=job.at_us) if not isinstance(one, Complete)]
    expire = Expire(**swept(job, deadline_us + dice.randrange(30 * US_PER_SECOND)))
    if run and chance(dice, 0.5):
        run.append(Complete(**reported(job, dice, expire.at_us + dice.randrange(MINUTE_US, US_PER_HOUR))))
    return [create(job, dice, expires_at_us=deadline_us), *run, expire]


def _stalls(job: Job, dice: Random) -> Life:
    """Nothing is heard of it for long; then it goes on."""
    run = work(job, dice, from_us=job.at_us, fails=chance(dice, 0.2))
    silent_us = run[-2].at_us if len(run) > 1 else job.at_us
    stalled = MarkStalled(**swept(job, silent_us + PATIENCE_US), silent_since_us=silent_us)
    ends_us = stalled.at_us + dice.randrange(MINUTE_US, 3 * US_PER_HOUR)
    *begun, end = run
    return [create(job, dice), *begun, stalled, replace(end, at_us=ends_us, effective_at_us=ends_us)]


def _is_never_heard_of_again(job: Job, dice: Random) -> Life:
    """It stays as it is; what was paid in advance is given back after a day."""
    begun: Life = [one for one in work(job, dice, from_us=job.at_us) if not isinstance(one, Complete)]
    silent_us = begun[-1].at_us if begun else job.at_us
    told = [create(job, dice), *begun, MarkStalled(**swept(job, silent_us + PATIENCE_US), silent_since_us=silent_us)]
    if job.offer.terms.school is School.PREPAID:
        told.append(gives_back(job, job.offer.terms.estimated_micros, at_us=silent_us + US_PER_DAY, why="lost"))
    return told


def _stopped(job: Job, dice: Random, run: Life, at_us: int) -> Life:
    """What is reported of *run* when its worker is asked at *at_us* to stop: what came before, and that it has."""
    stop_us = at_us + dice.randrange(US_PER_SECOND, 20 * US_PER_SECOND)
    return [*(one for one in run if one.at_us < at_us), ConfirmCancel(**reported(job, dice, stop_us))]


PLOTS: Urn[Plot] = Urn(
    (
        (_completes, 780),
        (_fails, 60),
        (_charged_on_the_way, 25),
        (_cancelled_while_queued, 30),
        (_cancelled_while_running, 35),
        (_cancelled_by_the_operator, 20),
        (_expires, 15),
        (_stalls, 15),
        (_is_never_heard_of_again, 20),
    )
)
"""Of a thousand lives."""
