"""Logs with money in them: many tasks of several customers, models and schools, from a seed."""

from collections.abc import Callable
from random import Random

from msgspec.structs import replace

from ledger.commands import Complete, Create, TaskCommand
from ledger.costs import Owed, Source, Whose
from ledger.errors import Refusal
from ledger.ids import Spelling, TaskId
from ledger.ledger import Ledger
from ledger.records import TaskFilter
from ledger.times import US_PER_SECOND
from ledger.views import seen_of
from projections.books.books import Books
from projections.follow import catch_up
from projections.reconciliation.cost_log import CostLog
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
BILLED_US = CREATED_US + 100 * 24 * HOUR_US


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


async def money_bills(ledger: Ledger, books: Books, *, seed: int) -> None:
    """What providers bill for these tasks, and now and then for none of them; later some of it is corrected."""
    random, engine = Random(f"bills {seed}"), ledger.engine
    lines: dict[str, list[Owed]] = {}
    for number, placed in enumerate(await engine.page(TaskFilter(oldest_first=True, limit=1000))):
        row = placed.row
        known = random.random() < 0.9
        whose = Whose(Spelling.UUID.spell(row.task_id), row.account, row.contract, row.model)
        line = Owed(
            f"line {number}",
            whose if known else Whose(model=row.model),
            random.choice((-1, 0, 1, 250_000, 333_333)),
            row.created_at_us + US_PER_SECOND,
        )
        lines.setdefault(seen_of(placed).task.provider, []).append(line)
    for round_ in range(2):
        for provider, own in lines.items():
            some = [replace(one, micros=one.micros + random.randint(-round_, round_) * 100) for one in own]
            await catch_up(engine, books)
            log = CostLog(engine, books)
            await log.post(some, Source(provider, f"{round_}"), by="test", now_us=BILLED_US)


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
