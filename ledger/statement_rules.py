"""The life of a provider's statement in the log: read to its end, and replaced at most once. Pure.

A line that a corrected statement leaves out stays billed, for most statements tell of a part only. One that *replaces*
another stands for all of it: what the other billed and this one does not is given back, and breaks that only the other
showed are corrected. That it is replaced stands in the stream of the statement that is, so that of two that would
replace it at once one is refused. It stands there first, so that a run that was killed is carried on by the same one,
and by no other. Alternative beaten: a note among what the new one says of itself, which two could say at once.

Several may bill the same line, and each may be read again at any time. *The latest has the say*: a statement comes when
it first says something in the log, and anew when it replaces another, and a line that one which came later has moved is
that one's. So a folder that is read over and over, in whatever order, comes to rest. Alternative beaten: whoever is
read last, by which two statements that differ would take a line back from each other at every reading.
"""

from collections.abc import Iterable
from typing import NamedTuple

from ledger.errors import NotReplaceable, StatementSuperseded
from ledger.events import AnyEvent, StatementRead, StatementReplaced


class Standing(NamedTuple):
    """What the log says of a statement."""

    is_read: bool = False
    replaced_by: str | None = None


class Turn(NamedTuple):
    """Where a statement stands among those of its provider."""

    came: int = 0
    """The position of the log at which it came; 0: it has not come yet."""
    is_read: bool = False
    """Whether it has been read to its end, and not only begun."""

    def has_say(self, came: int) -> bool:
        """Whether it may move a line that the statement which came at that position was the last to move; 0: none."""
        return not self.came or came <= self.came

    def tells_of(self, came: int) -> bool:
        """Whether it is compared with a task that the statement which came at that position was the latest to bill.

        A run that was killed is: what it had left undone may be what differs.
        """
        return not self.is_read or came <= self.came


def evolve_standing(old: Standing, event: AnyEvent) -> Standing:
    """The standing after *event* of the statement's stream."""
    match event:
        case StatementRead():
            return old._replace(is_read=True)
        case StatementReplaced(by=by):
            return old._replace(replaced_by=by)
        case _:
            return old  # stands in a stream that is not its own, as `verify` says


def standing_of(events: Iterable[AnyEvent]) -> Standing:
    """The standing that these events of its stream leave behind."""
    known = Standing()
    for event in events:
        known = evolve_standing(known, event)
    return known


def decide_replaced(known: Standing, order: StatementReplaced) -> list[StatementReplaced]:
    """The events by which a statement is replaced as *order* has it; none if it is already.

    Raises:
        NotReplaceable: it would replace itself, was replaced by another, or was never read.
    """
    if order.by == order.statement:
        raise NotReplaceable(order.statement, "does not replace itself")
    if known.replaced_by == order.by:
        return []
    if known.replaced_by is not None:
        raise NotReplaceable(order.statement, f"has been replaced by {known.replaced_by}: that one can be replaced")
    if not known.is_read:
        raise NotReplaceable(order.statement, f"of {order.provider} has not been read")
    return [order]


def refuse_superseded(known: Standing, statement: str) -> None:
    """Check that the statement still stands: read again, it would bill again what was given back.

    Raises:
        StatementSuperseded: it was replaced.
    """
    if known.replaced_by is not None:
        raise StatementSuperseded(statement, known.replaced_by)
