"""The shell: from a request to an answer, for every contract alike.

A path under a contract's prefix is that contract's, and any client key of the account is taken there. At the bare root
the contract is a property of the key. What varies by vendor is in its table; what is here is the same for all:
find the row, authenticate, read the body, carry out what the row asks for, word the refusal, log one line.
"""

import re
import time
import weakref
from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import NamedTuple

from aiohttp import HttpVersion11, web

from api import native
from api.answers import Sent
from api.contracts import CONTRACTS
from api.contracts.shape import (
    Act,
    Answer,
    Asked,
    ByKey,
    ByTask,
    Cancel,
    Contract,
    Operation,
    Read,
    Refused,
    Target,
    Told,
    Wish,
    json_answer,
)
from api.deps import Deps
from api.logs import Answered
from api.refusals import (
    Broken,
    Forbidden,
    Invalid,
    MethodNotAllowed,
    RevokedKey,
    TooLarge,
    Unauthenticated,
    Unavailable,
    UnknownRoute,
    WrongKey,
)
from api.repeats import Repeat
from api.routing import Table
from ledger.commands import Claim, RequestCancel
from ledger.errors import Overloaded, Refusal, StorageError, TaskNotFound
from ledger.ids import TaskId
from ledger.keys import Role, parse
from ledger.records import KeyRow
from ledger.times import rfc3339
from ledger.views import Seen

ANSWERS_MAX = 8
"""Renderings kept with a task: contracts times what varies their answer."""
KEPT_MAX_CHARS = 1024
"""Of path, query and host: what is asked at greater length is answered and not remembered, for memory is bounded."""
_REQUEST_ID = re.compile(r"[!-~]{1,128}")


class Mount(NamedTuple):
    """A contract and where its routes are."""

    contract: Contract
    table: Table[Operation]


MOUNTS = {c.name: Mount(c, Table(c.operations)) for c in (*CONTRACTS.values(), native.CONTRACT)}
NATIVE = MOUNTS["ledger"]


class Exchange:
    """One request while it is worked on: what its answer is worded by, and what its log line tells."""

    __slots__ = ("contract", "key", "refusal", "request_id", "route")

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.contract = NATIVE.contract
        self.route: str | None = None
        self.key: KeyRow | None = None
        self.refusal: Refusal | None = None


async def handle(deps: Deps, request: web.BaseRequest) -> Sent:
    """Answer any request: the one handler of the server."""
    now_us, started_ns = deps.clock(), time.perf_counter_ns()
    exchange = Exchange(_request_id(deps, request.headers, now_us))
    try:
        answer = _again(deps, request, exchange, now_us) or await _answer(deps, request, exchange, now_us)
    except Refusal as refusal:
        answer = _refuse(request, exchange, refusal)
    except StorageError as fault:
        deps.log.warning("store.failed", request_id=exchange.request_id, fault=str(fault))
        answer = _refuse(request, exchange, Unavailable())
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
    return Sent(request, answer, request_id=exchange.request_id, at_us=now_us)


def _again(deps: Deps, request: web.BaseRequest, exchange: Exchange, now_us: int) -> Answer | None:
    """The answer that the same GET had a moment ago, if it still stands."""
    if request.method != "GET" or request.body_exists:
        return None
    again = deps.repeats.again(request.raw_path, request.host, _shown(request), now_us)
    if again is None:
        return None
    exchange.contract, exchange.route, exchange.key = again.contract, again.route, again.key
    return again.answer


def _shown(request: web.BaseRequest) -> str:
    """The credentials as they were sent: all that any contract's `token` reads."""
    headers = request.headers
    return f"{headers.get('Authorization', '')}\n{headers.get('x-api-key', '')}"


