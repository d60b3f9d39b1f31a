"""The life of a provider's statement in the log: read to its end, and replaced at most once. Pure.

A line that a corrected statement leaves out stays billed, for most statements tell of a part only. One that *replaces*
another stands for all of it: what the other billed and this one does not is given back, and breaks that only the other
showed are corrected. All replacements of a provider stand in one stream, for each depends on the others: the one that
is replaced was not before, and the one that stands for it stands itself. So of two that would replace the same one, or
each other, at once one is refused. It stands there first, so that a run that was killed is carried on by the same one,
and by no other. Alternative beaten: the stream of the statement that is replaced, for two that replace each other write
to two streams, and neither would be left to stand.

Several may bill the same line, and each may be read again at any time. *The latest has the say*: a statement comes when
it first says something in the log, and anew when it replaces another, and a line that one which came later has moved is
that one's. So a folder that is read over and over, in whatever order, comes to rest. Alternative beaten: whoever is
read last, by which two statements that differ would take a line back from each other at every reading.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple, TypeAlias

from ledger.errors import NotReplaceable, StatementSuperseded
from ledger.events import AnyEvent, StatementReplaced

Replaced: TypeAlias = Mapping[str, str]
"""The statements of a provider that were replaced, each with the one that stands for it."""


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


def replaced_in(events: Iterable[AnyEvent]) -> Replaced:
    """Those that these events of a provider's stream tell of; others stand in a stream not their own, says `verify`."""
    return {event.statement: event.by for event in events if isinstance(event, StatementReplaced)}


def decide_replaced(replaced: Replaced, order: StatementReplaced, *, is_read: bool) -> list[StatementReplaced]:
    """The events by which a statement is replaced as *order* has it; none if it is already. *is_read*: it was.

    Raises:
        StatementSuperseded: the one that would stand for it was replaced.
        NotReplaceable: it would replace itself, was replaced by another, or was never read.
    """
    refuse_superseded(replaced, order.by)
    if order.by == order.statement:
        raise NotReplaceable(order.statement, "does not replace itself")
    by = replaced.get(order.statement)
    if by == order.by:
        return []
    if by is not None:
        raise NotReplaceable(order.statement, f"has been replaced by {by}: that one can be replaced")
    if not is_read:
        raise NotReplaceable(order.statement, f"of {order.provider} has not been read")
    return [order]


def refuse_superseded(replaced: Replaced, statement: str) -> None:
    """Check that the statement still stands: read again, it would bill again what was given back.

    Raises:
        StatementSuperseded: it was replaced.
    """
    by = replaced.get(statement)
    if by is not None:
        raise StatementSuperseded(statement, by)


def replaced_violation(replaced: Replaced, event: StatementReplaced, *, is_read: bool) -> str | None:
    """What is wrong with this event after those of *replaced*; None: nothing. *is_read*: the replaced one was."""
    if not is_read:
        return "a statement is replaced that was never read before"
    if event.by == event.statement:
        return "a statement is replaced by itself"
    if event.statement in replaced:
        return "a statement is replaced that has been replaced"
    if event.by in replaced:
        return "a statement is replaced by one that has been replaced"
    return None
