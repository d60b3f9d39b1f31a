"""A month of tasks at one provider, and the statement that it sends: what reconciliation is tried on."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

from msgspec.structs import replace

from ledger.commands import Complete, Start
from ledger.events import School, Terms
from ledger.ids import Spelling, TaskId
from ledger.ledger import Ledger
from ledger.times import US_PER_SECOND, rfc3339
from tests.builders import CREATED_US, create, ident
from tests.rules_dsl import terms

PROVIDER, MODEL = "volcengine", "seedance-2.0"
MINUTE_US = 60 * US_PER_SECOND
COLUMNS = (
    "line_id",
    "provider_task_id",
    "our_task_id",
    "model",
    "status",
    "amount",
    "currency",
    "started_at",
    "finished_at",
    "billed_at",
)


HOLD = terms(School.HOLD)


async def begin(ledger: Ledger, number: int, *, provider_task_id: str | None = None, terms: Terms = HOLD) -> TaskId:
    """Task *number*, a minute after the one before it, running; it holds ten credits."""
    task, at_us = ident(number), CREATED_US + number * MINUTE_US
    order = replace(
        create(task),
        at_us=at_us,
        model=MODEL,
        resolved_model=None,
        provider=PROVIDER,
        terms=terms,
        expires_at_us=None,
    )
    await ledger.handle(order)
    provider_id = f"prov-{number}" if provider_task_id is None else provider_task_id
    await ledger.handle(Start(task_id=task, at_us=at_us, actor="w", worker="w", provider_task_id=provider_id or None))
    return task


async def finish(ledger: Ledger, number: int, *, micros: int = 1_500_000) -> None:
    """Task *number* completes half a minute after it was created, for one and a half credits."""
    at_us = ended_us(number)
    await ledger.handle(Complete(task_id=ident(number), at_us=at_us, actor="w", actual_micros=micros))


async def run(ledger: Ledger, numbers: Iterable[int], *, terms: Terms = HOLD) -> None:
    """These tasks, begun and completed."""
    for number in numbers:
        await begin(ledger, number, terms=terms)
        await finish(ledger, number)


def ended_us(number: int) -> int:
    return CREATED_US + number * MINUTE_US + MINUTE_US // 2


def row(number: int, **other: str) -> dict[str, str]:
    """The line that the provider bills for task *number*, but for what is *other*."""
    return {
        "line_id": f"L{number}",
        "provider_task_id": f"prov-{number}",
        "our_task_id": Spelling.UUID.spell(ident(number)),
        "model": MODEL,
        "status": "succeeded",
        "amount": "1.5",
        "currency": "USD",
        "started_at": rfc3339(CREATED_US + number * MINUTE_US),
        "finished_at": rfc3339(ended_us(number)),
        "billed_at": rfc3339(ended_us(number)),
    } | other


def statement(rows: Sequence[Mapping[str, str]], *, columns: Sequence[str] = COLUMNS) -> bytes:
    """The statement as a CSV file."""
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()
