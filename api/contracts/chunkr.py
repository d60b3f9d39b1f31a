"""Chunkr: cancel is a GET that works only while the task is ``Starting``; errors are plain text.

Source: the open-source server (lumina-ai-inc/chunkr) and its generated API docs, "Cancel Task"; its published clients.

========================= ============ ================================ =============================
ours                      ``status``   ``message``                      cancel
========================= ============ ================================ =============================
queued                    Starting     Task queued                      200, becomes Cancelled
queued, an update         Starting     Task queued for update           200, reverts to before it
running                   Processing   the worker's, or Task started    400
completed                 Succeeded    Task succeeded                   400
failed                    Failed       the reason, or Task failed       400
cancelled                 Cancelled    Task cancelled                   400: a repeat is not a 200
expired                   Failed       Task timed out                   400
========================= ============ ================================ =============================

An update is taken of a task that succeeded or failed; one that is cancelled or fails puts back all that was before it.
A task that is over can be deleted. ``expires_in`` counts from the finish. What is sent along is kept in the log, so a
create is at most 1 MiB, and larger files come by their address; a list has all tasks that the account can read here,
whichever contract took the order (both chosen).

The clients disagree on ``task`` and ``tasks`` and on ``/api/v1``, so each route is served in all four spellings
(chosen). The stored server answers a lost race with 200, and an unknown id with 500; we copy neither: the loser gets
400 with the new status, and an unknown id is 404 (chosen). ``/health`` wants no key, as on the server; but at the bare
root, where only the key tells that Chunkr is meant.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec

from api.contracts.chunkr_bodies import DEFAULTS, order, update
from api.contracts.chunkr_files import file_name, file_url, mime_type
from api.contracts.chunkr_list import is_npm, wanted, whole
from api.contracts.chunkr_words import MESSAGES, STATUSES, Unfit
from api.contracts.shape import (
    CLIENTS,
    TEXT,
    Alter,
    Answer,
    Asked,
    Browse,
    Cancel,
    Contract,
    Open,
    Operation,
    Read,
    Refused,
    Submit,
    Told,
    Wish,
    by_path,
    json_answer,
)
from api.contracts.telling import OUTCOMES, Fact, Telling, signed
from api.refusals import (
    Broken,
    Forbidden,
    Invalid,
    MethodNotAllowed,
    RateLimited,
    RevokedKey,
    TooLarge,
    Unauthenticated,
    Unavailable,
    UnknownRoute,
    WrongKey,
)
from ledger.commands import CancelPolicy, Delete, Effect
from ledger.cursors import cursor
from ledger.errors import (
    CancelUnsupported,
    InsufficientCredits,
    KeyReused,
    NotCancellable,
    NotDeletable,
    NotUpdatable,
    Overloaded,
    Refusal,
    TaskNotFound,
    TooManyTasks,
    UnknownModel,
    UpdateUnchanged,
)
from ledger.events import School
from ledger.ids import Spelling
from ledger.ledger import Page
from ledger.task import TERMINAL, Status, Task
from ledger.times import US_PER_SECOND, rfc3339

SPELLING = Spelling.UUID

CANCEL = CancelPolicy(queued=Effect.CANCEL, running=Effect.REFUSE, terminal=Effect.REFUSE)

SERVER_VERSION = "1.0.0"
EXPIRES_IN_MAX_SECONDS = 100 * 365 * 86_400  # chosen: longer is for good, and no date that can be printed

REFUSALS: dict[type[Refusal], tuple[int, str]] = {  # HTTP, text; in order of precedence
    Unauthenticated: (401, "Authorization header is missing"),
    WrongKey: (401, "Invalid or inactive API key"),
    RevokedKey: (401, "Invalid or inactive API key"),
    Forbidden: (403, "API key cannot be used here"),
    UnknownRoute: (404, "Not found"),
    MethodNotAllowed: (405, "Method not allowed"),
    TooLarge: (413, "Payload too large"),
    Unfit: (400, "{reason}"),
    Invalid: (400, "Invalid request: {reason}"),
    TaskNotFound: (404, "Task not found"),
    CancelUnsupported: (400, "Task cannot be cancelled"),
    NotCancellable: (400, "Task cannot be cancelled: status is {status}"),
    NotUpdatable: (400, "Task cannot be updated: status is {status}"),
    UpdateUnchanged: (400, "Task cannot be updated: configuration is unchanged"),
    NotDeletable: (400, "Task cannot be deleted: status is {status}"),
    UnknownModel: (400, "Unknown model"),
    TooManyTasks: (429, "Usage limit exceeded"),  # the vendor is silent on tasks at once: its one 429
    InsufficientCredits: (429, "Usage limit exceeded"),
    RateLimited: (429, "Usage limit exceeded"),
    KeyReused: (409, "Idempotency key was used for another request"),
    Overloaded: (503, "Service is busy"),
    Unavailable: (503, "Service is temporarily unavailable"),
    Broken: (500, "Internal server error"),
}


def view(task: Task, *, base_url: str, include_chunks: bool = True, data_urls: bool = False) -> dict[str, Any]:
    """The task object, with the extras of the npm client: the PyPI client passes over what it does not know.

    *data_urls* is the vendor's ``base64_urls``: a small file that was sent along is shown as one. What is known by its
    address only stays an address (chosen: nothing is fetched for a query).
    """
    spelled = SPELLING.spell(task.task_id)
    run = task.run
    expires_at_us = expiry_us(task)
    output = _output(task, include_chunks=include_chunks) if task.status is Status.COMPLETED else None
    url = file_url(task.run.input, data_urls=data_urls)
    return {
        "task_id": spelled,
        "status": STATUSES[task.status],
        "message": message(task),
        "completed": task.status in TERMINAL,
        "configuration": _configuration(task, url),
        "created_at": rfc3339(task.created_at_us),
        "started_at": _time(run.started_at_us),
        "finished_at": _time(run.finished_at_us),
        "expires_at": _time(expires_at_us),
        "output": output,
        # The PyPI client polls, cancels, updates and deletes at this address, so it carries our prefix.
        "task_url": f"{base_url}/api/v1/task/{spelled}",
        "task_type": "Parse",
        "file_info": {
            "url": url,
            "name": file_name(task.run.input),
            "mime_type": mime_type(task.run.input),
            "page_count": output["page_count"] if output else None,
        },
        "version_info": {"client_version": "Unspecified", "server_version": SERVER_VERSION},
    }


def message(task: Task) -> str:
    """What the vendor says of the status, or what the worker said last; never null."""
    match task.status:
        case Status.QUEUED if task.updating is not None:
            return "Task queued for update"
        case Status.RUNNING if task.run.message:
            return task.run.message
        case Status.FAILED if task.run.problem is not None and task.run.problem.message:
            return task.run.problem.message
        case _:
            return MESSAGES[task.status]


def expiry_us(task: Task) -> int | None:
    """``expires_in`` seconds after the finish; None before, and when the task keeps for good."""
    seconds, finished_at_us = task.run.input.get("expires_in"), task.run.finished_at_us
    if type(seconds) is not int or finished_at_us is None or seconds > EXPIRES_IN_MAX_SECONDS:
        return None
    return finished_at_us + seconds * US_PER_SECOND


def _time(at_us: int | None) -> str | None:
    return None if at_us is None else rfc3339(at_us)


def _configuration(task: Task, url: str | None) -> dict[str, Any]:
    """The request's own fields over the defaults; the file itself is shown as its address."""
    asked = {name: value for name, value in task.run.input.items() if name not in {"file", "file_name"}}
    return {**DEFAULTS, **asked, "input_file_url": url}


