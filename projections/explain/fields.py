"""The public fields of a task, each with what it is and by which rule an event changes it.

The names are those of the native task, dotted where it is nested; what a field *shows* is not said here but by the
function that the native API shows it with, which whoever explains hands in. So there is one truth of what a customer
reads, and a test holds these names to it: a field without an explanation fails.
"""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from ledger.task import Task

NEAR_MAX = 3

FIELDS: Mapping[str, str] = {
    "id": "the 128-bit id, drawn when the task was created",
    "public_id": "the id as the task's own contract spells it",
    "contract": "whose words and rules the task was created in",
    "account": "who owns the task and pays for it",
    "status": "where the task is: the first outcome committed decides, and only an update begins anew",
    "capability": "what kind of work was ordered",
    "model": "the model that was ordered",
    "provider": "who does the work, as the catalogue said when the task was created",
    "version": "how many events the task has: each adds one",
    "cursor": "the place in the log right after the task's last event",
    "out_task_id": "the customer's own name for the task",
    "follows": "the earlier task of the account, ended by then, in whose place it was ordered",
    "created_at": "when the task was created, at its source",
    "started_at": "when this run first started; a later report implies the start",
    "finished_at": "when the outcome of this run came about",
    "cancel_requested_at": "when a cancel of this run was first asked for; asking again changes nothing",
    "cancel_requested": "whether a cancel of this run has been asked for",
    "stalled_since": "since when nothing has been heard of the running task; silence is no verdict",
    "expires_at": "the deadline, pinned at creation",
    "estimated_seconds": "how long it was expected to take, pinned at creation",
    "worker": "who started it, as last reported",
    "provider_task_id": "what the provider calls it, as last reported",
    "progress.percent": "the highest share reported; it never falls, and completion makes it 100",
    "progress.stage": "the stage last reported",
    "progress.message": "the message last reported; a deletion erases it",
    "input": "what was ordered, by the creation or the last update; a deletion erases it",
    "metadata": "what the customer attached; a deletion erases it",
    "output": "what the completion delivered; a deletion erases it",
    "error.code": "why the run failed, as the failure said",
    "error.message": "the failure in words; a deletion erases it",
    "error.retryable": "whether the failure said that another try may help",
    "usage": "the meters that the completion reported",
    "warnings": "what the completion warned of",
    "late_reports": "reports that came after the outcome: kept as evidence, each adds one",
    "deleted": "whether the customer has deleted the task",
    "billing.school": "how the model is billed, pinned at creation",
    "billing.rule": "by which rule the outcome settled the money: the names of its acts begin with it",
    "billing.rate_version": "the price list that was in force, pinned at creation",
    "billing.estimated_credits": "the price, pinned at creation: later price lists change nothing",
    "billing.held_credits": "what is held still: held, less what was charged out of it and what was released",
    "billing.charged_credits": "all that was charged, whatever was given back later",
    "billing.released_credits": "all of the hold that was let go without a charge",
    "billing.refunded_credits": "all that was given back of what was charged",
    "billing.net_credits": "what the customer has paid: charged, less refunded",
    "callback.url": "where the outcome is to be posted, pinned at creation",
    "callback.attempts": "how often it was tried to post the last event that was",
    "callback.delivered_at": "when that was delivered",
    "callback.last_error": "what went wrong in the last try",
    "callback.gave_up": "whether that is not tried again by itself",
    "links.self": "where the task is read",
    "links.events": "where its history is read",
    "links.cancel": "where it is cancelled",
}

MONEY: Mapping[str, Callable[[Task], int]] = {
    "billing.estimated_credits": lambda task: task.terms.estimated_micros,
    "billing.held_credits": lambda task: task.held_micros,
    "billing.charged_credits": lambda task: task.charged_micros,
    "billing.released_credits": lambda task: task.released_micros,
    "billing.refunded_credits": lambda task: task.refunded_micros,
    "billing.net_credits": lambda task: task.net_micros,
}
"""The figures, in micro-credits."""


class NoSuchFieldError(ValueError):
    """The text names no field, or more than one that are not of one group."""


def named(text: str) -> tuple[str, ...]:
    """The fields that *text* means: one by its full or its last name, or all of a group.

    Raises:
        NoSuchFieldError: none, or several; the message names those that are near.
    """
    if text in FIELDS:
        return (text,)
    group = tuple(name for name in FIELDS if name.startswith(f"{text}."))
    if group:
        return group
    ends = tuple(name for name in FIELDS if name.rpartition(".")[2] == text)
    if len(ends) > 1:
        raise NoSuchFieldError(f"{text!r} may be {' or '.join(ends)}")
    if ends:
        return ends
    near = _near(text)
    hint = f"; near it are {', '.join(near)}" if near else "; without a field all are explained"
    raise NoSuchFieldError(f"a task has no field {text!r}{hint}")


def value_in(view: Mapping[str, Any], name: str) -> Any:  # noqa: ANN401 - whatever the view shows
    """What *view* shows in the field; None where its group is not there."""
    group, _, last = name.rpartition(".")
    if not group:
        return view[last]
    inner = view[group]
    return None if inner is None else inner[last]


def _near(text: str) -> list[str]:
    """By their full or their last names."""
    names = {name.rpartition(".")[2]: name for name in FIELDS} | {name: name for name in FIELDS}
    return [*dict.fromkeys(names[found] for found in get_close_matches(text, names, n=NEAR_MAX))]
