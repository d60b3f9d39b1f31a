"""The native API, ``/ledger/v1``: workers create and report, operators read, cancel, and see to keys and accounts.

Errors are problem details (RFC 9457). A write answers with the task at or after its own change.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from api.bodies import read_json
from api.bookkeeper import BooksUnavailable
from api.callbacks import CallbacksUnavailable
from api.contracts import CONTRACTS, parse_any
from api.contracts.shape import Act, Answer, Asked, Contract, Refused, bearer, json_answer
from api.deps import Deps
from api.following import await_task
from api.metrics import metrics
from api.native_accounts import ACCOUNT_ROUTES
from api.native_batch import BATCH_MAX_BYTES, report_many
from api.native_billing import summary
from api.native_bodies import (
    CancelBody,
    CreateBody,
    KeyBody,
    RotateBody,
    contract_in,
    create_claims,
    credits_in,
    if_match,
    report_in,
    time_in,
)
from api.native_breaks import STATEMENT_MAX_BYTES, breaks, change_break, reconcile, reconciliation, statement
from api.native_callbacks import CALLBACK_ROUTES, callback_in
from api.native_feed import WrongCursor, events
from api.native_follows import followed_in
from api.native_list import list_tasks
from api.native_queries import moment_in, wait_in
from api.native_shapes import ROOT, Problem, event_view, key_view, problem_view, shortage_view, task_view
from api.native_tags import etag, has_seen, news
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
from ledger.commands import CancelPolicy, Charge, Create, Effect, Refund, RequestCancel
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
    NotUpdatable,
    Overloaded,
    Refusal,
    TaskNotFound,
    TooManyTasks,
    UnknownBreak,
    UnknownCallback,
    UnknownKey,
    UnknownModel,
    UpdateUnchanged,
    WrongVersion,
)
from ledger.events import School, Terms
from ledger.ids import ENTROPY_BYTES, Spelling, TaskId, born_us, task_id
from ledger.keys import Role
from ledger.money import credits_text
from ledger.task import Status
from ledger.times import US_PER_SECOND
from projections.then import Moment, task_then

CANCEL = CancelPolicy(queued=Effect.CANCEL, running=Effect.ASK, terminal=Effect.RETURN)
"""The operator's row of the cancel table."""

CREATE_MAX_BYTES = 1024 * 1024

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


async def create(deps: Deps, asked: Asked) -> Answer:
    body = read_json(asked.body, CreateBody)
    contract_in(body.contract, CONTRACTS)
    callback_url = callback_in(deps, body)
    expires_at_us = time_in(body.expires_at, "expires_at")
    follows = followed_in(body.follows)
    born_at_us = asked.now_us if follows is None else max(asked.now_us, born_us(follows))  # whatever the clock did
    model = deps.catalogue.find(body.contract, body.model)
    command = Create(
        task_id=task_id(at_us=born_at_us, lane=0, entropy=deps.entropy(ENTROPY_BYTES)),
        at_us=asked.now_us,
        actor=asked.key_id,
        request_id=asked.request_id,
        claims=deps.ledger.keys.keyed(create_claims(asked, body)),
        tasks_max=deps.limits.tasks_max(body.account),
        account=body.account,
        contract=body.contract,
        capability=body.capability or (model.capability if model else "unknown"),
        model=body.model,
        resolved_model=model.resolves_to if model else None,
        provider=model.provider if model else "unknown",
        terms=_terms(deps, body),
        input=body.input,
        metadata=body.metadata,
        estimated_seconds=_first(body.estimated_seconds, model.estimated_seconds if model else None),
        out_task_id=body.out_task_id,
        callback_url=callback_url,
        expires_at_us=expires_at_us,
        follows=follows,
    )
    outcome = await deps.ledger.handle(command)
    if outcome.replayed:
        return await _current(deps, outcome.task.task_id, status=200, headers={"Idempotent-Replayed": "true"})
    view = task_view(outcome.task, position=outcome.position, log_id=deps.ledger.engine.log_id)
    headers = {"ETag": etag(outcome.task), "Location": f"{ROOT}/tasks/{Spelling.UUID.spell(outcome.task.task_id)}"}
    return json_answer(201, view, headers)


