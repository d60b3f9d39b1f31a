"""Sentences about the rules: ``given(create(), start()).when(complete(4)).then(Completed, charged(4), released(6))``.

A history is written as it came about: commands, which are decided, or bare events, which only are folded. Amounts in
a sentence are whole credits, times are seconds after the task's creation.
"""

from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple, Self

from msgspec.structs import replace

from ledger.commands import (
    CancelPolicy,
    Charge,
    Complete,
    ConfirmCancel,
    Create,
    Delete,
    Effect,
    Expire,
    Fail,
    MarkStalled,
    Progress,
    RecordCallback,
    Refund,
    RequestCancel,
    RequestUpdate,
    Start,
    TaskCommand,
)
from ledger.errors import Refusal
from ledger.events import Charged, Event, Held, Notice, Refunded, Released, School, TaskEvent, Terms
from ledger.ids import TaskId
from ledger.money import MICROS_PER_CREDIT
from ledger.rules import decide
from ledger.settlement import violations
from ledger.task import NO_TASK, Task, evolve
from ledger.times import US_PER_SECOND

ID = TaskId(bytes.fromhex("019ab1c27d0478a59bcd0123456789ab"))
ACCOUNT, STRANGER = "acme", "umbrella"
CREATED_US = 1_767_323_045_000_000  # 2026-01-02T03:04:05Z
DEADLINE = 3600


def at(seconds: int) -> int:
    """The time in microseconds, *seconds* after the task's creation."""
    return CREATED_US + seconds * US_PER_SECOND


# Terms and policies


def terms(school: School, *, estimated: int = 10, cancellable: bool = True) -> Terms:
    """Ten credits in *school*."""
    return Terms(
        school=school,
        rate_version="7",
        estimated_micros=estimated * MICROS_PER_CREDIT,
        cancellable=cancellable,
    )


HOLD = terms(School.HOLD)
PREPAID = terms(School.PREPAID)
ON_SUCCESS = terms(School.ON_SUCCESS)
METERED = replace(  # a cancel costs a credit a second, from a quarter of its twenty seconds on
    HOLD, point_of_no_return_percent=25, cancel_rate_micros_per_second=MICROS_PER_CREDIT, output_seconds=20
)

LEMONDATA = CancelPolicy(queued=Effect.CANCEL, running=Effect.REFUSE, terminal=Effect.REFUSE, needs_support=True)
BYTESPIKE = CancelPolicy(queued=Effect.CANCEL, running=Effect.CANCEL, terminal=Effect.RETURN)
CHUNKR = CancelPolicy(queued=Effect.CANCEL, running=Effect.REFUSE, terminal=Effect.REFUSE)
BEATRA = CancelPolicy(queued=Effect.CANCEL, running=Effect.ASK, terminal=Effect.RETURN)
OPERATOR = BEATRA  # asks like beatra, and of any account's task


# Commands


def create(terms: Terms = HOLD, *, deadline: int | None = DEADLINE) -> Create:
    return Create(
        task_id=ID,
        at_us=CREATED_US,
        actor="k1",
        account=ACCOUNT,
        contract="lemondata",
        capability="text-to-video",
        model="seedance-2.0",
        resolved_model="seedance-2.0-2026",
        provider="volcengine",
        terms=terms,
        input={"prompt": "a fjord"},
        metadata={"order": 4711},
        estimated_seconds=35,
        out_task_id="order-4711",
        callback_url="https://acme.example/done",
        expires_at_us=None if deadline is None else at(deadline),
    )


def start(worker: str | None = "w1", *, provider_task_id: str | None = None, second: int = 1) -> Start:
    return Start(task_id=ID, at_us=at(second), actor="w", worker=worker, provider_task_id=provider_task_id)


def progress(
    percent: int | None = 40, *, stage: str | None = None, message: str | None = None, second: int = 2
) -> Progress:
    return Progress(task_id=ID, at_us=at(second), actor="w", percent=percent, stage=stage, message=message)


def complete(
    actual: int | None = None,
    *,
    output: dict[str, Any] | None = None,
    warnings: tuple[Notice, ...] = (),
    second: int = 3,
) -> Complete:
    return Complete(
        task_id=ID,
        at_us=at(second),
        actor="w",
        output=output,
        usage={"seconds": 5},
        warnings=warnings,
        actual_micros=_micros(actual),
    )


def fail(actual: int | None = None, *, second: int = 3) -> Fail:
    return Fail(
        task_id=ID,
        at_us=at(second),
        actor="w",
        code="provider_error",
        message="out of memory",
        retryable=True,
        actual_micros=_micros(actual),
    )


def confirm(actual: int | None = None, *, second: int = 4) -> ConfirmCancel:
    return ConfirmCancel(task_id=ID, at_us=at(second), actor="w", actual_micros=_micros(actual))


def charge(amount: int, key: str = "k", *, reason: str | None = None) -> Charge:
    return Charge(
        task_id=ID,
        at_us=at(2),
        actor="w",
        amount_micros=amount * MICROS_PER_CREDIT,
        key=key,
        reason=reason,
    )