async def _answer(deps: Deps, request: web.BaseRequest, exchange: Exchange, now_us: int) -> Answer:
    """Find the row and the asker, and carry out what the row asks for."""
    headers, path = request.headers, request.rel_url.raw_path
    if path in HEALTH and request.method in {"GET", "HEAD"}:
        exchange.route = path
        return await HEALTH[path](deps)
    mount, prefix = _mounted(path)
    if mount is None:
        mount = await _at_root(deps, request, exchange, now_us)
    exchange.contract = mount.contract
    operation, params = mount.table.match(request.method, path[len(prefix) :])
    exchange.route = prefix + operation.path
    key = exchange.key
    if key is None:
        key = exchange.key = await _holder(deps, mount.contract.token(headers), headers, now_us)
    _permit(mount.contract, operation, key)
    asked = Asked(
        params=params,
        query=request.rel_url.query if request.rel_url.raw_query_string else _NOTHING,
        headers=headers,
        body=await _body(request, operation.body_max_bytes),
        base_url=_base_url(request, prefix),
        request_id=exchange.request_id,
        account=key.account,
        key_id=key.key_id,
        now_us=now_us,
    )
    match operation:
        case Read():
            keep = len(request.raw_path) + len(request.host) <= KEPT_MAX_CHARS
            seen, variant, answer = await _read(deps, mount.contract, operation, asked, keep=keep)
            if keep and request.method == "GET":
                repeat = Repeat(weakref.ref(seen), variant, mount.contract, exchange.route)
                deps.repeats.remember(request.raw_path, request.host, _shown(request), key, repeat)
            return answer
        case Cancel():
            return await _cancel(deps, mount.contract, operation, asked)
        case Act():
            return await operation.run(deps, asked)


_NOTHING: Mapping[str, str] = {}


# Whose request it is


def _mounted(path: str) -> tuple[Mount | None, str]:
    """The contract whose prefix *path* has, and the prefix; None at the bare root."""
    name = path[1:].partition("/")[0]
    mount = MOUNTS.get(name)
    return (mount, f"/{name}") if mount is not None else (None, "")


async def _at_root(deps: Deps, request: web.BaseRequest, exchange: Exchange, now_us: int) -> Mount:
    """The contract of the key that the request shows.

    Raises:
        UnknownRoute: no key, and no contract has this route.
        Unauthenticated, WrongKey, RevokedKey: in the words of the contract that has it, the first of several.
    """
    headers = request.headers
    shown = (mount.contract.token(headers) for mount in MOUNTS.values())
    text = next((token for token in shown if token is not None), None)
    try:
        exchange.key = await _holder(deps, text, headers, now_us)
    except Exception as error:
        owner = _owner(request.method, request.rel_url.raw_path)
        if owner is not None:
            exchange.contract = owner.contract
        elif isinstance(error, Unauthenticated | WrongKey | RevokedKey):
            raise UnknownRoute from None
        raise
    mount = MOUNTS[exchange.key.contract]
    if mount.contract.token(headers) is None:
        exchange.contract = mount.contract
        raise WrongKey  # right, but in a form that its contract does not take
    return mount


def _owner(method: str, path: str) -> Mount | None:
    """The first vendor that serves *path*, with *method* if any does."""
    other_method = None
    for name in CONTRACTS:
        try:
            MOUNTS[name].table.match(method, path)
        except MethodNotAllowed:
            other_method = other_method or MOUNTS[name]
        except UnknownRoute:
            continue
        else:
            return MOUNTS[name]
    return other_method


async def _holder(deps: Deps, text: str | None, headers: Mapping[str, str], now_us: int) -> KeyRow:
    """The live key that *text* is.

    Raises:
        Unauthenticated: no key was shown at all.
        WrongKey, RevokedKey: one was, and it opens nothing.
    """
    if text is None:
        raise WrongKey if headers.get("Authorization", "").strip() else Unauthenticated
    token = parse(text)
    if token is None:
        raise WrongKey
    row = await deps.ledger.keys.holder(token, at_us=now_us)
    if row is None:
        raise RevokedKey if await deps.ledger.keys.was_revoked(token) else WrongKey
    return row


def _permit(contract: Contract, operation: Operation, key: KeyRow) -> None:
    if key.role not in contract.roles:
        raise Forbidden
    if isinstance(operation, Act) and operation.operator_only and key.role != Role.OPERATOR:
        raise Forbidden


def _base_url(request: web.BaseRequest, prefix: str) -> str:
    """What the client has in front of the contract's paths, by its own account."""
    host = request.host
    if not host.isascii():
        raise Invalid("the Host header is no host", param="Host")
    return f"{request.scheme}://{host}{prefix}"


async def _body(request: web.BaseRequest, limit_bytes: int) -> bytes:
    """The whole body, if it is no longer than *limit_bytes*."""
    if not request.body_exists:
        return b""
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise Invalid("a compressed body is not taken", param="Content-Encoding")
    if (request.content_length or 0) > limit_bytes:
        raise TooLarge(limit_bytes)
    await _invite(request)
    try:
        body = await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise TooLarge(limit_bytes) from None
    except (web.HTTPException, web.RequestPayloadError) as error:
        raise Invalid(f"the body cannot be read: {error}") from None
    if len(body) > limit_bytes:
        raise TooLarge(limit_bytes)
    return body


