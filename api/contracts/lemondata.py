"""LemonData: only queued tasks of three models cancel, and a cancelled task reads as failed.

Source: LemonData API reference, "Get task status" and "Cancel task" (docs.lemondata.cc).

=========== ============== ================================ ======================================
ours        ``status``     beside it                        DELETE
=========== ============== ================================ ======================================
queued      pending                                         200 cancelled; 400 for other models
running     processing                                      409 ``task_not_cancellable``
completed   completed      outputs                          409, or 400 for other models
failed      failed         ``error``: the reason            the same
cancelled   **failed**     ``cancelled``, the marker        the same: a repeat is not a 200
expired     failed         ``error``: "Task expired"        the same
=========== ============== ================================ ======================================

Checks come in the order 401, 404, 403, 400 (support), 409 (state) (chosen: the codes are the vendor's). GET of another
account's task is the same 404 as an unknown one (chosen); its DELETE is a 403, which confesses that it exists.

A create is answered with 200 (chosen) and the task as it was born; an optional ``Idempotency-Key`` (chosen) makes it
safe to send again. What the create routes read is in ``lemondata_create``.

Of two billing guides the newer one is followed: reserve, settle on success, release on failure. Settled is with the
report of the result, never by a GET (chosen), and a cancelled task is a failed one: it has no transaction (chosen).
"""

import hashlib
from typing import Any

import msgspec

from api.contracts import lemondata_create as create
from api.contracts.shape import (
    CLIENTS,
    Answer,
    Asked,
    Cancel,
    Contract,
    Read,
    Refused,
    Submit,
    Told,
    Wish,
    bearer,
    by_path,
    json_answer,
    keep_for,
    x_rate_limit,
)
from api.contracts.telling import OUTCOMES, Fact, Telling, standard_webhooks
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
from ledger.commands import CancelPolicy, Effect
from ledger.errors import (
    CancelUnsupported,
    InsufficientCredits,
    KeyReused,
    NotCancellable,
    Overloaded,
    Refusal,
    TaskNotFound,
    TooManyTasks,
    UnknownModel,
)
from ledger.events import School
from ledger.ids import Digits, Spelling
from ledger.money import credits_text
from ledger.task import Status, Task
from ledger.times import US_PER_DAY, US_PER_SECOND

SPELLING = Spelling("ldtask_", Digits.HEX)  # the digits are chosen: the examples show 32 characters

STATUSES = {
    Status.QUEUED: "pending",
    Status.RUNNING: "processing",
    Status.COMPLETED: "completed",
    Status.FAILED: "failed",
    Status.CANCELLED: "failed",
    Status.EXPIRED: "failed",
}

CANCEL = CancelPolicy(queued=Effect.CANCEL, running=Effect.REFUSE, terminal=Effect.REFUSE, needs_support=True)

RETENTION_US = 30 * US_PER_DAY  # chosen: the vendor names no number
ERROR_MAX_CHARS = 500  # chosen, as above
CANCELLED_ERROR = "Task cancelled before execution"
EXPIRED_ERROR = "Task expired"  # chosen: the vendor knows the word and gives no example

