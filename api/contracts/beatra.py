"""beatra: cancel is best effort; a running task is asked to stop, and its worker confirms.

Source: beatra API reference, "Cancel a task (best-effort)", and the beatra documentation (docs.stratizon.cn).

======================== ============ ======================================================
ours                     ``status``   cancel
======================== ============ ======================================================
queued                   queued       202, ``canceled`` (one l)
running                  running      202, still ``running``, ``cancel_requested_at`` set
running, asked before    running      202, unchanged
completed                succeeded    200, final state
failed                   failed       200, final state
cancelled                canceled     200, final state
expired                  failed       200, final state; error code ``task_expired``
======================== ============ ======================================================

A replay under an ``Idempotency-Key`` gives the first answer's status and body again, folded from the log as of that
answer; it is never stored, so it cannot disagree with the log.
"""

from typing import Annotated, Any

import msgspec

from api.bodies import fingerprint, read_json
from api.contracts.shape import (
    CLIENTS,
    Answer,
    Asked,
    Cancel,
    Contract,
    Idempotency,
    Read,
    Refused,
    Told,
    Wish,
    bearer,
    by_path,
    json_answer,
    keep_for,
)
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
    UnknownModel,
)
from ledger.events import School
from ledger.ids import Spelling
from ledger.money import fixed_text, parse_credits, rounded
from ledger.task import TERMINAL, Callback, Status, Task
from ledger.times import US_PER_SECOND, rfc3339

SPELLING = Spelling.TSK_ULID

STATUSES = {
    Status.QUEUED: "queued",
    Status.RUNNING: "running",
    Status.COMPLETED: "succeeded",
    Status.FAILED: "failed",
    Status.CANCELLED: "canceled",
    Status.EXPIRED: "failed",
}
MESSAGES = {  # chosen, like `stage`: what progress says until a worker says something
    Status.QUEUED: "Waiting to start",
    Status.RUNNING: "Running",
    Status.COMPLETED: "Done",
    Status.FAILED: "Failed",
    Status.CANCELLED: "Canceled",
    Status.EXPIRED: "Expired before it finished",
}

CANCEL = CancelPolicy(queued=Effect.CANCEL, running=Effect.ASK, terminal=Effect.RETURN)

RETENTION_US = 30 * 86_400 * US_PER_SECOND  # chosen: the vendor names no number
KEY_WINDOW_US = 86_400 * US_PER_SECOND
KEY_MAX_CHARS = 255
DECIMALS = 4
CREDITS_PER_USD = 1000
METERS = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_creation_tokens",
    "reasoning_tokens",
    "image_count",
    "image_pixels",
    "video_seconds",
    "audio_seconds",
    "characters",
)

REFUSALS: dict[type[Refusal], tuple[int, str, str, bool]] = {  # HTTP, code, message, retryable; in precedence
    Unauthenticated: (401, "unauthorized", "Authorization header is missing.", False),
    WrongKey: (401, "invalid_api_key", "The API key is not valid.", False),
    RevokedKey: (401, "invalid_api_key", "The API key has been revoked.", False),
    Forbidden: (403, "forbidden", "The API key cannot be used here.", False),
    UnknownRoute: (404, "not_found", "No such route.", False),
    MethodNotAllowed: (405, "method_not_allowed", "Method not allowed.", False),
    TooLarge: (413, "payload_too_large", "The request body is too large.", False),
    Invalid: (422, "invalid_request", "The request is not valid.", False),
    TaskNotFound: (404, "task_not_found", "No such task.", False),
    # This contract's cancel refuses nothing that exists; a word for it all the same, should its policy change.
    CancelUnsupported: (422, "unsupported_option", "This task cannot be canceled.", False),
    NotCancellable: (409, "not_cancellable", "This task cannot be canceled.", False),
    UnknownModel: (400, "unsupported_model", "The model is not supported.", False),
    InsufficientCredits: (402, "insufficient_balance", "The balance does not cover this task.", False),
    RateLimited: (429, "rate_limited", "Too many requests.", True),
    KeyReused: (409, "idempotency_key_conflict", "The Idempotency-Key was used with another body.", False),
    Overloaded: (503, "internal_error", "The service is busy.", True),
    Unavailable: (503, "internal_error", "The service is temporarily unavailable.", True),
    Broken: (500, "internal_error", "Internal error.", True),
}


class CancelBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reason: Annotated[str, msgspec.Meta(max_length=500)] | None = None


def view(task: Task) -> dict[str, Any]:
    """The task envelope."""
    spelled = SPELLING.spell(task.task_id)
    run = task.run
    return {
        "object": "task",
        "task_id": spelled,
        "status": STATUSES[task.status],
        "capability": task.capability,
        "model": task.model,
        "resolved_model": task.resolved_model or task.model,
        "metadata": {name: _text(value) for name, value in task.metadata.items()},
        "input": run.input,
        "progress": _progress(task),
        "output": run.output if task.status is Status.COMPLETED else None,
        "warnings": [{"code": w.code, "message": w.message, "field": w.field} for w in run.warnings],
        "error": _error(task),
        "usage": _usage(task),
        "billing": _billing(task),
        "callback": None if task.callback is None else _callback(task.callback),
        "created_at": rfc3339(task.created_at_us),
        "started_at": _time(run.started_at_us),
        "completed_at": _time(run.finished_at_us),
        "cancel_requested_at": _time(run.cancel_requested_at_us),
        "links": {"self": f"/v1/tasks/{spelled}", "cancel": f"/v1/tasks/{spelled}/cancel"},
    }


