"""Creating a task in the native API, for any account and in any vendor's contract: `POST /ledger/v1/tasks`."""

from msgspec import UNSET
from msgspec.structs import replace

from api.bodies import fingerprint, read_json, url_in
from api.contracts import CONTRACTS
from api.contracts.shape import OUT_TASK_ID, Answer, Asked
from api.deps import Deps
from api.native_bodies import CreateBody, contract_in, credits_in, time_in
from api.native_follows import followed_in
from api.native_shapes import ROOT
from api.native_tasks import outcome_answer
from api.refusals import Invalid
from ledger.commands import Claim, Create
from ledger.events import Terms
from ledger.ids import ENTROPY_BYTES, Spelling, born_us, task_id


async def create(deps: Deps, asked: Asked) -> Answer:
    """201 with the new task; with a key that came before, 200 with the task that was created then."""
    body = read_json(asked.body, CreateBody)
    contract_in(body.contract, CONTRACTS)
    callback_url = _callback_url(deps, body)
    expires_at_us = time_in(body.expires_at, "expires_at")
    follows = followed_in(body.follows)
    born_at_us = asked.now_us if follows is None else max(asked.now_us, born_us(follows))  # whatever the clock did
    model = deps.catalogue.find(body.contract, body.model)
    estimated_seconds = body.estimated_seconds
    if estimated_seconds is None and model is not None:
        estimated_seconds = model.estimated_seconds
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
        estimated_seconds=estimated_seconds,
        out_task_id=body.out_task_id,
        callback_url=callback_url,
        expires_at_us=expires_at_us,
        follows=follows,
    )
    outcome = await deps.ledger.handle(command)
    location = f"{ROOT}/tasks/{Spelling.UUID.spell(outcome.task.task_id)}"
    return await outcome_answer(deps, asked, outcome, status=201, headers={"Location": location})


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


def _callback_url(deps: Deps, body: CreateBody) -> str | None:
    """The address of the task's callbacks.

    Raises:
        Invalid: it is none that is posted to, or its contract tells nothing of its tasks.
    """
    url = url_in(body.callback_url, "callback_url")
    if url is not None and CONTRACTS[body.contract].telling is None:
        raise Invalid("tasks of this contract have no callbacks", param="callback_url")
    deps.callbacks.egress.check(url, "callback_url")
    return url


def create_claims(asked: Asked, body: CreateBody) -> tuple[Claim, ...]:
    """The keys of a create, which never expire: the header's, and the customer's own ``out_task_id``.

    Raises:
        Invalid: one of them cannot be a key.
    """
    claims = []
    key = _idempotency_key(asked)
    if key is not None:
        told = body if body.follows else replace(body, follows=UNSET)
        claims.append(Claim(account=body.account, operation="create", key=key, fingerprint=fingerprint(told)))
    if body.out_task_id is not None:
        if not body.out_task_id.isprintable():
            raise Invalid("out_task_id must be printable", param="out_task_id")
        claims.append(
            Claim(
                account=body.account,
                operation=OUT_TASK_ID,
                key=body.out_task_id,
                fingerprint=fingerprint(body.model, body.input),
            )
        )
    return tuple(claims)


def _idempotency_key(asked: Asked) -> str | None:
    """The ``Idempotency-Key``: a structured-field string, or a bare token, of 1 to 255 characters.

    Raises:
        Invalid: it is neither.
    """
    text = asked.headers.get("Idempotency-Key")
    if text is None:
        return None
    if len(text) > 1 and text.startswith('"') and text.endswith('"'):
        text = text[1:-1]
    if not 1 <= len(text) <= 255 or not (text.isascii() and text.isprintable()) or '"' in text:  # noqa: PLR2004
        raise Invalid("Idempotency-Key must be 1 to 255 visible characters", param="Idempotency-Key")
    return text