# Chosen: the types of 400, 404 and 409, the 404 of a task, and the codes of 400 for a body, 405, 409 for a key and 413.
INVALID_REQUEST, SERVER = "invalid_request_error", "server_error"
REFUSALS: dict[type[Refusal], tuple[int, str, str, str]] = {  # HTTP, type, code, message; in order of precedence
    Unauthenticated: (401, "invalid_api_key", "invalid_api_key", "Missing API key."),
    WrongKey: (401, "invalid_api_key", "invalid_api_key", "Invalid API key."),
    RevokedKey: (401, "expired_api_key", "expired_api_key", "This API key has been revoked."),
    Forbidden: (403, "access_denied", "access_denied", "This API key cannot be used here."),
    UnknownRoute: (404, INVALID_REQUEST, "not_found", "Unknown request URL."),
    MethodNotAllowed: (405, INVALID_REQUEST, "method_not_allowed", "Method not allowed for this URL."),
    TooLarge: (413, INVALID_REQUEST, "payload_too_large", "Request body is too large."),
    Invalid: (400, INVALID_REQUEST, "invalid_request", "Invalid request."),
    TaskNotFound: (404, INVALID_REQUEST, "async_task_not_found", "Task not found or no longer available."),
    CancelUnsupported: (400, INVALID_REQUEST, "unsupported_task_cancel", "This task does not support cancellation."),
    NotCancellable: (409, INVALID_REQUEST, "task_not_cancellable", "Task can no longer be cancelled."),
    UnknownModel: (400, INVALID_REQUEST, "model_not_found", "The model does not exist."),
    # The vendor is silent on tasks at once: the words of its 429, and a message of our own.
    TooManyTasks: (429, "rate_limit_exceeded", "rate_limit_exceeded", "Too many tasks in flight. Please retry later."),
    InsufficientCredits: (402, "insufficient_balance", "insufficient_balance", "Insufficient balance for this task."),
    RateLimited: (429, "rate_limit_exceeded", "rate_limit_exceeded", "Rate limit exceeded. Please retry later."),
    KeyReused: (409, INVALID_REQUEST, "idempotency_key_reused", "Idempotency key was used for another request."),
    Overloaded: (503, SERVER, "internal_error", "The service is busy. Please retry later."),
    Unavailable: (503, SERVER, "internal_error", "The service is temporarily unavailable. Please retry later."),
    Broken: (500, SERVER, "internal_error", "Internal server error."),
}
NOT_YOURS = (403, "access_denied", "access_denied", "This API key cannot access the task.")


def view(task: Task) -> dict[str, Any]:
    """The task as ``GET /v1/tasks/{id}`` shows it: what has no value is left out, never null (chosen)."""
    shown = {**_identity(task), **_state(task)}
    if task.run.percent is not None:
        shown["progress"] = task.run.percent
    if task.status is Status.COMPLETED:
        shown |= _outputs(task)
        if task.charged_micros > 0:  # chosen: what is given back later does not undo the settlement
            shown["billing_transaction_id"] = transaction_id(task)
    shown["created"] = task.created_at_us // US_PER_SECOND  # seconds: chosen, after the number of digits in an example
    shown["updated"] = task.updated_at_us // US_PER_SECOND
    shown["model"] = task.model
    return shown


def transaction_id(task: Task) -> str:
    """A name for the settlement of the task's run, apart from the task's own id; the same at every look."""
    settled = task.task_id + task.run.number.to_bytes(4)
    return "txn_" + hashlib.blake2b(settled, digest_size=12, person=b"settlement").hexdigest()


def _identity(task: Task) -> dict[str, Any]:
    spelled = SPELLING.spell(task.task_id)
    # Clients join base and poll_url, so it never has the prefix that we may be mounted under; and it is the one status
    # route for images too (chosen: the vendor may give them another one).
    return {"id": spelled, "task_id": spelled, "poll_url": f"/v1/tasks/{spelled}"}


def _state(task: Task) -> dict[str, Any]:
    state: dict[str, Any] = {"status": STATUSES[task.status]}
    match task.status:
        case Status.CANCELLED:
            state |= {"cancelled": True, "cancellation_status": "cancelled", "error": CANCELLED_ERROR}
        case Status.EXPIRED:
            state["error"] = EXPIRED_ERROR
        case Status.FAILED if task.run.problem is not None:
            state["error"] = (task.run.problem.message or task.run.problem.code)[:ERROR_MAX_CHARS]
        case _:
            pass
    return state


def _outputs(task: Task) -> dict[str, Any]:
    """The assets of a completed task, each kind in its own fields."""
    output = task.run.output or {}
    assets = [asset for asset in output.get("assets", ()) if isinstance(asset, dict)]
    of_kind = {kind: [asset for asset in assets if asset.get("kind") == kind] for kind in _KINDS}
    shown: dict[str, Any] = {}
    if of_kind["image"]:
        shown["data"] = [_pick(asset, {"url": "url", "revised_prompt": "revised_prompt"}) for asset in of_kind["image"]]
    if of_kind["video"]:
        videos = [_pick(asset, _VIDEO) for asset in of_kind["video"]]
        shown |= _pick(videos[0], {"video_url": "url"}) | {"video": videos[0]}
        if len(videos) > 1:
            shown["videos"] = videos
    if of_kind["audio"]:
        shown |= _pick(of_kind["audio"][0], {"audio_url": "url"})
        shown |= _pick(output, {"title": "title", "lyrics": "lyrics"})
    if of_kind["model3d"]:
        shown |= _model_urls(of_kind["model3d"])
    return shown


