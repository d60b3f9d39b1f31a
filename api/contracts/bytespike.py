"""ByteSpike: a cancel never conflicts; 200 means that the task is no longer in flight.

Source: ByteSpike docs, "Cancel task" and the tasks API (docs.bytespike.ai).

=========== ============ ============================================ =====================================
ours        ``status``   beside it                                    cancel
=========== ============ ============================================ =====================================
queued      pending      ``estimated_credits``, ``estimated_seconds`` 200 cancelled, nothing charged
running     running      the same                                     200 cancelled at once; ``credits_used``
                                                                      past the point of no return
completed   completed    ``credits_used``, ``output``                 200, as it stands
failed      failed       ``error``                                    200, as it stands
cancelled   cancelled    the estimates, ``credits_used`` if charged   200, the same bytes
expired     failed       ``error`` with code ``task_expired``         200, as it stands
=========== ============ ============================================ =====================================

A submit is answered at once with 200 and the task as pending (chosen). Its ``out_task_id`` is an idempotency key of the
account for as long as the log has the task, whatever becomes of it, and longer than a query finds it (chosen): the same
model and params get the first answer again, others 409. Where the docs list ``duplicate_out_task_id`` under both 400
and 409, we say 409.

``X-Quota-Remaining-Credits`` is with every answer to a key that opens, unless its account is unlimited: then there is
no number to tell, and the line is left out (chosen).

Exactly one of ``task_id`` and ``out_task_id`` names the task; an id in the path beats a ``task_id`` in the body, and
beside an ``out_task_id`` there makes two (chosen). Amounts are of the size of dollars, as in the examples, where the
docs also count a million credits to the dollar (chosen). A terminal task shows its ``out_task_id`` too (chosen), and no
estimates unless it was cancelled; the fields of a failure are chosen. "Another API key" is another account's. What
tasks have cost is in ``bytespike_usage``, callbacks and webhooks are in ``bytespike_webhooks``.

Of the stream only the route is public; all else is chosen. It sends one ``status`` event for each change of what a
query shows, the current state first, with the body of a query as its data, and ends after a terminal one. What a slow
reader has not taken is left out in favour of the state after it. After 15 seconds without a change it sends a comment,
and in a comment it says why it ends before its time.

How many tasks an account may have under way is its tier's (Free 5, Pro 25, Max 100, Enterprise as agreed): a submit
beyond that is a 429 ``concurrency_limit``, with ``Retry-After`` (chosen, as its message).
"""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from api import sse
from api.bodies import fingerprint, read_json, read_json_or, url_in
from api.contracts import bytespike_usage as usage
from api.contracts import bytespike_webhooks as webhooks
from api.contracts.shape import (
    CLIENTS,
    CONTENT_MAX_BYTES,
    OUT_TASK_ID,
    Answer,
    Asked,
    Balance,
    Browse,
    ByKey,
    ByTask,
    Cancel,
    Contract,
    Follow,
    Idempotency,
    Order,
    Read,
    Refused,
    Submit,
    Target,
    Told,
    Wish,
    bearer,
    by_path,
    json_answer,
    keep_for,
    x_rate_limit,
)
from api.contracts.telling import OUTCOMES, Fact, Telling
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
from ledger.catalogue import Catalogue
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
    TooManyWebhooks,
    UnknownModel,
    UnknownWebhook,
)
from ledger.events import School
from ledger.ids import Digits, Spelling
from ledger.money import credits_text
from ledger.records import AccountRow
from ledger.task import LIVE, Status, Task
from ledger.times import US_PER_DAY, US_PER_SECOND

SPELLING = Spelling("task_", Digits.ULID)

STATUSES = {
    Status.QUEUED: "pending",
    Status.RUNNING: "running",
    Status.COMPLETED: "completed",
    Status.FAILED: "failed",
    Status.CANCELLED: "cancelled",
    Status.EXPIRED: "failed",  # chosen: with the error code task_expired
}

CANCEL = CancelPolicy(queued=Effect.CANCEL, running=Effect.CANCEL, terminal=Effect.RETURN)

RETENTION_US = 30 * US_PER_DAY  # chosen: the vendor names no number

