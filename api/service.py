"""The shell: from a request to an answer, for every contract alike.

What varies by vendor is in its table; what is here is the same for all: find the row, authenticate, read the body,
carry out what the row asks for, word the refusal, log one line.
"""

import time
import weakref
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from contextlib import suppress

from aiohttp import web
from msgspec.structs import replace

from api import incoming
from api.answers import Sent
from api.callers import permit
from api.contracts.shape import (
    Act,
    Alter,
    Answer,
    Asked,
    Balance,
    Browse,
    Cancel,
    Contract,
    Follow,
    Hooks,
    Idempotency,
    Open,
    Read,
    Refused,
    Streamed,
    Submit,
    Told,
    json_answer,
)
from api.deps import Deps
from api.following import follow
from api.logs import Answered
from api.mounts import Exchange, at_root, mounted
from api.refusals import (
    Broken,
    Invalid,
    MethodNotAllowed,
    RateLimited,
    RevokedKey,
    Unauthenticated,
    Unavailable,
    UnknownRoute,
    WrongKey,
)
from api.repeats import Repeat
from api.streams import Streaming
from api.visible import visible
from api.webhooks import webhooks
from ledger.commands import Claim, Create, Delete, RequestCancel, RequestUpdate
from ledger.errors import Overloaded, ReadOnlyError, Refusal, StorageError, TooManyTasks, WrongVersion
from ledger.ids import ENTROPY_BYTES, task_id
from ledger.times import rfc3339

ATTEMPTS_MAX = 5
"""How often a change is made anew because the task has moved on since it was read."""
KEPT_MAX_CHARS = 1024
"""Of path, query and host: what is asked at greater length is answered and not remembered, for memory is bounded."""


async def handle(deps: Deps, request: web.BaseRequest) -> Sent | Streaming:
    """Answer any request: the one handler of the server."""
    now_us, started_ns = deps.clock(), time.perf_counter_ns()
    headers = request.headers
    exchange = Exchange(incoming.request_id(deps, headers, now_us), deps.callers.mark(headers))
    answer: Answer | Streamed
    try:
        answer = _again(deps, request, exchange, now_us) or await _answer(deps, request, exchange, now_us)
    except Refusal as refusal:
        answer = _refuse(request, exchange, _counted(deps, request, refusal, now_us))
    except StorageError as fault:
        deps.log.warning("store.failed", request_id=exchange.request_id, fault=str(fault))
        answer = _refuse(request, exchange, _unavailable(fault))
    except Exception:
        deps.log.exception("http.broke", request_id=exchange.request_id, route=exchange.route)
        answer = _refuse(request, exchange, Broken())
    took_us = (time.perf_counter_ns() - started_ns) // 1000
    line = Answered(
        request_id=exchange.request_id,
        contract=exchange.contract.name,
        method=request.method,
        route=exchange.route,
        status=answer.status,
        refusal=None if exchange.refusal is None else type(exchange.refusal).__name__,
        key_id=None if exchange.key is None else exchange.key.key_id,
        account=None if exchange.key is None else exchange.key.account,
        took_us=took_us,
        timestamp=rfc3339(now_us + took_us),
    )
    deps.lines.answered(line)
    if deps.traces is not None:
        deps.traces.answered(line, headers, began_us=now_us)
    route = exchange.route
    deps.requests[exchange.contract.name, "" if route is None else request.method, route or "", answer.status] += 1
    also = _told(deps, request, exchange, now_us)
    if isinstance(answer, Streamed):
        return Streaming(deps, request, answer, also=also, request_id=exchange.request_id, at_us=now_us)
    return Sent(request, answer, also=also, request_id=exchange.request_id, at_us=now_us)


def _again(deps: Deps, request: web.BaseRequest, exchange: Exchange, now_us: int) -> Answer | None:
    """The answer that the same GET had a moment ago, if it still stands."""
    if request.method != "GET" or request.body_exists:
        return None
    again = deps.repeats.again(request.raw_path, request.host, exchange.mark, now_us)
    if again is None:
        return None
    exchange.contract, exchange.route, exchange.key, answer = again
    exchange.standing = deps.limits.spend(again.key.account, Read, now_us)
    return answer


