"""A callback as its queue keeps it, and which of them are listed. Pure."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

from ledger.errors import DamagedError
from ledger.events import MoneyEvent, UpdateReverted, tag_of
from ledger.ids import Spelling, TaskId
from ledger.ledger import fold_rows
from ledger.records import Recorded
from ledger.task import Task
from ledger.times import rfc3339


class State(StrEnum):
    """Where a callback is."""

    WAITING = "waiting"
    """For its first try, or for the next."""
    DELIVERED = "delivered"
    DEAD = "dead"
    """It was given up: a dead letter, until somebody has it sent again."""


class Delivery(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A callback and how it goes. It holds nothing of what is told: that is made of the log when it is sent."""

    callback_id: str
    task: TaskId
    about: int
    """The version of the event that is told."""
    webhook: str | None
    account: str
    contract: str
    url: str
    type: str
    """The event's tag."""
    fact_at_us: int
    position: int
    """Where in the log the event stands."""
    state: State
    attempts: int
    """In all."""
    tried: int
    """Since it was new, or last sent again."""
    due_at_us: int
    attempted_at_us: int | None
    error: str | None

    @property
    def from_us(self) -> int:
        """From when on it may be tried: what is new at once, whatever the clock says that the log was written by."""
        return self.due_at_us if self.tried else 0


def delivery_of(raw: Sequence[Any]) -> Delivery:
    """The callback of a row that holds `queue_sql`'s columns."""
    name, task, about, webhook, account, contract, url, kind, fact_at, position, state, attempts, tried = raw[:13]
    return Delivery(
        callback_id=name,
        task=TaskId(bytes.fromhex(task)),
        about=about,
        webhook=webhook or None,
        account=account,
        contract=contract,
        url=url,
        type=kind,
        fact_at_us=fact_at,
        position=position,
        state=State(state),
        attempts=attempts,
        tried=tried,
        due_at_us=raw[13],
        attempted_at_us=raw[14],
        error=raw[15],
    )


class Line(NamedTuple):
    """Those who wait for each other: the callbacks of an account to one receiver."""

    account: str
    receiver: str


class Wanted(NamedTuple):
    """Which callbacks to list, the newest first: in a state, of an account, before a position."""

    state: State | None = State.DEAD
    account: str | None = None
    before: tuple[int, str] | None = None
    """Position and id of the last one of the page before."""
    limit: int = 50


def task_at(rows: list[Recorded], about: int) -> Task:
    """The task as event number *about* of its history left it, with the money that this event moved.

    Raises:
        DamagedError: the history has no such event, or it cannot be read.
    """
    if not 0 < about <= len(rows):
        raise DamagedError(f"the history of a task has no event number {about}")
    end, told = about, rows[about - 1].event
    cause = told.cause if isinstance(told, UpdateReverted) else tag_of(told)
    while end < len(rows) and isinstance(event := rows[end].event, MoneyEvent) and event.cause == cause:
        end += 1
    return fold_rows(TaskId(rows[0].stream), rows[:end])


def callback_view(one: Delivery) -> dict[str, Any]:
    """The callback, as the native API and the command line show it."""
    return {
        "id": one.callback_id,
        "state": one.state,
        "task": Spelling.UUID.spell(one.task),
        "account": one.account,
        "contract": one.contract,
        "webhook": one.webhook,
        "url": one.url,
        "event": one.type,
        "version": one.about,
        "position": one.position,
        "happened_at": rfc3339(one.fact_at_us),
        "attempts": one.attempts,
        "last_attempt_at": None if one.attempted_at_us is None else rfc3339(one.attempted_at_us),
        "next_attempt_at": rfc3339(one.due_at_us) if one.state is State.WAITING else None,
        "error": one.error,
    }
