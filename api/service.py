"""The shell: from a request to an answer, for every contract alike.

What varies by vendor is in its table; what is here is the same for all: find the row, authenticate, read the body,
have done what the row asks for (`api.operations`), word the refusal, log one line.
"""

import time
from contextlib import suppress

from aiohttp import web

from api import incoming
from api.answers import Sent
from api.authentication import permit
from api.contracts.shape import Act, Answer, Asked, KeyedOperation, Open, Read, Refused, Streamed
from api.deps import Deps
from api.exchange import Exchange
from api.health import HEALTH
from api.logs import Answered
from api.mounts import at_root, mounted
from api.operations import carry_out
from api.refusals import (
    Broken,
    MethodNotAllowed,
    RateLimited,
    RevokedKey,
    Unauthenticated,
    Unavailable,
    UnknownRoute,
    WrongKey,
)
from api.streams import Streaming
from ledger.errors import Overloaded, ReadOnlyError, Refusal, StorageError, TooManyTasks
from ledger.records import KeyRow
from ledger.times import rfc3339

READ_ONLY = "the ledger is read-only until its store has been restored; nothing was written"
READ_ONLY_RETRY_AFTER_SECONDS = 60
"""A restore takes a person."""


async def handle(deps: Deps, request: web.BaseRequest) -> Sent | Streaming:
    """Answer any request: the one handler of the server."""
    now_us, started_ns = deps.clock(), time.perf_counter_ns()
    headers = request.headers
    exchange = Exchange(incoming.request_id(deps, headers, now_us), deps.authenticator.mark(headers), now_us=now_us)
    answer: Answer | Streamed
    try:
        answer = _repeated(deps, request, exchange) or await _answer(deps, request, exchange)
    except Refusal as refusal:
        answer = _refuse(request, exchange, _unless_too_often(deps, request, exchange, refusal))
    except StorageError as fault:
        deps.log.warning("store.failed", request_id=exchange.request_id, fault=str(fault))
        answer = _refuse(request, exchange, _unavailable(fault))
    except Exception:
        deps.log.exception("http.broke", request_id=exchange.request_id, route=exchange.route)
        answer = _refuse(request, exchange, Broken())
    took_us = (time.perf_counter_ns() - started_ns) // 1000
    _record(deps, request, exchange, status=answer.status, took_us=took_us)
    also = _budget_lines(deps, request, exchange)
    if isinstance(answer, Streamed):
        return Streaming(deps, request, answer, also=also, request_id=exchange.request_id, at_us=now_us)
    return Sent(request, answer, also=also, request_id=exchange.request_id, at_us=now_us)


def _repeated(deps: Deps, request: web.BaseRequest, exchange: Exchange) -> Answer | None:
    """The answer that the same GET had a moment ago, if it still stands."""
    if request.method != "GET" or request.body_exists:
        return None
    again = deps.repeats.again(request.raw_path, request.host, exchange.mark, exchange.now_us)
    if again is None:
        return None
    exchange.contract, exchange.route, exchange.key, answer = again
    exchange.standing = deps.limits.spend(again.key.account, Read, exchange.now_us)
    return answer


async def _answer(deps: Deps, request: web.BaseRequest, exchange: Exchange) -> Answer | Streamed:
    """Find the row and the asker, and carry out what the row asks for."""
    path = request.rel_url.raw_path
    if path in HEALTH and request.method in {"GET", "HEAD"}:
        exchange.route = path
        return await HEALTH[path](deps)
    exchange.contract, table, prefix = mounted(path) or await at_root(deps.authenticator, request, exchange)
    try:
        operation, params = table.match(request.method, path[len(prefix) :])
    except (UnknownRoute, MethodNotAllowed):
        await _recognise(deps, request, exchange)
        raise
    exchange.route = prefix + operation.path
    if isinstance(operation, Open):
        await _recognise(deps, request, exchange)
        return await _open(deps, request, operation, prefix)
    key = await _admit(deps, request, exchange, operation)
    asked = Asked(
        params=params,
        query=incoming.query(request, takes_odd=exchange.contract.takes_odd_queries),
        headers=request.headers,
        body=await incoming.body(request, operation.body_max_bytes),
        base_url=incoming.base_url(request, prefix),
        request_id=exchange.request_id,
        account=key.account,
        key_id=key.key_id,
        now_us=exchange.now_us,
        log_id=deps.ledger.engine.log_id,
        is_gone=lambda: request.transport is None,
    )
    return await carry_out(deps, request, exchange, operation, asked)


async def _admit(deps: Deps, request: web.BaseRequest, exchange: Exchange, operation: KeyedOperation) -> KeyRow:
    """The key of who asks for *operation*, which may do that, and whose account has some of its budget left.

    Raises:
        Unauthenticated, WrongKey, RevokedKey, StorageError: as `Authenticator.identify`.
        Forbidden: as `permit`.
        RateLimited: the budget is used up.
    """
    contract, key, now_us = exchange.contract, exchange.key, exchange.now_us
    if key is None:
        key = exchange.key = await deps.authenticator.identify(contract, request.headers, exchange.mark, now_us)
    if contract.quota is not None:
        with suppress(StorageError):  # then there is nothing to be told of it; the answer may be had all the same
            await deps.ledger.accounts.refresh(key.account)  # a read a second, at most
            exchange.credit = deps.ledger.accounts.cached(key.account)
    permit(contract, operation, key)
    if not isinstance(operation, Act):  # those are the native API's, for workers and operators
        exchange.standing = deps.limits.spend(key.account, type(operation), now_us)
    return key