async def _answer(deps: Deps, request: web.BaseRequest, exchange: Exchange, now_us: int) -> Answer | Streamed:
    """Find the row and the asker, and carry out what the row asks for."""
    headers, path = request.headers, request.rel_url.raw_path
    if path in HEALTH and request.method in {"GET", "HEAD"}:
        exchange.route = path
        return await HEALTH[path](deps)
    mount = mounted(path) or await at_root(deps.callers, request, exchange, now_us)
    contract, table, prefix = mount
    exchange.contract = contract
    try:
        operation, params = table.match(request.method, path[len(prefix) :])
    except (UnknownRoute, MethodNotAllowed):
        await _recognise(deps, request, exchange, now_us)
        raise
    exchange.route = prefix + operation.path
    if isinstance(operation, Open):
        await _recognise(deps, request, exchange, now_us)
        return await _open(deps, request, operation, prefix)
    key = exchange.key
    if key is None:
        key = exchange.key = await deps.callers.identify(contract, headers, exchange.mark, now_us)
    if contract.quota is not None:
        with suppress(StorageError):  # then there is nothing to be told of it; the answer may be had all the same
            await deps.ledger.accounts.refresh(key.account)  # a read a second, at most
            exchange.credit = deps.ledger.accounts.cached(key.account)
    permit(contract, operation, key)
    if not isinstance(operation, Act):  # those are the native API's, for workers and operators
        exchange.standing = deps.limits.spend(key.account, type(operation), now_us)
    asked = Asked(
        params=params,
        query=request.rel_url.query if request.rel_url.raw_query_string else _NOTHING,
        headers=headers,
        body=await incoming.body(request, operation.body_max_bytes),
        base_url=incoming.base_url(request, prefix),
        request_id=exchange.request_id,
        account=key.account,
        key_id=key.key_id,
        now_us=now_us,
        log_id=deps.ledger.engine.log_id,
        is_gone=lambda: request.transport is None,
    )
    match operation:
        case Read():
            return await _read(deps, request, exchange, operation, asked)
        case Follow():
            return await follow(deps, contract, operation, asked)
        case Cancel():
            return await _cancel(deps, contract, operation, asked)
        case Submit():
            return await _submit(deps, contract, operation, asked)
        case Alter():
            return await _alter(deps, contract, operation, asked)
        case Browse():
            page = await deps.ledger.browse(operation.wanted(asked), gone=lambda task: contract.gone(task, now_us))
            return operation.answer(asked, page)
        case Balance():
            return operation.answer(await deps.ledger.accounts.row(key.account))
        case Hooks():
            return await webhooks(deps, contract, operation, asked)
        case Act():
            return await operation.run(deps, asked)


async def _recognise(deps: Deps, request: web.BaseRequest, exchange: Exchange, now_us: int) -> None:
    """Whose key is shown where none is asked for: it is logged, and told its own budget. A wrong one is no matter."""
    if exchange.key is None:
        with suppress(Refusal, StorageError):
            exchange.key = await deps.callers.identify(exchange.contract, request.headers, exchange.mark, now_us)


_NOTHING: Mapping[str, str] = {}


# How the service is


async def _alive(_: Deps) -> Answer:
    """The process answers."""
    return json_answer(200, {"status": "alive"})


async def _ready(deps: Deps) -> Answer:
    """The store answers too; and how those are that follow the log, of which no request depends on any.

    What keeps the store from taking writes does not keep it from being read. Why a follower fails is in the log: who
    asks here need not have a key.
    """
    followers = {
        one.name: {"position": one.position, "lag": one.lag, "failing": one.failure is not None}
        for one in deps.followers.states
    }
    try:
        await deps.ledger.engine.head()
    except StorageError:
        return json_answer(503, {"status": "store unavailable", "followers": followers})
    return json_answer(200, {"status": deps.ledger.engine.trouble or "ready", "followers": followers})


READ_ONLY = "the ledger is read-only until its store has been restored; nothing was written"
READ_ONLY_RETRY_AFTER_SECONDS = 60
"""A restore takes a person."""


def _unavailable(fault: StorageError) -> Unavailable:
    """What is said of it outside: why it is, and nothing of our disks."""
    if isinstance(fault, ReadOnlyError):
        return Unavailable(READ_ONLY, retry_after_seconds=READ_ONLY_RETRY_AFTER_SECONDS)
    return Unavailable()


HEALTH: dict[str, Callable[[Deps], Awaitable[Answer]]] = {"/healthz": _alive, "/readyz": _ready}


# What the row asks for


async def _open(deps: Deps, request: web.BaseRequest, operation: Open, prefix: str) -> Answer:
    incoming.base_url(request, prefix)  # what cannot be read is refused here as everywhere
    await incoming.body(request, operation.body_max_bytes)
    await deps.ledger.engine.head()
    return operation.answer()


async def _read(deps: Deps, request: web.BaseRequest, exchange: Exchange, operation: Read, asked: Asked) -> Answer:
    """The task that is meant, rendered; the rendering is kept with it, and under what it varies by."""
    contract, keep = exchange.contract, len(request.raw_path) + len(request.host) <= KEPT_MAX_CHARS
    seen = await visible(deps, contract, operation.target(asked), asked)
    if asked.query:
        asked = asked._replace(query={name: asked.query[name] for name in operation.varies_by if name in asked.query})
    variant: Hashable = (operation.answer, asked.base_url, *asked.query.items())
    answer: Answer | None = seen.answers.get(variant)
    if answer is None:
        answer = operation.answer(asked, Told(seen.task))
        if keep:
            weight_bytes = len(answer.body) + len(asked.base_url)
            deps.ledger.views.keep_answer(seen, variant, answer, weight_bytes=weight_bytes)
    if keep and request.method == "GET" and exchange.route is not None:
        repeat = Repeat(weakref.ref(seen), variant, contract, exchange.route, asked.key_id)
        deps.repeats.remember(request.raw_path, request.host, exchange.mark, repeat)
    return answer