REQUEST, SERVER = "invalid_request_error", "api_error"  # chosen, as all types below: the vendor's are not all public
REFUSALS: dict[type[Refusal], tuple[int, str, str, str]] = {  # HTTP, type, code, message; in order of precedence
    Unauthenticated: (401, "authentication_error", "invalid_api_key", "Missing API key."),
    WrongKey: (401, "authentication_error", "invalid_api_key", "Invalid API key."),
    RevokedKey: (401, "authentication_error", "invalid_api_key", "This API key has been revoked."),
    Forbidden: (403, "permission_error", "permission_denied", "This API key cannot be used here."),
    UnknownRoute: (404, "not_found_error", "not_found", "No such route."),
    MethodNotAllowed: (405, REQUEST, "method_not_allowed", "Method not allowed."),
    TooLarge: (413, "request_too_large", "request_too_large", "Task bodies are capped at 1 MiB."),
    Invalid: (400, REQUEST, "invalid_param", "Invalid request."),
    TaskNotFound: (404, "not_found_error", "task_not_found", "No task matches."),
    # This contract's cancel refuses nothing that exists; a word for it all the same, should its policy change.
    CancelUnsupported: (400, REQUEST, "invalid_param", "This task cannot be cancelled."),
    NotCancellable: (400, REQUEST, "invalid_param", "This task cannot be cancelled."),
    UnknownWebhook: (404, "not_found_error", "webhook_not_found", "No webhook matches."),  # chosen, as the next
    TooManyWebhooks: (409, REQUEST, "too_many_webhooks", "This account has as many webhooks as it may."),
    UnknownModel: (400, REQUEST, "model_not_found", "Unknown model."),
    TooManyTasks: (429, "rate_limit_error", "concurrency_limit", "Too many tasks in flight."),
    InsufficientCredits: (402, "insufficient_quota", "insufficient_balance", "Insufficient balance."),
    RateLimited: (429, "rate_limit_error", "rate_limit_exceeded", "Rate limit exceeded."),
    KeyReused: (409, REQUEST, "duplicate_out_task_id", "This out_task_id was used for another request."),
    Overloaded: (503, SERVER, "internal_error", "The service is busy; retry with backoff."),
    Unavailable: (503, SERVER, "internal_error", "The service is temporarily unavailable; retry with backoff."),
    Broken: (500, SERVER, "internal_error", "Internal error."),
}


PARAMS: dict[type[Refusal], str] = {UnknownModel: "model", KeyReused: "out_task_id"}  # chosen
"""The field at fault, where the refusal alone tells."""

MEDIA = ("image", "video")
"""What a capability ends in whose models take tasks."""

OutTaskId = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
"""1 to 128 printable characters (chosen)."""


class SubmitBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body that orders a task."""

    model: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    params: dict[str, Any]
    out_task_id: OutTaskId | None = None
    callback_url: Annotated[str, msgspec.Meta(max_length=2048)] | None = None
    stream: bool | None = None
    """Reserved by the vendor, without effect."""


class Ids(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body that names a task."""

    task_id: str | None = None
    out_task_id: OutTaskId | None = None


def view(task: Task) -> dict[str, Any]:
    """The task as query and cancel show it. Money is a JSON number, written digit by digit."""
    shown: dict[str, Any] = {"task_id": SPELLING.spell(task.task_id)}
    if task.out_task_id is not None:
        shown["out_task_id"] = task.out_task_id
    shown["status"] = STATUSES[task.status]
    if task.status in LIVE or task.status is Status.CANCELLED:
        shown["estimated_credits"] = _number(task.terms.estimated_micros)
        if task.estimated_seconds is not None:
            shown["estimated_seconds"] = task.estimated_seconds
    if task.net_micros > 0:
        shown["credits_used"] = _number(task.net_micros)
    match task.status:
        case Status.COMPLETED:
            shown["output"] = _output(task)
        case Status.FAILED if task.run.problem is not None:
            shown["error"] = {"code": task.run.problem.code, "message": task.run.problem.message}
        case Status.EXPIRED:
            shown["error"] = {"code": "task_expired", "message": "The task expired before it finished."}
        case _:
            pass
    return shown


def _number(micros: int) -> msgspec.Raw:
    return msgspec.Raw(credits_text(micros).encode())


def _output(task: Task) -> list[dict[str, Any]]:
    assets = (task.run.output or {}).get("assets", ())
    return [
        {"type": asset.get("kind"), **{name: value for name, value in asset.items() if name not in {"kind", "type"}}}
        for asset in assets
        if isinstance(asset, dict)
    ]


def target(asked: Asked) -> Target:
    """The task that path and body name.

    Raises:
        Invalid: they name two, or none, or the body is no JSON object of this shape.
    """
    ids = read_json_or(asked.body, Ids())
    task_id = asked.params.get("id", ids.task_id)
    if (task_id is None) == (ids.out_task_id is None):
        raise Invalid("Exactly one of task_id and out_task_id is required.", param="task_id")
    if task_id is not None:
        return ByTask(SPELLING.parse(task_id))
    assert ids.out_task_id is not None
    return ByKey(OUT_TASK_ID, _printable(ids.out_task_id))


