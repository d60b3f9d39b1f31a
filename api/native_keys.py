"""API keys over HTTP: issued, listed, revoked and rotated by an operator."""

import msgspec

from api.bodies import read_json, read_json_or
from api.contracts import CONTRACTS
from api.contracts.shape import Answer, Asked, json_answer
from api.deps import Deps
from api.native_bodies import KeyBody, RotateBody, contract_in
from api.native_shapes import CONTRACT_NAME, key_view
from api.refusals import Invalid
from ledger.keys import Role
from ledger.times import US_PER_SECOND


async def issue_key(deps: Deps, asked: Asked) -> Answer:
    """A new key, whose text is shown this once."""
    body = read_json(asked.body, KeyBody)
    contract_in(body.contract, (*CONTRACTS, CONTRACT_NAME))
    is_native = body.contract == CONTRACT_NAME
    role = body.role or (Role.WORKER if is_native else Role.CLIENT)
    if (role is not Role.CLIENT) is not is_native:
        raise Invalid(
            "a client's key speaks a vendor's contract, a worker's and an operator's speak ledger", param="role"
        )
    new = await deps.ledger.keys.issue(
        account=body.account, contract=body.contract, role=role, by=asked.key_id, at_us=asked.now_us
    )
    return json_answer(201, msgspec.structs.asdict(new))


async def list_keys(deps: Deps, asked: Asked) -> Answer:
    """The keys of an account, or all, the dead ones too; never their secrets."""
    rows = await deps.ledger.keys.rows(asked.query.get("account"))
    return json_answer(200, {"keys": [key_view(row, now_us=asked.now_us) for row in rows]})


async def revoke_key(deps: Deps, asked: Asked) -> Answer:
    """The key is dead from now on."""
    row = await deps.ledger.keys.revoke(asked.params["id"], by=asked.key_id, at_us=asked.now_us)
    return json_answer(200, key_view(row, now_us=asked.now_us))


async def rotate_key(deps: Deps, asked: Asked) -> Answer:
    """A new key in the old one's place, which lives on for a while."""
    body = read_json_or(asked.body, RotateBody())
    new = await deps.ledger.keys.rotate(
        asked.params["id"],
        overlap_us=body.overlap_seconds * US_PER_SECOND,
        by=asked.key_id,
        at_us=asked.now_us,
    )
    return json_answer(201, msgspec.structs.asdict(new))
