"""A task that is ordered, and the single commands that are heard of it, each at its time."""

from random import Random
from typing import Any, NamedTuple, TypeAlias

from msgspec.structs import replace

from api.bodies import fingerprint
from api.contracts.shape import OUT_TASK_ID
from ledger.commands import Claim, Complete, Create, Fail, Progress, Refund, RequestCancel, Start, TaskCommand
from ledger.events import School
from ledger.ids import ENTROPY_BYTES, Spelling, TaskId, task_id
from ledger.money import credits_text
from ledger.times import US_PER_HOUR, US_PER_SECOND
from scripts.demo.plan import DONE_PERCENT, Billing, View, kind_of, plan
from scripts.demo.plan import Progress as Shown
from scripts.simulation.market import Account, Offer

MINUTE_US = 60 * US_PER_SECOND
KEYED_SHARE, OWN_ID_SHARE, CALLED_BACK_SHARE = 0.5, 0.2, 0.08
"""Of the creates, those that bring an idempotency key, an ``out_task_id``, a callback's address."""
NAMED_SHARE = 0.25
"""Of the outcomes, those that are reported under an event id."""
TOLD_SHARES: dict[type[TaskCommand], float] = {Start: 0.99, Progress: 0.3, Complete: 1, Fail: 1}
"""What reaches the ledger of what happens to a run."""
CUT_OFF_SHARE = 0.003
"""Of the reports, those that reach the ledger hours after what they tell of."""
OPERATOR, SWEEP = "operator", "sweep"
WORKERS = 8
"""Of each provider."""
REPORTS: dict[str, type[Start | Progress | Complete | Fail]] = {
    "started": Start,
    "progressed": Progress,
    "completed": Complete,
    "failed": Fail,
}
THINGS = ("a harbour", "a paper boat", "two foxes", "an old tram", "a lighthouse keeper", "a market", "the first snow")
MANNERS = ("at dawn", "in the rain", "as a woodcut", "seen from above", "in slow motion", "for a children's book")

Life: TypeAlias = list[TaskCommand]
"""What is asked and reported of one task."""


class Job(NamedTuple):
    """A task as it was ordered."""

    task_id: TaskId
    number: int
    at_us: int
    account: Account
    offer: Offer
    worker: str
    worker_key: str


def job(dice: Random, *, number: int, at_us: int, who: tuple[Account, Offer], worker_key: str) -> Job:
    """Task *number*, ordered at *at_us*."""
    account, offer = who
    worker = f"{offer.provider}-{dice.randint(1, WORKERS)}"
    return Job(fresh_id(dice, at_us), number, at_us, account, offer, worker, worker_key)


def fresh_id(dice: Random, at_us: int) -> TaskId:
    """The id of a task that is ordered at *at_us*."""
    return task_id(at_us=at_us, lane=0, entropy=dice.randbytes(ENTROPY_BYTES))


def chance(dice: Random, share: float) -> bool:
    """Whether it comes to pass, as it does in this share of all cases."""
    return dice.random() < share


def create(job: Job, dice: Random, *, expires_at_us: int | None = None) -> Create:
    """What the customer orders."""
    offer, content = job.offer, _input(job, dice)
    own_id = f"order-{job.number}" if chance(dice, OWN_ID_SHARE) else None
    return Create(
        task_id=job.task_id,
        at_us=job.at_us,
        actor=job.account.key_id,
        request_id=request_id(dice),
        claims=_claims(job, dice, content, own_id),
        account=job.account.name,
        contract=offer.contract,
        capability=offer.capability,
        model=offer.model,
        resolved_model=offer.resolved_model,
        provider=offer.provider,
        terms=offer.terms,
        input=content,
        metadata={},
        estimated_seconds=offer.estimated_seconds,
        out_task_id=own_id,
        callback_url="https://hooks.example.test/tasks" if chance(dice, CALLED_BACK_SHARE) else None,
        expires_at_us=expires_at_us,
    )


def _claims(job: Job, dice: Random, content: dict[str, Any], own_id: str | None) -> tuple[Claim, ...]:
    keys = {} if own_id is None else {OUT_TASK_ID: own_id}
    if chance(dice, KEYED_SHARE):
        keys["create"] = f"key-{job.number}"
    same = fingerprint(job.offer.model, content)
    return tuple(
        Claim(account=job.account.name, operation=what, key=key, fingerprint=same) for what, key in keys.items()
    )


def _input(job: Job, dice: Random) -> dict[str, Any]:
    if kind_of(_view(job)) == "document":
        return {"file": f"https://files.example.test/{dice.randrange(10**6)}.pdf"}
    return {"prompt": f"{dice.choice(THINGS)} {dice.choice(MANNERS)}"}