def refund(amount: int, key: str = "k", *, reason: str | None = None) -> Refund:
    return Refund(
        task_id=ID,
        at_us=at(2),
        actor="w",
        amount_micros=amount * MICROS_PER_CREDIT,
        key=key,
        reason=reason,
    )


def cancel(
    policy: CancelPolicy = BYTESPIKE,
    *,
    account: str | None = ACCOUNT,
    reason: str | None = None,
    second: int = 3,
) -> RequestCancel:
    return RequestCancel(task_id=ID, at_us=at(second), actor="k1", account=account, policy=policy, reason=reason)


def update(ocr: str = "All", *, account: str = ACCOUNT, second: int = 5) -> RequestUpdate:
    return RequestUpdate(task_id=ID, at_us=at(second), actor="k1", account=account, input={"ocr": ocr})


def delete(*, account: str = ACCOUNT) -> Delete:
    return Delete(task_id=ID, at_us=at(9), actor="k1", account=account)


def expire(*, second: int = DEADLINE) -> Expire:
    return Expire(task_id=ID, at_us=at(second), actor="sweep")


def stall(*, silent_since: int = 2, second: int = 600) -> MarkStalled:
    return MarkStalled(task_id=ID, at_us=at(second), actor="sweep", silent_since_us=at(silent_since))


def called_back(attempt: int = 1, *, error: str | None = None, second: int = 9) -> RecordCallback:
    return RecordCallback(
        task_id=ID, at_us=at(second), actor="caller", attempt=attempt, delivered=error is None, error=error
    )


def _micros(amount: int | None) -> int | None:
    return None if amount is None else amount * MICROS_PER_CREDIT


# What is expected


class Like(NamedTuple):
    """An event of this *kind* with at least these *facts*."""

    kind: type[TaskEvent]
    facts: dict[str, object]


Expected = type[TaskEvent] | TaskEvent | Like


def like(kind: type[TaskEvent], **facts: object) -> Like:
    """An event of *kind* whose named fields are these."""
    return Like(kind, facts)


def held(amount: int) -> Like:
    return like(Held, amount_micros=amount * MICROS_PER_CREDIT)


def released(amount: int) -> Like:
    return like(Released, amount_micros=amount * MICROS_PER_CREDIT)


def charged(amount: int) -> Like:
    return like(Charged, amount_micros=amount * MICROS_PER_CREDIT)


def refunded(amount: int) -> Like:
    return like(Refunded, amount_micros=amount * MICROS_PER_CREDIT)


def _meets(event: TaskEvent, expected: Expected) -> bool:
    match expected:
        case Like(kind, facts):
            return type(event) is kind and all(getattr(event, name) == fact for name, fact in facts.items())
        case Event():
            return event == expected
        case _:
            return type(event) is expected


# The sentence


@dataclass(frozen=True)
class Answer:
    """What the rules answered: *events*, or a *refusal*; *task* is how it stands after that."""

    task: Task
    events: tuple[TaskEvent, ...] = ()
    refusal: Refusal | None = None

    def then(self, *expected: Expected) -> Self:
        """Exactly these events happened, in this order; without any: nothing did."""
        if self.refusal is not None:
            raise AssertionError(f"{self.refusal!r} is not {expected}") from self.refusal
        met = len(self.events) == len(expected) and all(map(_meets, self.events, expected))
        assert met, f"{self.events} are not {expected}"
        return self

    def refused(self, kind: type[Refusal], **facts: object) -> Self:
        """The answer was no, for this reason, with these facts and no events."""
        assert type(self.refusal) is kind, f"{self.refusal or self.events!r} is not {kind}"
        told = {name: getattr(self.refusal, name) for name in facts}
        assert told == facts, f"{told} is not {facts}"
        return self

    def leaving(self, **facts: object) -> Self:
        """The task now has these facts; *charged*, *net* and the like are in credits."""
        told = {name: _fact(self.task, name) for name in facts}
        assert told == facts, f"{told} is not {facts}"
        return self


def _fact(task: Task, name: str) -> object:
    """A field of the task or else of its run; a sum of money in credits."""
    if hasattr(task, f"{name}_micros"):
        micros = getattr(task, f"{name}_micros")
        assert micros % MICROS_PER_CREDIT == 0, f"{name} is {micros} micro-credits, not whole credits"
        return micros // MICROS_PER_CREDIT
    return getattr(task if hasattr(task, name) else task.run, name)


@dataclass(frozen=True)
class Given:
    """A task with a history."""

    task: Task

    def when(self, command: TaskCommand) -> Answer:
        """What the rules answer to *command*."""
        try:
            events = decide(self.task, command)
        except Refusal as refusal:
            return Answer(self.task, refusal=refusal)
        task = reduce(evolve, events, self.task)
        assert violations(task) == []
        return Answer(task, tuple(events))


def given(*history: TaskCommand | TaskEvent) -> Given:
    """A task that all this has happened to; with nothing at all, it does not exist."""
    task = replace(NO_TASK, task_id=ID)
    for step in history:
        events = [step] if isinstance(step, Event) else decide(task, step)
        task = reduce(evolve, events, task)
    return Given(task)