def _output(task: Task, *, include_chunks: bool) -> dict[str, Any]:
    made = task.run.output or {}
    further: dict[str, Any] = {name: made[name] for name in ("mime_type", "pages") if name in made}
    return {
        "chunks": made.get("chunks", []) if include_chunks else [],
        "file_name": made.get("file_name"),
        "page_count": made.get("page_count"),
        "pdf_url": made.get("pdf_url"),
        **further,
    }


FLAGS = ("base64_urls", "include_chunks")


def shown(asked: Asked, told: Told) -> Answer:
    data_urls, include_chunks = _flag(asked, "base64_urls", default=False), _flag(asked, "include_chunks", default=True)
    body = view(told.task, base_url=asked.base_url, include_chunks=include_chunks, data_urls=data_urls)
    return json_answer(200, body)


def taken(asked: Asked, told: Told) -> Answer:
    """The task after a create or an update: no query is read, for what was done cannot be refused any more."""
    return json_answer(200, view(told.task, base_url=asked.base_url))


def _flag(asked: Asked, name: str, *, default: bool) -> bool:
    value = asked.query.get(name)
    if value is None:
        return default
    if value not in {"true", "false"}:
        raise Invalid(f"{name} is not true or false", param=name)
    return value == "true"


def cancelled(_: Asked, __: Told) -> Answer:
    return Answer(200, b"Task cancelled", TEXT)


