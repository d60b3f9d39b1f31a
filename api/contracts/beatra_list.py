"""beatra's list: the account's tasks as summaries, a page at a time.

Source: the beatra documentation (docs.stratizon.cn). A summary is the envelope without its five expandable parts; the
bounds of the creation time are exclusive, and a parameter that nobody knows is refused (all chosen).

A cursor is the id of the last task that the page looked at: ids are in order of creation, so tasks that come in
meanwhile move nothing.
"""

from typing import Any

from api.contracts.beatra_envelope import STATUSES, view
from api.contracts.shape import Answer, Asked, Browse, json_answer
from api.refusals import Invalid
from ledger.cursors import cursor, task_of
from ledger.ids import TaskId, earliest_id
from ledger.ledger import Page, Wanted
from ledger.task import Task
from ledger.times import US_PER_MS, parse_rfc3339

LIMIT_DEFAULT, LIMIT_MAX = 20, 100
EXPANDABLE = ("output", "usage", "billing", "callback", "input")
PARAMS = frozenset(
    {"status", "capability", "created_after", "created_before", "limit", "cursor", "order", "expand"},
)


def wanted(asked: Asked) -> Wanted:
    """The list in the query.

    Raises:
        Invalid: a parameter is unknown or has a value that it cannot have.
    """
    query = asked.query
    unknown = sorted(set(query) - PARAMS)
    if unknown:
        pointer = "/" + unknown[0].replace("~", "~0").replace("/", "~1")
        raise Invalid(f"unknown query parameter {unknown[0]}", param=pointer)
    _expanded(asked)
    status, capability = _word(asked, "status", frozenset(STATUSES.values())), query.get("capability")
    after_us, before_us = _time(asked, "created_after"), _time(asked, "created_before")
    oldest_first = _word(asked, "order", frozenset({"asc", "desc"})) == "asc"

    def fits(task: Task) -> bool:
        return (
            status in (None, STATUSES[task.status])
            and capability in (None, task.capability)
            and (after_us is None or task.created_at_us > after_us)
            and (before_us is None or task.created_at_us < before_us)
        )

    beyond = _beyond(asked)
    # Bounds to the millisecond, so that few tasks are read; `fits` is exact.
    after = [] if after_us is None else [earliest_id(after_us)]
    before = [] if before_us is None else [earliest_id(before_us + US_PER_MS)]
    if beyond is not None:
        (after if oldest_first else before).append(beyond)
    return Wanted(
        account=asked.account,
        limit=_limit(asked),
        fits=fits,
        after=max(after, default=None),
        before=min(before, default=None),
        oldest_first=oldest_first,
    )


def listed(asked: Asked, page: Page) -> Answer:
    left_out = set(EXPANDABLE) - _expanded(asked)
    body = {
        "object": "list",
        "data": [_item(task, left_out) for task in page.tasks],
        "next_cursor": None if page.beyond is None else cursor(asked.log_id, page.beyond),
        "has_more": page.beyond is not None,
    }
    return json_answer(200, body)


def _item(task: Task, left_out: set[str]) -> dict[str, Any]:
    return {name: value for name, value in view(task).items() if name not in left_out}


def _expanded(asked: Asked) -> set[str]:
    """The parts that are to be shown."""
    text = asked.query.get("expand")
    if text is None:
        return set()
    parts = set(text.split(","))
    if not parts <= {*EXPANDABLE, "all"}:
        raise Invalid(f"expand is all, or some of {', '.join(EXPANDABLE)}", param="/expand")
    return set(EXPANDABLE) if "all" in parts else parts


def _word(asked: Asked, name: str, words: frozenset[str]) -> str | None:
    text = asked.query.get(name)
    if text is not None and text not in words:
        raise Invalid(f"{name} is one of {', '.join(sorted(words))}", param=f"/{name}")
    return text


def _time(asked: Asked, name: str) -> int | None:
    text = asked.query.get(name)
    at_us = None if text is None else parse_rfc3339(text)
    if text is not None and at_us is None:
        raise Invalid(f"{name} is an RFC 3339 time such as 2026-01-02T03:04:05Z", param=f"/{name}")
    return at_us


def _limit(asked: Asked) -> int:
    text = asked.query.get("limit", str(LIMIT_DEFAULT))
    few_digits = text.isascii() and text.isdigit() and len(text) <= len(str(LIMIT_MAX))
    if not few_digits or not 1 <= int(text) <= LIMIT_MAX:
        raise Invalid(f"limit is a number from 1 to {LIMIT_MAX}", param="/limit")
    return int(text)


def _beyond(asked: Asked) -> TaskId | None:
    """The last task of the page before."""
    text = asked.query.get("cursor")
    task = None if text is None else task_of(asked.log_id, text)
    if text is not None and task is None:
        raise Invalid("cursor is not one that this list gave", param="/cursor")
    return task


LIST = Browse("GET", "/v1/tasks", wanted, listed)