def _printable(out_task_id: str) -> str:
    if not out_task_id.isprintable():
        raise Invalid("out_task_id must be printable.", param="out_task_id")
    return out_task_id


def order(catalogue: Catalogue, asked: Asked) -> Order:
    """What is ordered. The key covers model and params, not ``callback_url`` and ``stream`` (chosen).

    Raises:
        Invalid: the body is not of this shape, or the model makes neither images nor videos.
    """
    body = read_json(asked.body, SubmitBody)
    keys: tuple[Idempotency, ...] = ()
    if body.out_task_id is not None:
        same = fingerprint(body.model, body.params)
        keys = (Idempotency(OUT_TASK_ID, _printable(body.out_task_id), same, window_us=None),)
    model = catalogue.find("bytespike", body.model)
    if model is not None and not model.capability.endswith(MEDIA):
        raise Invalid("Only image and video models take tasks.", param="model")
    return Order(
        model=body.model,
        input=body.params,
        metadata={},
        out_task_id=body.out_task_id,
        callback_url=url_in(body.callback_url, "callback_url"),
        keys=keys,
    )


def shown(_: Asked, told: Told) -> Answer:
    return json_answer(200, view(told.task))


def frame(task: Task) -> bytes:
    return sse.event(msgspec.json.encode(view(task)), name="status")


def farewell(why: str) -> bytes:
    return sse.comment(f"closed: {why}")


def refuse(refusal: Refusal, _: Refused) -> Answer:
    status, kind, code, message = REFUSALS[type(refusal)]
    param = PARAMS.get(type(refusal))
    if isinstance(refusal, Invalid):
        message, param = refusal.reason, refusal.param
    return json_answer(status, {"error": {"message": message, "type": kind, "code": code, "param": param}})


def balance(row: AccountRow) -> Answer:
    """What the account may spend. The shape is chosen: the vendor's is not public. Null: there is no such bound."""
    limit, granted = row.limit_micros, row.granted_micros
    body = {
        "remaining_credits": None if row.unlimited else _number(row.available_micros),
        "limit_credits": None if limit is None else _number(limit),
        "granted_credits": None if granted is None else _number(granted),
        "held_credits": _number(row.held_micros),
        "used_credits": _number(row.charged_micros - row.refunded_micros),
    }
    return json_answer(200, body)


def quota(row: AccountRow) -> bytes:
    """Credits of the size of a dollar, as everywhere here: the docs call the header both (chosen)."""
    return b"X-Quota-Remaining-Credits: %b\r\n" % credits_text(row.available_micros).encode("ascii")


def token(headers: Mapping[str, str]) -> str | None:
    """``x-api-key`` is documented for submit; we take it on every route (chosen)."""
    return bearer(headers) or headers.get("x-api-key")


def called_back(task: Task, _: Fact) -> bytes:
    return msgspec.json.encode(view(task))


def hooked(task: Task, fact: Fact) -> bytes:
    told = {"id": fact.callback_id, "event": webhooks.EVENTS[fact.type], "created": fact.at_us // US_PER_SECOND}
    return msgspec.json.encode(told | {"data": view(task)})


def _wish(asked: Asked) -> Wish:
    return Wish(target(asked))


CONTRACT = Contract(
    name="bytespike",
    spelling=SPELLING,
    school=School.HOLD,
    roles=CLIENTS,
    operations=(
        Submit("POST", "/v1/tasks/submit", order, shown, CONTENT_MAX_BYTES),
        Read("POST", "/v1/tasks/query", target, shown, CONTENT_MAX_BYTES),
        Follow("GET", "/v1/tasks/stream/{id}", by_path(SPELLING), frame, farewell),
        Cancel("POST", "/v1/tasks/cancel/{id}", _wish, CANCEL, shown, CONTENT_MAX_BYTES),
        Cancel("POST", "/v1/tasks/cancel", _wish, CANCEL, shown, CONTENT_MAX_BYTES),
        Balance("GET", "/v1/balance", balance),
        Browse("GET", "/v1/usage", usage.wanted, usage.listed(view)),
        Browse("GET", "/api/v1/usage", usage.wanted, usage.listed(view)),
        *webhooks.ROUTES,
    ),
    token=token,
    gone=keep_for(RETENTION_US),
    refuse=refuse,
    limits=x_rate_limit,  # chosen: of requests; the vendor counts dollars of a spend bucket
    quota=quota,
    telling=Telling(OUTCOMES, called_back, webhooks.of_task, webhooks.DELAYS_SECONDS),
    webhooks=Telling(webhooks.EVENTS, hooked, webhooks.of_account),
    key_headers=("Authorization", "x-api-key"),
)
