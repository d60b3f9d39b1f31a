"""What a task's provider has billed for it: the lines of statements that add up to it, and the events that say so.

It is no field of the task, whose history does not know of it: the books know where in the log it stands.
"""

from collections.abc import Sequence

import msgspec

from ledger.costs import signed_micros
from ledger.engine import Engine
from ledger.errors import DamagedError
from ledger.events import CostEvent, ProviderBilled, ProviderCredited, tag_of
from ledger.ids import TaskId
from ledger.money import Rounding, credits_text
from ledger.records import Recorded
from ledger.times import rfc3339
from projections.books.books import Books
from projections.books.cost_rows import positions_of_costs
from projections.explain.rules import Inexact, Rule, inexact
from projections.follow import catch_up
from projections.places import Place
from projections.reconciliation.statement_format import StatementFormat
from projections.reconciliation.statements import micros_in

NAME = "provider_cost"
MEANING = "what the provider has billed for the task, in the statements that were read"
BILLED = Rule(name="statement.read.billed", sentence="A statement's line is cost at the agreed rate, right or wrong.")
CORRECTED = Rule(
    name="statement.read.corrected",
    sentence="A line that was known moves by the difference: it says something else now, or is another task's.",
)


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """What an event added (< 0: took from it), by which line of which statement, and what that came to."""

    position: int
    type: str
    effective_at: str
    recorded_at: str
    actor: str
    credits: str
    total_credits: str
    rule: str
    line: str
    statement: str
    provider: str
    credits_per_unit: str
    units: str | None
    """What the line says in its own unit, where it was rounded, as *rounded* tells; None: it is exact."""
    rounded: Inexact | None


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """Why the provider's cost is *value*; no lines: none has been read."""

    field: str = NAME
    meaning: str = MEANING
    value: str
    sum: tuple[Line, ...]
    rules: tuple[Rule, ...]


async def explain_cost(engine: Engine, books: Books, task: TaskId, place: Place) -> Cost:
    """The cost of *task* as known at *place*."""
    await catch_up(engine, books)
    positions = await positions_of_costs(books, task, until=place.position)
    return cost_of([(await engine.after(position - 1, 1))[0] for position in positions])


def cost_of(rows: Sequence[Recorded]) -> Cost:
    """The cost that these events of one task come to.

    Raises:
        DamagedError: one of them says nothing of a cost.
    """
    total_micros, known, lines = 0, set[str](), list[Line]()
    rules: dict[str, Rule] = {}
    for row in rows:
        event = row.event
        if not isinstance(event, ProviderBilled | ProviderCredited):
            raise DamagedError(f"the event at position {row.position} is no cost: run `task-ledger verify`")
        total_micros += signed_micros(event)
        rule = CORRECTED if event.line in known else BILLED
        known.add(event.line)
        rules[rule.name] = rule
        lines.append(
            Line(
                position=row.position,
                type=tag_of(event),
                effective_at=rfc3339(row.entry.effective_at_us),
                recorded_at=rfc3339(row.entry.recorded_at_us),
                actor=row.entry.actor,
                credits=credits_text(signed_micros(event)),
                total_credits=credits_text(total_micros),
                rule=rule.name,
                line=event.line,
                statement=event.statement,
                provider=event.provider,
                credits_per_unit=event.credits_per_unit,
                units=event.rounded_from or None,
                rounded=_rounding_of(event),
            )
        )
    return Cost(value=credits_text(total_micros), sum=tuple(lines), rules=tuple(rules.values()))


def _rounding_of(event: CostEvent) -> Inexact | None:
    """How the line's amount was rounded, which follows from what it says and the rate; None: it is exact."""
    if not event.rounded_from:
        return None
    rate = StatementFormat(credits_per_unit=event.credits_per_unit).terms().rate
    return inexact(micros_in(event.rounded_from, rate), Rounding.NEAREST)
