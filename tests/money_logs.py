"""Logs with money in them: many tasks of several customers, models and schools, from a seed."""

from collections.abc import Callable
from random import Random

from msgspec.structs import replace

from ledger.commands import Complete, Create, TaskCommand
from ledger.errors import Refusal
from ledger.ids import TaskId
from ledger.ledger import Ledger
from ledger.times import US_PER_SECOND
from tests.builders import CREATED_US, cancel, create, ident, start
from tests.rules_dsl import HOLD, ON_SUCCESS, PREPAID, charge, fail, refund

ACCOUNTS = ("acme", "globex", "initech")
OFFERS = (
    ("lemondata", "seedance-2.0", "volcengine", HOLD),
    ("bytespike", "wan-2.6", "alibaba", HOLD),
    ("beatra", "suno-5.5", "suno", PREPAID),
    ("chunkr", "chunkr-parse", "chunkr", ON_SUCCESS),
)
HOUR_US = 3600 * US_PER_SECOND


async def money_log(ledger: Ledger, *, seed: int, tasks: int, first: int = 0, actor: str = "w") -> list[TaskId]:
    """*tasks* tasks an hour apart, numbered from *first*, each followed for a while; most of them to an end."""
    random = Random(seed)
    made = []
    for number in range(first, first + tasks):
        at_us = CREATED_US + number * HOUR_US
        made.append(ident(number))
        await ledger.handle(_order(random, number, at_us))
        for step in range(random.randint(0, 4)):
            command = replace(_next(random, ident(number), step), at_us=at_us + (step + 1) * US_PER_SECOND, actor=actor)
            try:
                await ledger.handle(command)
            except Refusal:
                continue  # a random report may well come at the wrong time
    return made


def _order(random: Random, number: int, at_us: int) -> Create:
    contract, model, provider, terms = random.choice(OFFERS)
    terms = replace(terms, estimated_micros=random.choice((0, 1, 333_333, 10_000_000)))
    return replace(
        create(ident(number)),
        at_us=at_us,
        account=random.choice(ACCOUNTS),
        contract=contract,
        model=model,
        provider=provider,
        terms=terms,
        expires_at_us=None,
    )


def _next(random: Random, task: TaskId, step: int) -> TaskCommand:
    at_us, actor = CREATED_US, "w"
    makers: tuple[Callable[[], TaskCommand], ...] = (
        lambda: start(task),
        lambda: Complete(task_id=task, at_us=at_us, actor=actor, actual_micros=random.choice((None, 0, 1, 200_000))),
        lambda: replace(fail(random.choice((None, 0))), task_id=task),
        lambda: replace(cancel(task), account=None),
        lambda: replace(charge(1, key=str(step)), task_id=task, amount_micros=random.choice((1, 100_000))),
        lambda: replace(refund(1, key=str(step)), task_id=task, amount_micros=random.choice((1, 100_000))),
    )
    return random.choice(makers)()