def _terms(deps: Deps, body: CreateBody) -> Terms | None:
    """The catalogue's terms; for a model that it does not have, the contract's school at the price given, if any."""
    estimated_micros = credits_in(body.estimated_credits, "estimated_credits")
    terms = deps.catalogue.terms.get((body.contract, body.model))
    if terms is not None:
        return terms if estimated_micros is None else replace(terms, estimated_micros=estimated_micros)
    if estimated_micros is None:
        return None
    return Terms(
        school=CONTRACTS[body.contract].school,
        rate_version=deps.catalogue.version,
        estimated_micros=estimated_micros,
        cancellable=False,
    )


def _first(mine: int | None, otherwise: int | None) -> int | None:
    return otherwise if mine is None else mine


async def read(deps: Deps, asked: Asked) -> Answer:
    """The task as it stands, or 304; with ``wait`` once there is `news` of it, or when that time is over.

    With ``at`` it is the task as it stood.
    """
    task = _task(asked)
    seconds, moment = (
        wait_in(asked, most=deps.stays.limits.wait_max_seconds),
        await moment_in(deps, asked, of_now="wait"),
    )
    if moment is not None:
        return await _stood(deps, task, moment)
    if seconds:
        await await_task(deps, asked, task, seconds=seconds, is_news=news(asked))
    seen = await deps.ledger.task(task, account=None)
    if has_seen(asked, seen.task):
        return Answer(304, b"", headers={"ETag": etag(seen.task)})
    return await _current(deps, task, status=200)


async def _stood(deps: Deps, task: TaskId, moment: Moment) -> Answer:
    one = await task_then(deps.ledger.engine, task, moment)
    if one is None:
        raise TaskNotFound
    view = task_view(one.task, position=one.position, log_id=deps.ledger.engine.log_id)
    return json_answer(200, view, {"ETag": etag(one.task)})


async def report(deps: Deps, asked: Asked) -> Answer:
    """Take what a worker reports. Its answer tells the worker whether a cancel has been asked for."""
    task = _task(asked)
    try:
        command = report_in(asked, task)
    except Invalid as wrong:
        deps.ledger.unread.note(task, wrong.reason, at_us=asked.now_us)
        raise
    if command.claims:
        command = replace(command, claims=deps.ledger.keys.keyed(command.claims))
    outcome = await deps.ledger.handle(command)
    if outcome.replayed:
        return await _current(deps, outcome.task.task_id, status=200, headers={"Idempotent-Replayed": "true"})
    view = task_view(outcome.task, position=outcome.position, log_id=deps.ledger.engine.log_id)
    if outcome.late:
        view["late"] = True
    headers = {"ETag": etag(outcome.task)}
    if isinstance(command, Charge | Refund) and not outcome.appended:
        headers["Idempotent-Replayed"] = "true"  # its own key has moved this money before
    return json_answer(200, view, headers)


async def history(deps: Deps, asked: Asked) -> Answer:
    rows = await deps.ledger.history(_task(asked))
    log_id = deps.ledger.engine.log_id
    return json_answer(200, {"events": [event_view(row, log_id=log_id) for row in rows]})


async def cancel(deps: Deps, asked: Asked) -> Answer:
    """200 when it is over, 202 when the worker has been asked and must confirm."""
    body = read_json(asked.body, CancelBody) if asked.body.strip() else CancelBody()
    command = RequestCancel(
        task_id=_task(asked),
        at_us=asked.now_us,
        actor=asked.key_id,
        request_id=asked.request_id,
        expected_version=if_match(asked),
        account=None,
        policy=CANCEL,
        reason=body.reason,
    )
    outcome = await deps.ledger.handle(command)
    view = task_view(outcome.task, position=outcome.position, log_id=deps.ledger.engine.log_id)
    status = 202 if outcome.task.status is Status.RUNNING else 200
    return json_answer(status, view, {"ETag": etag(outcome.task)})


async def issue_key(deps: Deps, asked: Asked) -> Answer:
    body = read_json(asked.body, KeyBody)
    contract_in(body.contract, (*CONTRACTS, CONTRACT.name))
    role = body.role or (Role.WORKER if body.contract == "ledger" else Role.CLIENT)
    if (role is Role.CLIENT) is (body.contract == "ledger"):
        raise Invalid(
            "a client's key speaks a vendor's contract, a worker's and an operator's speak ledger", param="role"
        )
    new = await deps.ledger.keys.issue(
        account=body.account, contract=body.contract, role=role, by=asked.key_id, at_us=asked.now_us
    )
    return json_answer(201, msgspec.structs.asdict(new))


