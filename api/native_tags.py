"""Conditional requests (RFC 9110, 13): the ``ETag`` of a task, and what a client says that it has seen of it. Pure."""

from collections.abc import Callable

from api.contracts.shape import Asked
from api.refusals import Invalid
from ledger.task import LIVE, Task
from ledger.views import Seen

REPEATED = {"Idempotent-Replayed": "true"}
"""What marks an answer to what had been carried out before."""


def etag(task: Task) -> str:
    """The task's version, as a strong tag."""
    return f'"{task.version}"'


def if_match(asked: Asked) -> int | None:
    """The version that the caller has read, out of ``If-Match: "VERSION"``.

    Raises:
        Invalid: it is neither that nor ``*``.
    """
    text = asked.headers.get("If-Match")
    if text is None or text == "*":
        return None
    digits = text.removeprefix('"').removesuffix('"')
    if not (digits.isascii() and digits.isdigit() and len(digits) < 16 and text == f'"{digits}"'):  # noqa: PLR2004
        raise Invalid('If-Match must be a version in quotes, such as "3"', param="If-Match")
    return int(digits)


def has_seen(asked: Asked, task: Task) -> bool:
    """Whether ``If-None-Match`` names the task as it stands; proxies make weak tags of strong ones."""
    tags = [tag.strip().removeprefix("W/") for tag in asked.headers.get("If-None-Match", "").split(",")]
    return tags == ["*"] or etag(task) in tags


def news(asked: Asked) -> Callable[[Seen], bool]:
    """Whether the task as it stands is what the client waits for.

    That is what ``If-None-Match`` does not name. Without this header it is any change since the first look, and a task
    that is over is news at once (chosen: who has not read the task yet wants to be told how it goes on, and of one that
    is over there is hardly more to come).
    """
    if "If-None-Match" in asked.headers:
        return lambda seen: not has_seen(asked, seen.task)
    first: list[int] = []

    def has_changed(seen: Seen) -> bool:
        if not first:
            first.append(seen.task.version)
        return [seen.task.version] != first or seen.task.status not in LIVE

    return has_changed
