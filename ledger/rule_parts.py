"""What the rules are made of: the times of a task, its content, and how it ends when it is cancelled. Pure."""

from typing import TypeAlias

from msgspec import UNSET, UnsetType

from ledger.events import NO_PAYLOAD, Cancelled, Payload, TaskEvent, UpdateReverted
from ledger.settlement import settle
from ledger.task import Task

Events: TypeAlias = "list[TaskEvent]"


def no_earlier(task: Task, at_us: int) -> int:
    """Times of a task never run backwards, whatever the clock does."""
    return max(at_us, task.updated_at_us)


def cancelled(task: Task, *, due_micros: int, confirmed: bool, at_us: int) -> Events:
    """The end of a cancelled run and of its money: an update goes back to what was before it."""
    money = settle(task, due_micros=due_micros, cause="cancelled", at_us=at_us)
    if task.updating is not None:
        return [UpdateReverted(at_us=at_us, cause="cancelled"), *money]
    return [Cancelled(at_us=at_us, confirmed=confirmed), *money]


def unless_empty(payload: Payload) -> Payload | UnsetType:
    """*payload*, or UNSET for one without content: then nothing is sealed and stored."""
    return payload if payload != NO_PAYLOAD else UNSET


def text(message: str | None) -> Payload | UnsetType:
    """The payload that is *message* alone, if there is any."""
    return unless_empty(Payload(message=message or None))
