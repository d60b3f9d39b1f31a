"""Callbacks over HTTP: listed, sent again, and the secret that an account's are signed with, shown and rotated."""

from typing import Any

from api.bodies import read_json_or
from api.contracts.shape import Answer, Asked, json_answer
from api.deps import Deps
from api.native_accounts import account_in
from api.native_bodies import ReasonBody, RotateBody
from api.native_queries import limit_in, only
from api.refusals import Invalid
from ledger.callbacks import Resend, RotateSecret
from ledger.cursors import cursor, place
from ledger.errors import UnknownCallback
from ledger.times import US_PER_SECOND, rfc3339
from projections.callbacks.rows import Delivery, State, Wanted, callback_view

ID_CHARS = 36
_PLACE_BYTES = 8


async def list_callbacks(deps: Deps, asked: Asked) -> Answer:
    """The callbacks, newest first; the dead ones unless another state, or ``all``, is asked for."""
    wanted = _wanted(asked)
    found = await deps.callbacks.consult(lambda queue: queue.listed(wanted._replace(limit=wanted.limit + 1)))
    page, more = found[: wanted.limit], len(found) > wanted.limit
    body = {
        "callbacks": [callback_view(one) for one in page],
        "next_cursor": cursor(asked.log_id, _place(page[-1])) if more else None,
        "has_more": more,
    }
    return json_answer(200, body)


async def resend(deps: Deps, asked: Asked) -> Answer:
    """Post it again, now, and as often as if it were new; its answer is the callback as it waits for that."""
    only(asked, set())
    name = asked.params["id"]
    body = read_json_or(asked.body, ReasonBody())
    one = await deps.callbacks.consult(lambda queue: queue.get(name))
    if one is None:
        raise UnknownCallback(name)
    again = Resend(at_us=asked.now_us, task_id=one.task, about=one.about, webhook=one.webhook, reason=body.reason)
    await deps.ledger.callbacks.carry_out(again, account=one.account, by=asked.key_id)
    one = await deps.callbacks.consult(lambda queue: queue.get(name)) or one
    return json_answer(202, callback_view(one))


async def show_secret(deps: Deps, asked: Asked) -> Answer:
    """What the account's callbacks are signed with now, the newest first."""
    account = account_in(asked)
    return json_answer(200, await _secrets(deps, asked, account))


async def rotate_secret(deps: Deps, asked: Asked) -> Answer:
    """A new one; the old one signs beside it for a while."""
    account = account_in(asked)
    body = read_json_or(asked.body, RotateBody())
    command = RotateSecret(at_us=asked.now_us, overlap_us=body.overlap_seconds * US_PER_SECOND)
    await deps.ledger.callbacks.carry_out(command, account=account, by=asked.key_id)
    return json_answer(201, await _secrets(deps, asked, account))


async def _secrets(deps: Deps, asked: Asked, account: str) -> dict[str, Any]:
    arranged = await deps.ledger.callbacks.arranged(account)
    secrets = await deps.ledger.callbacks.secrets(account, at_us=asked.now_us)
    old_until = rfc3339(arranged.old_until_us) if len(secrets) > 1 else None
    return {"account": account, "secret": secrets[0], "old_secrets": secrets[1:], "old_until": old_until}


def _wanted(asked: Asked) -> Wanted:
    query = asked.query
    only(asked, {"state", "account", "cursor", "limit"})
    state = query.get("state", State.DEAD)
    if state not in {*State, "all"}:
        raise Invalid(f"state is one of {', '.join(State)}, all", param="state")
    before = None
    if "cursor" in query:
        before = _before(place(asked.log_id, query["cursor"]))
        if before is None:
            raise Invalid("cursor is not one that a list of this log gave", param="cursor")
    return Wanted(
        state=None if state == "all" else State(state),
        account=query.get("account"),
        before=before,
        limit=limit_in(asked),
    )


def _place(one: Delivery) -> bytes:
    return one.position.to_bytes(_PLACE_BYTES, "big") + one.callback_id.encode()


def _before(raw: bytes | None) -> tuple[int, str] | None:
    if raw is None or len(raw) != _PLACE_BYTES + ID_CHARS or not raw[_PLACE_BYTES:].isascii():
        return None
    position = int.from_bytes(raw[:_PLACE_BYTES], "big")
    return (position, raw[_PLACE_BYTES:].decode("ascii")) if position < 2**63 else None
