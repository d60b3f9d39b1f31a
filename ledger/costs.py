"""What providers bill, line by line, as facts: what a line comes to, and for whom. Pure.

A line is known by its id, and one without by what it names and when; so a statement that is read again changes
nothing, and one that was corrected moves the difference. What a line bills is a fact whether it is right or wrong:
that it is wrong is a break, and what puts it right is another line, or the same one corrected. Alternative beaten:
costs that are only posted where they agree, which would add up to no invoice.

All lines of a provider are one stream, so that of two who read statements of the same provider at once one decides
anew. A line that turns out to be another task's is given back for the one and billed for the other. Of two statements
that bill the same line, the one that came later has the say (`ledger.statement_rules`).
"""

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from ledger.events import CostEvent, ProviderBilled, ProviderCredited
from ledger.statement_rules import Turn


class Whose(NamedTuple):
    """Whom a line is billed for: a task as the native API spells it, and what its money is for; or nobody."""

    task: str | None = None
    account: str = ""
    contract: str = ""
    model: str = ""


class Owed(msgspec.Struct, frozen=True, gc=False):
    """A line of a statement: what it bills for whom, in micro-credits, and when the work ended, in Unix microseconds.

    Less than nothing is given back.
    """

    line: str
    whose: Whose
    micros: int
    at_us: int
    rounded_from: str = ""
    """What it says in its own unit, where that is no whole number of micro-credits; empty: it is, or nobody asks."""


NOTHING = Owed("", Whose(), 0, 0)
"""What is known of a line that nobody has read."""


class Known(NamedTuple):
    """What a line comes to so far, and the position at which the statement came that was the last to move it."""

    owed: Owed = NOTHING
    came: int = 0


UNKNOWN = Known()


class Source(NamedTuple):
    """Who says so, in which statement, and by which rate its amounts are credits."""

    provider: str
    statement: str
    credits_per_unit: str = "1"


def decide_cost(before: Known, owed: Owed, source: Source, turn: Turn) -> Iterator[CostEvent]:
    """The events by which a line that came to something *before* comes to what is *owed*.

    None when it does already, or when its statement, whose *turn* it is, has no say in it any more.
    """
    if not turn.has_say(before.came):
        return
    known = before.owed
    if known.micros and known.whose != owed.whose:
        yield _moved(known, -known.micros, to_micros=0, source=source)
        known = NOTHING
    if owed.micros != known.micros:
        yield _moved(owed, owed.micros - known.micros, to_micros=owed.micros, source=source)


def _moved(line: Owed, by_micros: int, *, to_micros: int, source: Source) -> CostEvent:
    kind = ProviderBilled if by_micros > 0 else ProviderCredited
    return kind(
        at_us=line.at_us,
        amount_micros=abs(by_micros),
        provider=source.provider,
        line=line.line,
        line_micros=to_micros,
        statement=source.statement,
        task=line.whose.task,
        account=line.whose.account,
        contract=line.whose.contract,
        model=line.whose.model,
        credits_per_unit=source.credits_per_unit,
        rounded_from=line.rounded_from if to_micros else "",
    )


def signed_micros(event: CostEvent) -> int:
    """How the event moves what its line comes to."""
    return event.amount_micros if isinstance(event, ProviderBilled) else -event.amount_micros
