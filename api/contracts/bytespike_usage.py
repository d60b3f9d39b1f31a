"""ByteSpike's usage: what the account's tasks have cost, a row a task, the newest first.

The docs name the routes, ``/v1/usage`` and ``/api/v1/usage``, and call them free; the shape of the answer is ours
(chosen), and so are its bounds::

    {"object": "list",
     "data": [{"task_id": "task_...", "out_task_id": "order-1", "status": "completed", "credits_used": 1.47,
               "model": "wan-2.6", "created": 1767323045}],
     "next_cursor": null, "has_more": false}

A task has a row once it has cost something, for as long as its query finds it, and its amount is the query's
``credits_used``. ``limit`` is 1 to 100, by itself 20; ``cursor`` is the ``next_cursor`` of the page before.
"""

from collections.abc import Callable
from typing import Any

from api.contracts.shape import Answer, Asked, json_answer
from api.refusals import Invalid
from ledger.cursors import cursor, task_of
from ledger.ids import TaskId
from ledger.ledger import Page, Wanted
from ledger.task import Task
from ledger.times import US_PER_SECOND

LIMIT_DEFAULT, LIMIT_MAX = 20, 100
PARAMS = frozenset({"limit", "cursor"})
OF_QUERY = frozenset({"task_id", "out_task_id", "status", "credits_used"})
"""What a row has of the task's query."""


def wanted(asked: Asked) -> Wanted:
    """The page in the query.

    Raises:
        Invalid: a parameter is unknown or has a value that it cannot have.
    """
    unknown = sorted(set(asked.query) - PARAMS)
    if unknown:
        raise Invalid(f"Unknown query parameter {unknown[0]}.", param=unknown[0] or None)
    return Wanted(account=asked.account, limit=_limit(asked), fits=_has_cost, before=_beyond(asked))


def listed(view: Callable[[Task], dict[str, Any]]) -> Callable[[Asked, Page], Answer]:
    """Answer with a page of tasks as *view* shows them, as far as they are about money."""

    def answer(asked: Asked, page: Page) -> Answer:
        body = {
            "object": "list",
            "data": [_row(task, view(task)) for task in page.tasks],
            "next_cursor": None if page.beyond is None else cursor(asked.log_id, page.beyond),
            "has_more": page.beyond is not None,
        }
        return json_answer(200, body)

    return answer


def _has_cost(task: Task) -> bool:
    return task.net_micros > 0


def _row(task: Task, query: dict[str, Any]) -> dict[str, Any]:
    shown = {name: value for name, value in query.items() if name in OF_QUERY}
    return shown | {"model": task.model, "created": task.created_at_us // US_PER_SECOND}


def _limit(asked: Asked) -> int:
    text = asked.query.get("limit", str(LIMIT_DEFAULT))
    few_digits = text.isascii() and text.isdigit() and len(text) <= len(str(LIMIT_MAX))
    if not few_digits or not 1 <= int(text) <= LIMIT_MAX:
        raise Invalid(f"limit is a number from 1 to {LIMIT_MAX}.", param="limit")
    return int(text)


def _beyond(asked: Asked) -> TaskId | None:
    """The last task of the page before."""
    text = asked.query.get("cursor")
    task = None if text is None else task_of(asked.log_id, text)
    if text is not None and task is None:
        raise Invalid("cursor is not one that this list gave.", param="cursor")
    return task