def asks_cancel(job: Job, dice: Random, at_us: int) -> RequestCancel:
    """The customer asks to cancel, in the words of the task's own contract."""
    return RequestCancel(
        task_id=job.task_id,
        at_us=at_us,
        actor=job.account.key_id,
        request_id=request_id(dice),
        account=job.account.name,
        policy=job.offer.cancel,
        reason="no longer needed" if chance(dice, 0.3) else None,
    )


def work(job: Job, dice: Random, *, from_us: int, fails: bool = False) -> Life:
    """All that a worker reports of a run that is queued at *from_us*: the demo worker's plan, at its times.

    Not every start and stage is told; the end always is, and comes last here.
    """
    began_us = from_us + int(dice.expovariate(1 / 4) * US_PER_SECOND)
    took_us = int(job.offer.estimated_seconds * dice.lognormvariate(0, 0.4) * US_PER_SECOND)
    told: Life = []
    percent = 0
    for fields in plan(_view(job), worker=job.worker, dice=dice, fail_share=float(fails)):
        kind, rest = REPORTS[fields["type"]], {name: value for name, value in fields.items() if name != "type"}
        percent = DONE_PERCENT if kind is Complete else rest.get("percent", percent)
        if kind is Start:
            rest["provider_task_id"] = f"{job.offer.provider[:3]}-{dice.randbytes(8).hex()}"
        if chance(dice, TOLD_SHARES[kind]):
            told.append(kind(**reported(job, dice, began_us + took_us * percent // DONE_PERCENT), **rest))
    end = told[-1]
    return [*told[:-1], _named(end, dice) if chance(dice, NAMED_SHARE) else end]


def done(job: Job, dice: Random, *, from_us: int | None = None) -> Life:
    """A run that completes, at what it has cost."""
    *begun, end = work(job, dice, from_us=job.at_us if from_us is None else from_us)
    assert isinstance(end, Complete), "nothing failed"
    return [*begun, replace(end, actual_micros=_actual(job, dice))]


def _actual(job: Job, dice: Random) -> int | None:
    """What a run costs: page by page where nothing is paid before, else the estimate or a part of it."""
    if job.offer.terms.school is School.ON_SUCCESS:
        return job.offer.terms.estimated_micros * min(1 + int(dice.expovariate(1 / 8)), 400)
    return None if chance(dice, 0.75) else part(job, dice, 40, 99)


def part(job: Job, dice: Random, least_percent: int, most_percent: int) -> int:
    """A part of the estimate, in micro-credits."""
    return max(job.offer.terms.estimated_micros * dice.randint(least_percent, most_percent) // 100, 1)


def reported(job: Job, dice: Random, at_us: int) -> dict[str, Any]:
    """What every report of a worker has, of something that happened at *at_us*."""
    delay_us = dice.randrange(20_000, 2 * US_PER_SECOND)
    if chance(dice, CUT_OFF_SHARE):
        delay_us += dice.randrange(8 * US_PER_HOUR)
    return {
        "task_id": job.task_id,
        "at_us": at_us + delay_us,
        "effective_at_us": at_us,
        "actor": job.worker_key,
        "request_id": request_id(dice),
    }


def swept(job: Job, at_us: int) -> dict[str, Any]:
    """What every command of a sweep has."""
    return {"task_id": job.task_id, "at_us": at_us, "actor": SWEEP}


def gives_back(job: Job, amount_micros: int, *, at_us: int, why: str) -> Refund:
    """The operator gives money back."""
    asked = swept(job, at_us) | {"actor": OPERATOR}
    return Refund(**asked, amount_micros=amount_micros, key=why, reason=why)


def _named(report: TaskCommand, dice: Random) -> TaskCommand:
    """The report under an event id, so that it counts once however often it is sent."""
    event_id = dice.randbytes(6).hex()
    operation = f"report {Spelling.UUID.spell(report.task_id)}"
    claim = Claim(account="", operation=operation, key=event_id, fingerprint=fingerprint(event_id))
    return replace(report, claims=(claim,))


def request_id(dice: Random) -> str:
    return dice.randbytes(8).hex()


def _view(job: Job) -> View:
    """The task as a worker would read it."""
    return View(
        id=Spelling.UUID.spell(job.task_id),
        contract=job.offer.contract,
        capability=job.offer.capability,
        model=job.offer.model,
        status="queued",
        worker=None,
        cancel_requested=False,
        progress=Shown(),
        billing=Billing(credits_text(job.offer.terms.estimated_micros)),
        input={},
    )
