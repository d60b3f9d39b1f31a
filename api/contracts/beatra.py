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

Creates are in ``beatra_orders``, the list in ``beatra_list``, and the envelope that all of them show in
``beatra_envelope``.

A replay under an ``Idempotency-Key`` gives the first answer's status and body again, folded from the log as of that
answer; it is never stored, so it cannot disagree with the log. A refusal takes no key (chosen). What comes under a key
before the first answer is there waits for it and is given it, so nobody meets ``idempotency_in_progress``.

Where the convention page says 400 for a body that cannot be read and the code table 422, we say 422; where the general
page says 409 for a cancel of what is over and the cancel's own page 200, we say 200. The codes of 404, 405, 409, 413
and 503 are chosen, as are the 202 of a cancel that is taken and its body.
"""

from typing import Annotated, Any

import msgspec

from api.bodies import read_json_or
from api.contracts.beatra_envelope import SPELLING, STATUSES, credits_fixed, view
from api.contracts.beatra_list import LIST
from api.contracts.beatra_orders import CREATES, UnsupportedCapability, UnsupportedOption, keyed, replayed
from api.contracts.shape import (
    CLIENTS,
    Answer,
    Asked,
    Cancel,
    Contract,
    Read,
    Refused,
    Told,
    Wish,
    bearer,
    by_path,
    json_answer,
    keep_for,
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
from ledger.task import TERMINAL, Task
from ledger.times import US_PER_DAY

__all__ = ["CONTRACT", "REFUSALS", "STATUSES"]

CANCEL = CancelPolicy(queued=Effect.CANCEL, running=Effect.ASK, terminal=Effect.RETURN)

RETENTION_US = 30 * US_PER_DAY  # chosen: the vendor names no number

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
    UnsupportedCapability: (400, "unsupported_capability", "The model does not have this capability.", False),
    UnsupportedOption: (422, "unsupported_option", "The model does not take this option.", False),
    TooManyTasks: (429, "rate_limited", "Too many tasks in flight.", True),  # the vendor is silent on tasks at once
    InsufficientCredits: (402, "insufficient_balance", "The balance does not cover this task.", False),
    RateLimited: (429, "rate_limited", "Too many requests.", True),
    KeyReused: (409, "idempotency_key_conflict", "The Idempotency-Key was used with another body.", False),
    Overloaded: (503, "internal_error", "The service is busy.", True),
    Unavailable: (503, "internal_error", "The service is temporarily unavailable.", True),
    Broken: (500, "internal_error", "Internal error.", True),
}


class CancelBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reason: Annotated[str, msgspec.Meta(max_length=500)] | None = None


def shown(_: Asked, told: Told) -> Answer:
    return json_answer(200, view(told.task))


def wish(asked: Asked) -> Wish:
    """The cancel in the request. No body, an empty one and ``{}`` are equal (chosen).

    Raises:
        Invalid: the body is not of this shape, or the key is not 1 to 255 characters.
    """
    body = read_json_or(asked.body, CancelBody())
    # The fingerprint is the body's (chosen).
    return Wish(_read(asked), body.reason, keyed(asked, f"/v1/tasks/{asked.params['id']}/cancel", body.reason))


def cancelled(_: Asked, told: Told) -> Answer:
    """200 when the task was over before; else 202: taken, and perhaps not done yet."""
    was_over = told.task.status in TERMINAL and not told.appended
    return json_answer(200 if was_over else 202, view(told.task), replayed(told))


def refuse(refusal: Refusal, refused: Refused) -> Answer:
    status, code, text, retryable = REFUSALS[type(refusal)]
    error: dict[str, Any] = {"code": code, "message": text, "retryable": retryable, "request_id": refused.request_id}
    match refusal:
        case Invalid(reason=reason, param=param):
            error["message"] = reason
            if param is not None:
                error["param"] = _pointer(param)
            error["details"] = {"errors": [{"message": reason}]}
        case UnsupportedOption(fields=fields):
            error["param"] = _pointer(fields[0])
            error["details"] = {"unsupported_fields": fields}
        case InsufficientCredits(available_micros=available, asked_micros=asked):  # the names are chosen
            error["details"] = {"balance_credits": credits_fixed(available), "required_credits": credits_fixed(asked)}
        case UnknownModel() | UnsupportedCapability():
            error["param"] = "/model"
        case _:
            pass
    return json_answer(status, {"error": error})


def _pointer(param: str) -> str:
    """The field as a JSON Pointer: of a path such as ``a.b[3].c``, in which ``[...]`` is any member."""
    if param.startswith("/"):
        return param
    steps = param.replace("[...]", "").replace("[", ".").replace("]", "")
    return "/" + steps.replace(".", "/")


def called_back(task: Task, _: Fact) -> bytes:
    """The envelope (chosen, as the signature: of callbacks the vendor shows but the object that tells of them)."""
    return msgspec.json.encode(view(task))


_read = by_path(SPELLING)

CONTRACT = Contract(
    name="beatra",
    spelling=SPELLING,
    school=School.PREPAID,
    roles=CLIENTS,
    operations=(
        *CREATES,
        LIST,
        Read("GET", "/v1/tasks/{id}", _read, shown),
        Cancel("POST", "/v1/tasks/{id}/cancel", wish, CANCEL, cancelled),
    ),
    token=bearer,
    gone=keep_for(RETENTION_US),
    refuse=refuse,
    telling=Telling(OUTCOMES, called_back, standard_webhooks),
)