def credits_fixed(micros: int) -> str:
    """Credits with exactly four decimals (chosen: the vendor shows prices so)."""
    return fixed_text(micros, decimals=DECIMALS)


def usd_fixed(micros: int) -> str:
    """The amount in US dollars at the pinned rate, with four decimals: for display only."""
    return fixed_text(rounded(micros, CREDITS_PER_USD * 100) // CREDITS_PER_USD, decimals=DECIMALS)


def _text(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _time(at_us: int | None) -> str | None:
    return None if at_us is None else rfc3339(at_us)


def _progress(task: Task) -> dict[str, Any]:
    run, status = task.run, STATUSES[task.status]
    over = task.status in TERMINAL
    if task.status is Status.CANCELLED and run.started_at_us is None:
        return {"percent": 0, "stage": status, "message": "Canceled before start"}
    return {
        "percent": run.percent or 0,
        "stage": status if over else run.stage or status,
        "message": MESSAGES[task.status] if over else run.message or MESSAGES[task.status],
    }


def _error(task: Task) -> dict[str, Any] | None:
    if task.status is Status.EXPIRED:
        return {"code": "task_expired", "message": "The task expired before it finished.", "retryable": True}
    problem = task.run.problem
    if problem is None:
        return None
    return {"code": problem.code, "message": problem.message, "retryable": problem.retryable}


def _usage(task: Task) -> dict[str, Any] | None:
    """Meters as the worker reported them, and what the customer paid in the end (chosen: the net)."""
    usage = task.run.usage
    if usage is None:
        return None
    return {
        **{meter: usage.get(meter, 0) for meter in METERS},
        "lines": [_line(line) for line in usage.get("lines", ())],
        "credits": credits_fixed(task.net_micros),
        "credits_usd_reference": usd_fixed(task.net_micros),
    }


def _line(line: dict[str, Any]) -> dict[str, Any]:
    billed_micros = parse_credits(line["billed_amount_credits"])
    assert billed_micros is not None, "checked when it was reported"
    return {
        "meter": line["meter"],
        "quantity": line["quantity"],
        "unit": line["unit"],
        "billed_amount_credits": credits_fixed(billed_micros),
        "billed_amount_credits_usd_reference": usd_fixed(billed_micros),
    }


def _billing(task: Task) -> dict[str, Any]:
    return {
        "charged_credits": credits_fixed(task.charged_micros),
        "refunded_credits": credits_fixed(task.refunded_micros),
        "charged_credits_usd_reference": usd_fixed(task.charged_micros),
        "refunded_credits_usd_reference": usd_fixed(task.refunded_micros),
        "currency": "USD",
    }


def _callback(callback: Callback) -> dict[str, Any]:
    failed = callback.attempts > 0 and callback.delivered_at_us is None
    return {
        "url": callback.url,
        "status": "delivered" if callback.delivered_at_us is not None else "failed" if failed else "pending",
        "attempt_count": callback.attempts,
        "delivered_at": _time(callback.delivered_at_us),
        "last_error": callback.last_error,
    }


def shown(_: Asked, told: Told) -> Answer:
    return json_answer(200, view(told.task))


def wish(asked: Asked) -> Wish:
    """The cancel in the request. No body, an empty one and ``{}`` are equal (chosen).

    Raises:
        Invalid: the body is not of this shape, or the key is not 1 to 255 characters.
    """
    body = read_json(asked.body, CancelBody) if asked.body.strip() else CancelBody()
    key = asked.headers.get("Idempotency-Key")
    if key is None:
        return Wish(_read(asked), body.reason)
    if not 1 <= len(key) <= KEY_MAX_CHARS:
        raise Invalid(f"Idempotency-Key must be 1 to {KEY_MAX_CHARS} characters.", param="/Idempotency-Key")
    # The key's scope is tenant, method and path; the fingerprint is the body's (chosen).
    idempotency = Idempotency(
        operation=f"beatra POST /v1/tasks/{asked.params['id']}/cancel",
        key=key,
        fingerprint=fingerprint(body.reason),
        window_us=KEY_WINDOW_US,
    )
    return Wish(_read(asked), body.reason, idempotency)


def cancelled(_: Asked, told: Told) -> Answer:
    """200 when the task was over before; else 202: taken, and perhaps not done yet."""
    was_over = told.task.status in TERMINAL and not told.appended
    replayed = {"Idempotent-Replayed": "true"} if told.replayed else None
    return json_answer(200 if was_over else 202, view(told.task), replayed)


def refuse(refusal: Refusal, refused: Refused) -> Answer:
    status, code, text, retryable = REFUSALS[type(refusal)]
    error: dict[str, Any] = {"code": code, "message": text, "retryable": retryable, "request_id": refused.request_id}
    if isinstance(refusal, Invalid):
        error["message"] = refusal.reason
        if refusal.param is not None:
            error["param"] = refusal.param if refusal.param.startswith("/") else f"/{refusal.param.replace('.', '/')}"
        error["details"] = {"errors": [{"message": refusal.reason}]}
    return json_answer(status, {"error": error})


_read = by_path(SPELLING)

CONTRACT = Contract(
    name="beatra",
    spelling=SPELLING,
    school=School.PREPAID,
    roles=CLIENTS,
    operations=(
        Read("GET", "/v1/tasks/{id}", _read, shown),
        Cancel("POST", "/v1/tasks/{id}/cancel", wish, CANCEL, cancelled),
    ),
    token=bearer,
    gone=keep_for(RETENTION_US),
    refuse=refuse,
)
