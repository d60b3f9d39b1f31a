"""The native API's word for every refusal, as problem details (RFC 9457). Pure."""

from typing import Any, NamedTuple

from api.bookkeeper import BooksUnavailable
from api.callbacks import CallbacksUnavailable
from api.contracts.shape import Answer, Refused, json_answer
from api.native_feed import WrongCursor
from api.native_shapes import credits_or_none
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
from ledger.errors import (
    AlreadyStarted,
    AmountExceeds,
    BreakClosed,
    CancelNotRequested,
    CancelUnsupported,
    DeadlinePassed,
    InsufficientCredits,
    KeyReused,
    NotCancellable,
    NotDeletable,
    NotEnded,
    NotReplaceable,
    NotUpdatable,
    Overloaded,
    Refusal,
    StatementSuperseded,
    TaskNotFound,
    TooManyTasks,
    UnknownBreak,
    UnknownCallback,
    UnknownKey,
    UnknownModel,
    UnknownProvider,
    UpdateUnchanged,
    WrongVersion,
)
from ledger.ids import Spelling
from ledger.money import credits_text


class Problem(NamedTuple):
    """What a refusal is called here."""

    status: int
    code: str
    title: str


REFUSALS: dict[type[Refusal], Problem] = {  # in order of precedence
    Unauthenticated: Problem(401, "unauthenticated", "No API key was shown"),
    WrongKey: Problem(401, "invalid_api_key", "The API key opens nothing"),
    RevokedKey: Problem(401, "revoked_api_key", "The API key has been revoked"),
    Forbidden: Problem(403, "forbidden", "The API key's role may not do this"),
    UnknownRoute: Problem(404, "not_found", "Nothing is served here"),
    MethodNotAllowed: Problem(405, "method_not_allowed", "Not with this method"),
    TooLarge: Problem(413, "body_too_large", "The body is too large"),
    WrongCursor: Problem(400, "wrong_cursor", "The cursor is not one of this log"),
    Invalid: Problem(422, "invalid_request", "The request cannot be read"),
    TaskNotFound: Problem(404, "task_not_found", "No such task"),
    NotEnded: Problem(409, "not_ended", "The task that it is to follow has not ended"),
    UnknownModel: Problem(422, "unknown_model", "The catalogue has no such model, and the request names no price"),
    DeadlinePassed: Problem(422, "invalid_request", "The request cannot be read"),
    TooManyTasks: Problem(429, "concurrency_limit", "The account has too many tasks under way"),
    InsufficientCredits: Problem(402, "insufficient_credits", "The account cannot bear this task"),
    RateLimited: Problem(429, "rate_limited", "Too many requests"),
    UnknownKey: Problem(404, "key_not_found", "No such live key"),
    UnknownCallback: Problem(404, "callback_not_found", "No such callback"),
    UnknownBreak: Problem(404, "break_not_found", "No such break"),
    BreakClosed: Problem(409, "break_closed", "The break has been corrected"),
    UnknownProvider: Problem(422, "unknown_provider", "Nobody knows this provider: new_provider=true takes a new one"),
    StatementSuperseded: Problem(409, "statement_replaced", "The statement has been replaced"),
    NotReplaceable: Problem(409, "not_replaceable", "The statement cannot be replaced by this one"),
    WrongVersion: Problem(412, "wrong_version", "The task has moved on"),
    KeyReused: Problem(422, "idempotency_key_reused", "The key was used for another request"),
    AmountExceeds: Problem(422, "amount_exceeds", "More than there is to charge or give back"),
    AlreadyStarted: Problem(409, "already_started", "Another worker has this task"),
    CancelNotRequested: Problem(409, "cancel_not_requested", "Nobody asked to cancel this task"),
    CancelUnsupported: Problem(409, "cancel_unsupported", "The provider cannot cancel this task"),
    NotCancellable: Problem(409, "not_cancellable", "The task cannot be cancelled"),
    NotUpdatable: Problem(409, "not_updatable", "The task cannot be updated"),
    UpdateUnchanged: Problem(409, "update_unchanged", "The configuration is unchanged"),
    NotDeletable: Problem(409, "not_deletable", "The task cannot be deleted"),
    Overloaded: Problem(503, "overloaded", "There is no room for more just now"),
    Unavailable: Problem(503, "store_unavailable", "The store did not take the request; nothing was written"),
    BooksUnavailable: Problem(503, "books_unavailable", "The books cannot be kept just now; all else goes on"),
    CallbacksUnavailable: Problem(503, "callbacks_unavailable", "The queue of callbacks cannot be kept just now"),
    Broken: Problem(500, "internal_error", "We are at fault"),
}


def refuse(refusal: Refusal, refused: Refused) -> Answer:
    """`Contract.refuse` of the native API."""
    body = problem_of(refusal, refused.request_id)
    return json_answer(body["status"], body)._replace(content_type="application/problem+json")


def problem_of(refusal: Refusal, request_id: str) -> dict[str, Any]:
    """The refusal as problem details, with the facts that it carries. The type is a stable name, not an address."""
    problem = REFUSALS[type(refusal)]
    return {
        "type": f"urn:task-ledger:problem:{problem.code.replace('_', '-')}",
        "title": problem.title,
        "status": problem.status,
        "detail": str(refusal) or problem.title,
        "code": problem.code,
        "request_id": request_id,
        **_facts(refusal),
    }


def _facts(refusal: Refusal) -> dict[str, Any]:
    match refusal:
        case Invalid(param=str(param)):
            return {"param": param}
        case DeadlinePassed():
            return {"param": "expires_at"}
        case NotEnded():
            return {"param": "follows"}
        case WrongVersion(actual=actual):
            return {"version": actual}
        case AmountExceeds(asked_micros=asked, left_micros=left, settled_by=keys):
            return {"asked_credits": credits_text(asked), "left_credits": credits_text(left), "settled_by": keys}
        case TooManyTasks(live_tasks=live, tasks_max=most, position=position):
            return {"live_tasks": live, "tasks_max": most, "position": position}
        case InsufficientCredits():
            return _shortage(refusal)
        case KeyReused(fingerprint=first, amount_micros=amount, task=task):
            before = {"fingerprint": first} if amount is None else {"amount_credits": credits_text(amount)}
            return {**before, "task": None if task is None else Spelling.UUID.spell(task)}
        case _:
            return {}


def _shortage(refusal: InsufficientCredits) -> dict[str, Any]:
    """The figures by which new work was refused, and where in the log they stood."""
    return {
        "asked_credits": credits_text(refusal.asked_micros),
        "available_credits": credits_text(refusal.available_micros),
        "limit_credits": credits_or_none(refusal.limit_micros),
        "granted_credits": credits_or_none(refusal.granted_micros),
        "exposure_credits": credits_text(refusal.exposure_micros),
        "position": refusal.position,
    }