_KINDS = ("image", "video", "audio", "model3d")
_VIDEO = {"url": "url", "duration": "duration_seconds", "width": "width", "height": "height"}


def _pick(source: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """The fields of *source* that have a value, each under the vendor's name for it."""
    return {theirs: source[ours] for theirs, ours in names.items() if source.get(ours) is not None}


def _model_urls(assets: list[dict[str, Any]]) -> dict[str, Any]:
    """``model_url`` is the first; the formats that have fields of their own get those too."""
    urls = _pick(assets[0], {"model_url": "url"})
    for asset in assets:
        path = str(asset.get("url")).partition("?")[0]
        for suffix in ("glb", "fbx"):
            if asset.get("format") == suffix or path.endswith(f".{suffix}"):
                urls |= _pick(asset, {f"{suffix}_url": "url"})
    return urls


def shown(_: Asked, told: Told) -> Answer:
    return json_answer(200, view(told.task))


def created(_: Asked, told: Told) -> Answer:
    """Exactly six keys (chosen: the vendor gives one id or the other).

    A replay is the first answer again, and its header says so.
    """
    task = told.task
    born = {"status": STATUSES[Status.QUEUED], "model": task.model, "created": task.created_at_us // US_PER_SECOND}
    return json_answer(200, _identity(task) | born, {"Idempotent-Replayed": "true"} if told.replayed else None)


def cancelled(_: Asked, told: Told) -> Answer:
    """Exactly the seven keys of the vendor's example (chosen: none is added)."""
    return json_answer(200, _identity(told.task) | _state(told.task))


def refuse(refusal: Refusal, refused: Refused) -> Answer:
    status, kind, code, message = REFUSALS[type(refusal)]
    if isinstance(refusal, TaskNotFound) and refusal.foreign and refused.method == "DELETE":
        status, kind, code, message = NOT_YOURS
    error: dict[str, Any] = {"message": message, "type": kind, "code": code}
    match refusal:
        case Invalid(reason=reason, param=param):
            error["message"] = f"{message} {reason}"
            if param is not None:
                error["param"] = param
        case UnknownModel():
            error["param"] = "model"
        case InsufficientCredits(available_micros=left, asked_micros=asked):  # a credit is a dollar (chosen)
            error |= {"balance_usd": _number(left), "estimated_cost_usd": _number(asked)}
        case _:
            pass
    if kind == SERVER:
        error["retryable"] = True
    return json_answer(status, {"error": error})


def _number(micros: int) -> msgspec.Raw:
    """The amount as a JSON number, written digit by digit: no float comes near it."""
    return msgspec.Raw(credits_text(micros).encode())


def called_back(task: Task, _: Fact) -> bytes:
    """The task as its query shows it (chosen, as all of it: the vendor has no callbacks, the gateway may want them)."""
    return msgspec.json.encode(view(task))


_read = by_path(SPELLING)

CONTRACT = Contract(
    name="lemondata",
    spelling=SPELLING,
    school=School.HOLD,
    roles=CLIENTS,
    operations=(
        Read("GET", "/v1/tasks/{id}", _read, shown),
        Cancel("DELETE", "/v1/tasks/{id}", lambda asked: Wish(_read(asked)), CANCEL, cancelled),
        Submit("POST", "/v1/videos/generations", create.video, created),
        Submit("POST", "/v1/images/generations", create.image, created),
        Submit("POST", "/v1/music/generations", create.music, created),  # chosen, as the next
        Submit("POST", "/v1/3d/generations", create.model3d, created),
        # Older routes of the single types, and the images' alias: the same shape.
        Read("GET", "/v1/videos/generations/{id}", _read, shown),
        Read("GET", "/v1/images/generations/{id}", _read, shown),
        Read("GET", "/v1/images/{id}", _read, shown),
        Read("GET", "/v1/music/generations/{id}", _read, shown),
        Read("GET", "/v1/3d/generations/{id}", _read, shown),
    ),
    token=bearer,
    gone=keep_for(RETENTION_US),
    refuse=refuse,
    takes_odd_queries=True,
    limits=x_rate_limit,  # chosen: an older copy of the docs has these headers
    telling=Telling(OUTCOMES, called_back, standard_webhooks),
)