async def _cancel(deps: Deps, contract: Contract, operation: Cancel, asked: Asked) -> Answer:
    wish = operation.wish(asked)
    seen = await visible(deps, contract, wish.target, asked, tells_foreign=True)
    command = RequestCancel(
        task_id=seen.task.task_id,
        at_us=asked.now_us,
        actor=asked.key_id,
        request_id=asked.request_id,
        claims=_claims(deps, () if wish.idempotency is None else (wish.idempotency,), asked.account),
        account=asked.account,
        policy=operation.policy,
        reason=wish.reason,
    )
    outcome = await deps.ledger.handle(command)
    return operation.answer(asked, Told(outcome.task, outcome.appended, outcome.replayed))


async def _submit(deps: Deps, contract: Contract, operation: Submit, asked: Asked) -> Answer:
    order = operation.order(deps.catalogue, asked)
    deps.callbacks.egress.check(order.callback_url, "callback_url")
    model = deps.catalogue.find(contract.name, order.model)
    terms = deps.catalogue.terms.get((contract.name, order.model))  # None is refused, but for what was taken before
    if terms is not None and order.estimated_micros is not None:
        terms = replace(terms, estimated_micros=order.estimated_micros)
    resolved_model = order.resolved_model or (model.resolves_to if model else None)
    made_by = deps.catalogue.find(contract.name, resolved_model or order.model) or model
    command = Create(
        task_id=task_id(at_us=asked.now_us, lane=0, entropy=deps.entropy(ENTROPY_BYTES)),
        at_us=asked.now_us,
        actor=asked.key_id,
        request_id=asked.request_id,
        claims=_claims(deps, order.keys, asked.account),
        tasks_max=deps.limits.tasks_max(asked.account),
        account=asked.account,
        contract=contract.name,
        capability=order.capability or (model.capability if model else "unknown"),
        model=order.model,
        resolved_model=resolved_model,
        provider=made_by.provider if made_by else "unknown",
        terms=terms,
        input=order.input,
        metadata=order.metadata,
        estimated_seconds=made_by.estimated_seconds if made_by else None,
        out_task_id=order.out_task_id,
        callback_url=order.callback_url,
    )
    outcome = await deps.ledger.handle(command)
    return operation.answer(asked, Told(outcome.task, outcome.appended, outcome.replayed))


async def _alter(deps: Deps, contract: Contract, operation: Alter, asked: Asked) -> Answer:
    for attempt in range(1, ATTEMPTS_MAX + 1):
        seen = await visible(deps, contract, operation.target(asked), asked)
        try:
            outcome = await deps.ledger.handle(_capped(deps, operation.command(asked, seen.task)))
        except WrongVersion:
            if attempt == ATTEMPTS_MAX:
                raise Unavailable from None
        else:
            return operation.answer(asked, Told(outcome.task, outcome.appended, outcome.replayed))
    raise AssertionError("the last attempt returns or raises")


def _capped(deps: Deps, command: RequestUpdate | Delete) -> RequestUpdate | Delete:
    """The command with the cap that holds for it: on what puts a task back to work."""
    if isinstance(command, RequestUpdate):
        return replace(command, tasks_max=deps.limits.tasks_max(command.account))
    return command


def _claims(deps: Deps, keys: Sequence[Idempotency], account: str) -> tuple[Claim, ...]:
    for one in keys:
        try:
            one.key.encode()
        except UnicodeEncodeError:  # bytes that are no text, as aiohttp hands them on
            raise Invalid("Idempotency-Key is not UTF-8", param="Idempotency-Key") from None
    return deps.ledger.keys.keyed(tuple(Claim(account=account, **one._asdict()) for one in keys))


# Answers


def _counted(deps: Deps, request: web.BaseRequest, refusal: Refusal, now_us: int) -> Refusal:
    """What to refuse with: *refusal*, or that too many keys from this address have opened nothing."""
    if isinstance(refusal, Unauthenticated | WrongKey | RevokedKey):
        try:
            deps.limits.fail(request.remote or "", now_us)
        except RateLimited as limited:
            return limited
    return refusal


def _told(deps: Deps, request: web.BaseRequest, exchange: Exchange, now_us: int) -> bytes:
    """The header lines that tell what is left of the account's budget of requests, and of its credit.

    A request that was refused before it cost its account anything is told of that account's reads; one that was refused
    before it was any account's, of what is left of its address's (chosen: the vendors that send such headers with every
    response do not say).
    """
    standing, key = exchange.standing, exchange.key
    if standing is None and exchange.refusal is not None:
        limits, address = deps.limits, request.remote or ""
        standing = limits.address(address, now_us) if key is None else limits.reads(key.account, now_us)
    told = b"" if standing is None else exchange.contract.limits(standing)
    return told if exchange.contract.quota is None else told + _quota(deps, exchange)


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


def _quota(deps: Deps, exchange: Exchange) -> bytes:
    """The header line that tells what credit a limited account has left, out of memory, for vendors that have one."""
    tell, key = exchange.contract.quota, exchange.key
    row = None if tell is None or key is None else deps.ledger.accounts.cached(key.account) or exchange.credit
    return b"" if tell is None or row is None or row.unlimited else tell(row)