def delete(asked: Asked, task: Task) -> Delete:
    return Delete(
        task_id=task.task_id,
        at_us=asked.now_us,
        actor=asked.key_id,
        request_id=asked.request_id,
        expected_version=task.version,
        account=asked.account,
    )


def deleted(_: Asked, __: Told) -> Answer:
    return Answer(200, b"Task deleted", TEXT)


def listed(asked: Asked, page: Page) -> Answer:
    """The bare array of the server, or the object that the npm client reads."""
    data_urls, include_chunks = (_flag(asked, name, default=False) for name in ("base64_urls", "include_chunks"))
    tasks = [
        view(task, base_url=asked.base_url, include_chunks=include_chunks, data_urls=data_urls) for task in page.tasks
    ]
    if not is_npm(asked):
        return json_answer(200, whole(asked, tasks, is_end=page.beyond is None))
    following = None if page.beyond is None else cursor(asked.log_id, page.beyond)
    return json_answer(200, {"tasks": tasks, "next_cursor": following, "has_more": following is not None})


def healthy() -> Answer:
    return Answer(200, f"OK - Version {SERVER_VERSION}".encode(), TEXT)


def refuse(refusal: Refusal, refused: Refused) -> Answer:
    status, text = REFUSALS[type(refusal)]
    match refusal:
        case NotCancellable(status=found) | NotUpdatable(status=found) | NotDeletable(status=found):
            text = text.format(status=STATUSES[found])
        case Invalid(reason=reason):
            text = text.format(reason=reason)
        case Broken() if refused.method in {"POST", "PATCH"}:
            text = "Failed to create task"  # the server says so of an update, too
        case _:
            pass
    # The npm client sends a conflict again, unless it is told that this is of no use.
    headers = {"x-should-retry": "false"} if isinstance(refusal, KeyReused) else {}
    return Answer(status, text.encode(), TEXT, headers)


def gone(task: Task, now_us: int) -> bool:
    expires_at_us = expiry_us(task)
    return expires_at_us is not None and now_us >= expires_at_us


def token(headers: Mapping[str, str]) -> str | None:
    """The raw key, as both clients send it, or with ``Bearer``, as the generated docs show it (chosen)."""
    value = headers.get("Authorization", "").strip()
    scheme, _, rest = value.partition(" ")
    return (rest.strip() if scheme.lower() == "bearer" else value) or None


def _spellings(make: Callable[[str], Operation]) -> list[Operation]:
    return [make(base + word) for base in ("", "/api/v1") for word in ("/task", "/tasks")]


TOLD = "task.parse.updated"
"""The event that the hosted API's webhooks tell."""
TELLS = (*OUTCOMES, "started", "update-requested", "update-reverted")
"""A change of status; one of the message alone is not told (chosen: workers change it as often as they like)."""
TELL_SECONDS = 15


def called_back(task: Task, _: Fact) -> bytes:
    told = {"event_type": TOLD, "task_id": SPELLING.spell(task.task_id), "status": STATUSES[task.status]}
    return msgspec.json.encode(told | {"message": message(task)})


_read = by_path(SPELLING)

CONTRACT = Contract(
    name="chunkr",
    spelling=SPELLING,
    school=School.ON_SUCCESS,
    roles=CLIENTS,
    operations=(
        *_spellings(lambda base: Submit("POST", base + "/parse", order, taken)),
        *_spellings(lambda base: Submit("POST", base, order, taken)),  # deprecated
        *(Open("GET", base + "/health", healthy) for base in ("", "/api/v1")),
        *(Browse("GET", base + "/tasks", wanted, listed) for base in ("", "/api/v1")),
        *_spellings(lambda base: Read("GET", base + "/{id}", _read, shown, varies_by=FLAGS)),
        *_spellings(lambda base: Alter("DELETE", base + "/{id}", _read, delete, deleted)),
        *_spellings(lambda base: Read("GET", base + "/{id}/parse", _read, shown, varies_by=FLAGS)),
        *_spellings(lambda base: Alter("PATCH", base + "/{id}/parse", _read, update, taken)),
        *_spellings(lambda base: Alter("PATCH", base + "/{id}", _read, update, taken)),  # deprecated
        *_spellings(
            lambda base: Cancel("GET", base + "/{id}/cancel", lambda asked: Wish(_read(asked)), CANCEL, cancelled)
        ),
    ),
    token=token,
    gone=gone,
    refuse=refuse,
    takes_odd_queries=True,
    telling=Telling(
        dict.fromkeys(TELLS, TOLD), called_back, partial(signed, prefix="svix"), timeout_seconds=TELL_SECONDS
    ),
)