async def list_keys(deps: Deps, asked: Asked) -> Answer:
    rows = await deps.ledger.keys.rows(asked.query.get("account"))
    return json_answer(200, {"keys": [key_view(row, now_us=asked.now_us) for row in rows]})


async def revoke_key(deps: Deps, asked: Asked) -> Answer:
    row = await deps.ledger.keys.revoke(asked.params["id"], by=asked.key_id, at_us=asked.now_us)
    return json_answer(200, key_view(row, now_us=asked.now_us))


async def rotate_key(deps: Deps, asked: Asked) -> Answer:
    body = read_json(asked.body, RotateBody) if asked.body.strip() else RotateBody()
    new = await deps.ledger.keys.rotate(
        asked.params["id"],
        overlap_us=body.overlap_seconds * US_PER_SECOND,
        by=asked.key_id,
        at_us=asked.now_us,
    )
    return json_answer(201, msgspec.structs.asdict(new))


async def _current(deps: Deps, task: TaskId, *, status: int, headers: Mapping[str, str] | None = None) -> Answer:
    seen = await deps.ledger.task(task, account=None)
    view = task_view(seen.task, position=seen.position, log_id=deps.ledger.engine.log_id)
    return json_answer(status, view, {"ETag": etag(seen.task), **(headers or {})})


def _task(asked: Asked) -> TaskId:
    """The id in the path, in the spelling of any contract.

    Raises:
        TaskNotFound: it is spelled in none of them.
    """
    task = parse_any(asked.params["id"])
    if task is None:
        raise TaskNotFound
    return task


async def report_all(deps: Deps, asked: Asked) -> Answer:
    return await report_many(deps, asked, _problem)


def refuse(refusal: Refusal, refused: Refused) -> Answer:
    body = _problem(refusal, refused.request_id)
    return json_answer(body["status"], body)._replace(content_type="application/problem+json")


def _problem(refusal: Refusal, request_id: str) -> dict[str, Any]:
    problem = REFUSALS[type(refusal)]
    detail = str(refusal) or problem.title
    return problem_view(problem, detail=detail, request_id=request_id, facts=_facts(refusal))


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
            return shortage_view(refusal)
        case KeyReused(fingerprint=first, amount_micros=amount, task=task):
            before = {"fingerprint": first} if amount is None else {"amount_credits": credits_text(amount)}
            return {**before, "task": None if task is None else Spelling.UUID.spell(task)}
        case _:
            return {}


CONTRACT = Contract(
    name="ledger",
    spelling=Spelling.UUID,
    school=School.HOLD,  # never asked for: a task is a vendor contract's
    roles=frozenset({Role.WORKER, Role.OPERATOR}),
    operations=(
        Act("POST", "/v1/tasks", create, body_max_bytes=CREATE_MAX_BYTES),
        Act("GET", "/v1/tasks", list_tasks),
        Act("GET", "/v1/tasks/{id}", read),
        Act("POST", "/v1/tasks/{id}/events", report, body_max_bytes=CREATE_MAX_BYTES),
        Act("GET", "/v1/tasks/{id}/events", history),
        Act("GET", "/v1/events", events, operator_only=True),
        Act("POST", "/v1/events", report_all, body_max_bytes=BATCH_MAX_BYTES),
        Act("POST", "/v1/tasks/{id}/cancel", cancel, operator_only=True),
        Act("POST", "/v1/keys", issue_key, operator_only=True),
        Act("GET", "/v1/keys", list_keys, operator_only=True),
        Act("DELETE", "/v1/keys/{id}", revoke_key, operator_only=True),
        Act("POST", "/v1/keys/{id}/rotate", rotate_key, operator_only=True),
        *ACCOUNT_ROUTES,
        *CALLBACK_ROUTES,
        Act("GET", "/v1/billing/summary", summary, operator_only=True),
        Act("GET", "/v1/billing/breaks", breaks, operator_only=True),
        Act("POST", "/v1/billing/breaks/{id}", change_break, operator_only=True),
        Act("POST", "/v1/billing/statements", statement, operator_only=True, body_max_bytes=STATEMENT_MAX_BYTES),
        Act("GET", "/v1/billing/reconciliation", reconciliation, operator_only=True),
        Act("POST", "/v1/billing/reconciliation", reconcile, operator_only=True),
        Act("GET", "/metrics", metrics, operator_only=True),
    ),
    token=bearer,
    gone=lambda _, __: False,
    refuse=refuse,
)
