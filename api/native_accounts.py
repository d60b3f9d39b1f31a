"""What the native API does with accounts: it shows them, sets limits, grants, and takes back."""

from typing import Any

import msgspec

from api.bodies import read_json
from api.contracts.shape import Answer, Asked, json_answer
from api.deps import Deps
from api.native_bodies import GrantBody, LimitBody, Name, RevocationBody, credits_in, positive_credits
from api.native_shapes import account_view
from api.native_tags import REPEATED
from api.refusals import Invalid
from ledger.accounts import CreditChange
from ledger.credit import Grant, RevokeGrant
from ledger.records import AccountRow
from ledger.times import rfc3339


async def show_account(deps: Deps, asked: Asked) -> Answer:
    """Any account can be read: one that nothing is known of has spent nothing, and is unlimited."""
    return _shown(deps, await deps.ledger.accounts.row(account_in(asked)))


async def set_limit(deps: Deps, asked: Asked) -> Answer:
    account, body = account_in(asked), read_json(asked.body, LimitBody)
    limit_micros = credits_in(body.limit_credits, "limit_credits")
    row = await deps.ledger.accounts.set_limit(account, limit_micros, by=asked.key_id, at_us=asked.now_us)
    return _shown(deps, row)


async def grant(deps: Deps, asked: Asked) -> Answer:
    account, body = account_in(asked), read_json(asked.body, GrantBody)
    command = Grant(
        at_us=asked.now_us,
        amount_micros=positive_credits(body.amount_credits),
        key=body.key,
        reason=body.reason,
    )
    return _changed(deps, await deps.ledger.accounts.grant(account, command, by=asked.key_id))


async def revoke_grant(deps: Deps, asked: Asked) -> Answer:
    account, body = account_in(asked), read_json(asked.body, RevocationBody)
    command = RevokeGrant(
        at_us=asked.now_us,
        amount_micros=positive_credits(body.amount_credits),
        key=body.key,
        grant=body.grant,
        reason=body.reason,
    )
    return _changed(deps, await deps.ledger.accounts.revoke(account, command, by=asked.key_id))


def _changed(deps: Deps, change: CreditChange) -> Answer:
    """The account, and who has moved its credit under this key: of several who ask at once, one is not told a repeat.

    That one calls the payment provider, if there is one to be called; the others see who does.
    """
    shown = _view(deps, change.row) | {"moved_by": change.by, "moved_at": rfc3339(change.at_us)}
    return json_answer(200, shown, REPEATED if change.is_repeat else None)


def _shown(deps: Deps, row: AccountRow) -> Answer:
    return json_answer(200, _view(deps, row))


def _view(deps: Deps, row: AccountRow) -> dict[str, Any]:
    """The account, and the cap on its tasks that this service has been given; null: none."""
    return account_view(row) | {"tasks_max": deps.limits.tasks_max(row.account)}


def account_in(asked: Asked) -> str:
    """The account in the path.

    Raises:
        Invalid: it cannot be one.
    """
    try:
        return msgspec.convert(asked.params["account"], Name)
    except msgspec.ValidationError:
        raise Invalid("an account is 1 to 128 visible characters", param="account") from None
