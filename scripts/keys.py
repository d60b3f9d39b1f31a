"""`task-ledger keys`: who may ask. Works on the store of a running ledger too, which takes note within a second."""

import asyncio
from typing import Annotated

import typer

from api.contracts import CONTRACTS
from ledger.keyring import Keyring, NewKey
from ledger.keys import Role, is_dead
from ledger.records import KeyRow
from ledger.times import US_PER_SECOND, rfc3339
from scripts import stores
from scripts.options import BY, OVERLAP_MAX_SECONDS, OVERLAP_SECONDS, account_in, now_us
from scripts.printed import JsonOption, json_line, table

app = typer.Typer(name="keys", help="Issue, list, revoke and rotate API keys.", add_completion=False)


def _contract(name: str) -> str:
    spoken = (*CONTRACTS, "ledger")
    if name not in spoken:
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(map(repr, spoken))}")
    return name


KeyId = Annotated[str, typer.Argument(metavar="KEY_ID", help="The part of the key between tl_ and the next _.")]


@app.command()
def issue(
    *,
    account: Annotated[
        str, typer.Option(help="Whose tasks the key sees: 1 to 128 visible characters.", callback=account_in)
    ],
    contract: Annotated[
        str,
        typer.Option(help=f"What the key speaks: {', '.join(CONTRACTS)}, ledger (the native API).", callback=_contract),
    ],
    role: Annotated[
        Role | None, typer.Option(help="Without it: client, or worker for the contract ledger.", show_default=False)
    ] = None,
    store: stores.StoreOption = stores.DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Issue a key and print it, this once; makes the store if it is missing."""
    native = contract == "ledger"
    role = role or (Role.WORKER if native else Role.CLIENT)
    if native and role is Role.CLIENT:
        raise typer.BadParameter("the contract ledger has no clients: worker or operator", param_hint="'--role'")
    if not native and role is not Role.CLIENT:
        raise typer.BadParameter(
            f"the contract {contract} has clients only: a {role} speaks ledger", param_hint="'--role'"
        )
    key = asyncio.run(_issue(store, account=account, contract=contract, role=role))
    _show(key, as_json=as_json)


@app.command("list")
def list_keys(
    *,
    account: Annotated[str | None, typer.Option(help="Only this account's.", show_default=False)] = None,
    store: stores.StoreOption = stores.DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """List the keys, oldest first, the dead ones too."""
    rows = asyncio.run(_rows(store, account))
    if as_json:
        for row in rows:
            json_line(_as_json(row))
        return
    columns = ("key id", "account", "contract", "role", "issued", "state")
    at_us = now_us()
    table(columns, [_as_row(row, at_us) for row in rows])


@app.command()
def revoke(key_id: KeyId, *, store: stores.StoreOption = stores.DEFAULT, as_json: JsonOption = False) -> None:
    """Kill a key now."""
    row = asyncio.run(_revoke(store, key_id))
    if as_json:
        json_line(_as_json(row))
    else:
        print(f"revoked {row.key_id}")


@app.command()
def rotate(
    key_id: KeyId,
    *,
    overlap: Annotated[
        int, typer.Option(min=0, max=OVERLAP_MAX_SECONDS, metavar="SECONDS", help="How long the old key lives on.")
    ] = OVERLAP_SECONDS,
    store: stores.StoreOption = stores.DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Issue a new key in the place of KEY_ID and print it, this once."""
    key = asyncio.run(_rotate(store, key_id, overlap_us=overlap * US_PER_SECOND))
    _show(key, as_json=as_json)


async def _issue(store: str, *, account: str, contract: str, role: Role) -> NewKey:
    async with stores.beside(store, make=True) as engine:
        keyring = Keyring(engine, pepper=stores.pepper())
        return await keyring.issue(account=account, contract=contract, role=role, by=BY, at_us=now_us())


async def _rows(store: str, account: str | None) -> list[KeyRow]:
    async with stores.to_read(store) as engine:
        return await Keyring(engine).rows(account)


async def _revoke(store: str, key_id: str) -> KeyRow:
    async with stores.beside(store, make=False) as engine:
        return await Keyring(engine).revoke(key_id, by=BY, at_us=now_us())


async def _rotate(store: str, key_id: str, *, overlap_us: int) -> NewKey:
    async with stores.beside(store, make=False) as engine:
        keyring = Keyring(engine, pepper=stores.pepper())
        return await keyring.rotate(key_id, overlap_us=overlap_us, by=BY, at_us=now_us())


def _show(key: NewKey, *, as_json: bool) -> None:
    if as_json:
        json_line(key)
    else:
        print(f"key id  {key.key_id}\nkey     {key.key}")


def _as_row(row: KeyRow, now_us: int) -> tuple[str, ...]:
    state = "live"
    if row.revoked_at_us is not None:
        state = f"{'revoked' if is_dead(row, now_us) else 'live until'} {rfc3339(row.revoked_at_us)}"
    return row.key_id, row.account, row.contract, row.role, rfc3339(row.issued_at_us), state


def _as_json(row: KeyRow) -> dict[str, str | None]:
    """The key without its digest."""
    return {
        "key_id": row.key_id,
        "account": row.account,
        "contract": row.contract,
        "role": row.role,
        "issued_at": rfc3339(row.issued_at_us),
        "revoked_at": None if row.revoked_at_us is None else rfc3339(row.revoked_at_us),
    }


if __name__ == "__main__":
    from scripts.cli import run_alone

    run_alone(app)
