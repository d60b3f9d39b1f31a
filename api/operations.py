"""What each operation of a contract's table does: one function for all vendors, who differ in their rows only."""

import weakref
from collections.abc import Awaitable, Hashable, Sequence

from aiohttp import web
from msgspec.structs import replace

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
    KeyedOperation,
    Read,
    Streamed,
    Submit,
    Told,
)
from api.deps import Deps
from api.exchange import Exchange
from api.following import follow
from api.refusals import Invalid, Unavailable
from api.repeats import Repeat
from api.visible import visible
from api.webhooks import webhooks
from ledger.commands import Claim, Create, Delete, RequestCancel, RequestUpdate
from ledger.errors import WrongVersion
from ledger.ids import ENTROPY_BYTES, task_id
from ledger.ledger import Outcome

ATTEMPTS_MAX = 5
"""How often a change is made anew because the task has moved on since it was read."""
KEPT_MAX_CHARS = 1024
"""Of path, query and host: what is asked at greater length is answered and not remembered, for memory is bounded."""


def carry_out(
    deps: Deps, request: web.BaseRequest, exchange: Exchange, operation: KeyedOperation, asked: Asked
) -> Awaitable[Answer | Streamed]:
    """Do what *operation* is for, for the account of the key that was shown; it is done when this is awaited."""
    contract = exchange.contract
    match operation:
        case Read():
            return _read(deps, request, exchange, operation, asked)
        case Follow():
            return follow(deps, contract, operation, asked)
        case Cancel():
            return _cancel(deps, contract, operation, asked)
        case Submit():
            return _submit(deps, contract, operation, asked)
        case Alter():
            return _alter(deps, contract, operation, asked)
        case Browse():
            return _browse(deps, contract, operation, asked)
        case Balance():
            return _balance(deps, operation, asked)
        case Hooks():
            return webhooks(deps, contract, operation, asked)
        case Act():
            return operation.run(deps, asked)


async def _read(deps: Deps, request: web.BaseRequest, exchange: Exchange, operation: Read, asked: Asked) -> Answer:
    """The task that is meant, rendered. The rendering is kept with the task, and found again by the same GET."""
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


async def _browse(deps: Deps, contract: Contract, operation: Browse, asked: Asked) -> Answer:
    wanted = operation.wanted(asked)
    page = await deps.ledger.browse(wanted, gone=lambda task: contract.gone(task, asked.now_us))
    return operation.answer(asked, page)


async def _balance(deps: Deps, operation: Balance, asked: Asked) -> Answer:
    return operation.answer(await deps.ledger.accounts.row(asked.account))


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
    return _worded(operation, asked, outcome)


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
    return _worded(operation, asked, outcome)


async def _alter(deps: Deps, contract: Contract, operation: Alter, asked: Asked) -> Answer:
    for attempt in range(1, ATTEMPTS_MAX + 1):
        seen = await visible(deps, contract, operation.target(asked), asked)
        try:
            outcome = await deps.ledger.handle(_capped(deps, operation.command(asked, seen.task)))
        except WrongVersion:
            if attempt == ATTEMPTS_MAX:
                raise Unavailable from None
        else:
            return _worded(operation, asked, outcome)
    raise AssertionError("the last attempt returns or raises")


def _capped(deps: Deps, command: RequestUpdate | Delete) -> RequestUpdate | Delete:
    """The command with the cap that holds for it: on what puts a task back to work."""
    if isinstance(command, RequestUpdate):
        return replace(command, tasks_max=deps.limits.tasks_max(command.account))
    return command


def _worded(operation: Cancel | Submit | Alter, asked: Asked, outcome: Outcome) -> Answer:
    """What a command came to, in the vendor's words."""
    return operation.answer(asked, Told(outcome.task, outcome.appended, outcome.replayed))


def _claims(deps: Deps, keys: Sequence[Idempotency], account: str) -> tuple[Claim, ...]:
    """The claims that a request makes by its idempotency keys.

    Raises:
        Invalid: a key is no text.
    """
    for one in keys:
        try:
            one.key.encode()
        except UnicodeEncodeError:  # bytes that are no text, as aiohttp hands them on
            raise Invalid("Idempotency-Key is not UTF-8", param="Idempotency-Key") from None
    return deps.ledger.keys.keyed(tuple(Claim(account=account, **one._asdict()) for one in keys))