async def _recognise(deps: Deps, request: web.BaseRequest, exchange: Exchange) -> None:
    """Note whose key is shown where none is needed, for the log line and the budget headers; a wrong one is ignored."""
    if exchange.key is None:
        with suppress(Refusal, StorageError):
            mark, now_us = exchange.mark, exchange.now_us
            exchange.key = await deps.authenticator.identify(exchange.contract, request.headers, mark, now_us)


async def _open(deps: Deps, request: web.BaseRequest, operation: Open, prefix: str) -> Answer:
    """The answer of a route without a key, once the store has been read."""
    incoming.base_url(request, prefix)  # what cannot be read is refused here as everywhere
    await incoming.body(request, operation.body_max_bytes)
    await deps.ledger.engine.head()
    return operation.answer()


# Refusing


def _refuse(request: web.BaseRequest, exchange: Exchange, refusal: Refusal) -> Answer:
    """The refusal in the contract's words, with the headers that HTTP wants beside them."""
    exchange.refusal = refusal
    if isinstance(refusal, RateLimited):
        exchange.standing = refusal.standing
    answer = exchange.contract.refuse(refusal, Refused(request.method, exchange.request_id))
    headers = dict(answer.headers)
    match refusal:
        case Unauthenticated() | WrongKey() | RevokedKey():
            headers["WWW-Authenticate"] = "Bearer"
        case MethodNotAllowed(allowed=allowed):
            headers["Allow"] = ", ".join(allowed)
        case (
            Overloaded(retry_after_seconds=seconds)
            | Unavailable(retry_after_seconds=seconds)
            | RateLimited(retry_after_seconds=seconds)
            | TooManyTasks(retry_after_seconds=seconds)
        ):
            headers["Retry-After"] = str(seconds)
        case _:
            pass
    return answer._replace(headers=headers)


def _unless_too_often(deps: Deps, request: web.BaseRequest, exchange: Exchange, refusal: Refusal) -> Refusal:
    """*refusal*, or `RateLimited` in its place when it is one too many wrong keys from this address."""
    if isinstance(refusal, Unauthenticated | WrongKey | RevokedKey):
        try:
            deps.limits.fail(request.remote or "", exchange.now_us)
        except RateLimited as limited:
            return limited
    return refusal


def _unavailable(fault: StorageError) -> Unavailable:
    """What a client is told of *fault*: whether it is worth asking again soon, and nothing of our disks."""
    if isinstance(fault, ReadOnlyError):
        return Unavailable(READ_ONLY, retry_after_seconds=READ_ONLY_RETRY_AFTER_SECONDS)
    return Unavailable()


# What is told beside the answer


def _record(deps: Deps, request: web.BaseRequest, exchange: Exchange, *, status: int, took_us: int) -> None:
    """Log the request's one line, make its span, and count it."""
    key, refusal, route = exchange.key, exchange.refusal, exchange.route
    line = Answered(
        request_id=exchange.request_id,
        contract=exchange.contract.name,
        method=request.method,
        route=route,
        status=status,
        refusal=None if refusal is None else type(refusal).__name__,
        key_id=None if key is None else key.key_id,
        account=None if key is None else key.account,
        took_us=took_us,
        timestamp=rfc3339(exchange.now_us + took_us),
    )
    deps.lines.answered(line)
    if deps.traces is not None:
        deps.traces.answered(line, request.headers, began_us=exchange.now_us)
    deps.requests[exchange.contract.name, "" if route is None else request.method, route or "", status] += 1


def _budget_lines(deps: Deps, request: web.BaseRequest, exchange: Exchange) -> bytes:
    """The header lines that tell what is left of the account's budget of requests, and of its credit.

    A request that was refused before it cost its account anything is told of that account's reads; one that was refused
    before it was any account's, of what is left of its address's (chosen: the vendors that send such headers with every
    response do not say).
    """
    standing, key = exchange.standing, exchange.key
    if standing is None and exchange.refusal is not None:
        limits, now_us = deps.limits, exchange.now_us
        standing = limits.address(request.remote or "", now_us) if key is None else limits.reads(key.account, now_us)
    told = b"" if standing is None else exchange.contract.limits(standing)
    return told if exchange.contract.quota is None else told + _quota_line(deps, exchange)


def _quota_line(deps: Deps, exchange: Exchange) -> bytes:
    """The header line that tells what credit a limited account has left, out of memory, for vendors that have one."""
    tell, key = exchange.contract.quota, exchange.key
    row = None if tell is None or key is None else deps.ledger.accounts.cached(key.account) or exchange.credit
    return b"" if tell is None or row is None or row.unlimited else tell(row)
