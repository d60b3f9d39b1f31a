"""Which tasks are listed, in both forms of Chunkr's list: the server's pages, and the npm client's cursor.

Source: the open-source server (lumina-ai-inc/chunkr) and its published clients. A page that ends early, for its tasks
are large, says so in the npm client's form only; where pages are counted it is refused, or the next would not begin
where it ended. Without a ``limit`` it is the newest tasks, as many as there is room for (all chosen).
"""

from typing import Any

from api.contracts.chunkr_words import STATUSES, Unfit
from api.contracts.shape import Asked
from api.refusals import Invalid
from ledger.cursors import task_of
from ledger.ids import TaskId, earliest_id
from ledger.ledger import Wanted
from ledger.task import Task
from ledger.times import US_PER_MS, parse_rfc3339

SKIP_MAX = 10_000  # chosen: each task that a page skips is looked at; further on goes a cursor
LIMIT_DEFAULT, LIMIT_MAX = 50, 1000  # chosen: the server has no bound
DIGITS_MAX = 9
TASK_TYPES = {"Parse", "Extract"}
NPM_PARAMS = ("cursor", "sort", "statuses", "task_types")


def is_npm(asked: Asked) -> bool:
    """Whether the list is asked for as the npm client does: both forms share the path (chosen)."""
    return "X-Stainless-Lang" in asked.headers or any(name in asked.query for name in NPM_PARAMS)


def wanted(asked: Asked) -> Wanted:
    """The tasks of the account, of those statuses, created from ``start`` to ``end``.

    Raises:
        Invalid: a parameter is not of its shape.
        Unfit: a ``page`` has no ``limit``.
    """
    query = asked.query
    if "page" in query and "limit" not in query:
        raise Unfit("Limit is required when page is provided", param="limit")
    limit = _count(asked, "limit", default=LIMIT_DEFAULT, most=LIMIT_MAX)
    page = _count(asked, "page", default=1, most=1 + SKIP_MAX // limit)
    oldest_first = _one_of(query.get("sort", "desc"), {"asc", "desc"}, "sort") == "asc"
    words = _words(asked, "statuses", set(STATUSES.values()))
    types = _words(asked, "task_types", TASK_TYPES)
    start_us, end_us, seen = _time(asked, "start"), _time(asked, "end"), _cursor(asked)

    def fits(task: Task) -> bool:
        in_time = (start_us is None or task.created_at_us >= start_us) and (
            end_us is None or task.created_at_us <= end_us
        )
        return in_time and "Parse" in types and STATUSES[task.status] in words

    # Bounds to the millisecond, so that few tasks are read; `fits` is exact.
    after = [] if start_us is None else [earliest_id(start_us)]
    before = [] if end_us is None else [earliest_id(end_us + US_PER_MS)]
    if seen is not None:
        (after if oldest_first else before).append(seen)
    return Wanted(
        account=asked.account,
        limit=limit,
        fits=fits,
        skip=(page - 1) * limit,
        before=min(before, default=None),
        after=max(after, default=None),
        oldest_first=oldest_first,
    )


def whole(asked: Asked, tasks: list[dict[str, Any]], *, is_end: bool) -> list[dict[str, Any]]:
    """A page of the server's form: it tells of nothing beyond it, so one whose ``limit`` was given has that many.

    Raises:
        Unfit: it has fewer, because they are large, or many others lie between them.
    """
    if "limit" in asked.query and not is_end and len(tasks) < int(asked.query["limit"]):
        raise Unfit("Tasks are too large for this page: ask for a smaller limit, or add sort and follow the cursor")
    return tasks


def _count(asked: Asked, name: str, *, default: int, most: int) -> int:
    text = asked.query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX and 1 <= int(text) <= most):
        raise Invalid(f"{name} is not a number from 1 to {most}", param=name)
    return int(text)


def _one_of(word: str, known: set[str], name: str) -> str:
    if word not in known:
        raise Invalid(f"{name} is none of {', '.join(sorted(known))}", param=name)
    return word


def _words(asked: Asked, name: str, known: set[str]) -> set[str]:
    """The words that are listed, with commas between them; all of them, if none is."""
    text = asked.query.get(name)
    return known if text is None else {_one_of(word, known, name) for word in text.split(",")}


def _time(asked: Asked, name: str) -> int | None:
    text = asked.query.get(name)
    at_us = None if text is None else parse_rfc3339(text)
    if text is not None and at_us is None:
        raise Invalid(f"{name} is not an RFC 3339 time", param=name)
    return at_us


def _cursor(asked: Asked) -> TaskId | None:
    text = asked.query.get("cursor")
    task = None if text is None else task_of(asked.log_id, text)
    if text is not None and task is None:
        raise Invalid("cursor is none that this list gave out", param="cursor")
    return task