async def _invite(request: web.BaseRequest) -> None:
    """Ask for the body if the client waits to be asked; pass over what else it expects (RFC 9110, 10.1.1)."""
    if request.version >= HttpVersion11 and request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer itself has not begun


# How the service is


async def _alive(_: Deps) -> Answer:
    """The process answers."""
    return json_answer(200, {"status": "alive"})


async def _ready(deps: Deps) -> Answer:
    """The store answers too."""
    try:
        await deps.ledger.engine.head()
    except StorageError:
        return json_answer(503, {"status": "store unavailable"})
    return json_answer(200, {"status": "ready"})


HEALTH: dict[str, Callable[[Deps], Awaitable[Answer]]] = {"/healthz": _alive, "/readyz": _ready}


# What the row asks for


async def _read(
    deps: Deps, contract: Contract, operation: Read, asked: Asked, *, keep: bool
) -> tuple[Seen, Hashable, Answer]:
    """The task that is meant, the answer rendered from it, and what the answer varies by, besides the task."""
    seen = await _visible(deps, contract, operation.target(asked), asked)
    variant = (operation.answer, asked.base_url, tuple(asked.query.items()))
    answer: Answer | None = seen.answers.get(variant)
    if answer is None:
        answer = operation.answer(asked, Told(seen.task))
        if keep and len(seen.answers) < ANSWERS_MAX:
            seen.answers[variant] = answer
    return seen, variant, answer


async def _cancel(deps: Deps, contract: Contract, operation: Cancel, asked: Asked) -> Answer:
    wish = operation.wish(asked)
    seen = await _visible(deps, contract, wish.target, asked)
    command = RequestCancel(
        task_id=seen.task.task_id,
        at_us=asked.now_us,
        actor=asked.key_id,
        request_id=asked.request_id,
        claims=_claims(wish, asked.account),
        account=asked.account,
        policy=operation.policy,
        reason=wish.reason,
    )
    outcome = await deps.ledger.handle(command)
    return operation.answer(asked, Told(outcome.task, outcome.appended, outcome.replayed))


def _claims(wish: Wish, account: str) -> tuple[Claim, ...]:
    if wish.idempotency is None:
        return ()
    try:
        wish.idempotency.key.encode()
    except UnicodeEncodeError:  # bytes that are no text, as aiohttp hands them on
        raise Invalid("Idempotency-Key is not UTF-8", param="Idempotency-Key") from None
    return (Claim(account=account, **wish.idempotency._asdict()),)


async def _visible(deps: Deps, contract: Contract, target: Target, asked: Asked) -> Seen:
    """The task that is meant, if this account may see it and the vendor still keeps it.

    Raises:
        TaskNotFound: else.
    """
    task = await _resolve(deps, target, asked.account)
    if task is None:
        raise TaskNotFound
    return await deps.ledger.task(task, account=asked.account, gone=lambda found: contract.gone(found, asked.now_us))


async def _resolve(deps: Deps, target: Target, account: str) -> TaskId | None:
    match target:
        case ByTask(task=task):
            return task
        case ByKey(operation=operation, key=key):
            return await deps.ledger.task_by_key(account, operation, key)


# Answers


def _refuse(request: web.BaseRequest, exchange: Exchange, refusal: Refusal) -> Answer:
    """The refusal in the contract's words, with the headers that HTTP wants beside them."""
    exchange.refusal = refusal
    answer = exchange.contract.refuse(refusal, Refused(request.method, exchange.request_id))
    headers = dict(answer.headers)
    match refusal:
        case Unauthenticated() | WrongKey() | RevokedKey():
            headers["WWW-Authenticate"] = "Bearer"
        case MethodNotAllowed(allowed=allowed):
            headers["Allow"] = ", ".join(allowed)
        case Overloaded(retry_after_seconds=seconds) | Unavailable(retry_after_seconds=seconds):
            headers["Retry-After"] = str(seconds)
        case _:
            pass
    return answer._replace(headers=headers)


def _request_id(deps: Deps, headers: Mapping[str, str], now_us: int) -> str:
    """The client's own, if it is 1 to 128 visible characters; else a new one."""
    given = headers.get("X-Request-Id")
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given
    return deps.request_ids.next(now_us)
