"""`task-ledger accounts`: what they may spend. Works on the store of a running ledger too, which heeds it at once.

How many tasks an account may have under way stands in the configuration, not in the store, so it is shown when that is
told.
"""

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from api.native_shapes import account_view
from api.settings import Settings
from ledger.accounts import Accounts
from ledger.credit import Grant, RevokeGrant
from ledger.money import credits_text, parse_credits
from ledger.records import AccountRow, TaskFilter
from scripts import stores
from scripts.configured import settings_in
from scripts.options import BY, account_in, now_us
from scripts.printed import JsonOption, json_line, table

KEY_MAX_CHARS = 255

app = typer.Typer(name="accounts", help="Show accounts, set limits, grant credit.", add_completion=False)


def _key(text: str) -> str:
    if not 1 <= len(text) <= KEY_MAX_CHARS or not text.isprintable():
        raise typer.BadParameter("must be 1 to 255 printable characters")
    return text


class Credits(msgspec.Struct, frozen=True):
    """An amount, typed in as credits: the help shows the name of the type."""

    micros: int | None
    """None: no limit."""


def _amount(text: str) -> Credits:
    """What the command line says."""
    micros = parse_credits(text)
    if micros is None:
        raise typer.BadParameter('must be decimal text such as "1.5", not negative, at most six decimals')
    return Credits(micros)


def _more_than_nothing(text: str) -> Credits:
    amount = _amount(text)
    if amount.micros == 0:
        raise typer.BadParameter("must be more than 0")
    return amount


def _limit(text: str) -> Credits:
    return Credits(None) if text == "none" else _amount(text)


AccountArgument = Annotated[str, typer.Argument(metavar="ACCOUNT", callback=account_in)]
KeyOption = Annotated[str, typer.Option(help="Names this movement: the same key again changes nothing.", callback=_key)]
ReasonOption = Annotated[str | None, typer.Option(help="Kept with the event.", show_default=False)]
CreditsArgument = Annotated[Credits, typer.Argument(metavar="CREDITS", parser=_more_than_nothing)]


@app.command()
def show(
    account: Annotated[str | None, typer.Argument(metavar="[ACCOUNT]", help="Without it: all.")] = None,
    *,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Settings in TOML: to show how many tasks at once they allow.")
    ] = None,
    store: stores.StoreOption = stores.DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Show what accounts may spend, what their tasks cost, and how many are under way."""
    name = None if account is None else account_in(account)
    found = None if config is None else settings_in(config)
    rows, known = asyncio.run(_rows(store, name))
    _tell(rows, as_json=as_json, caps=None if found is None else _caps(found, rows))
    if not known:
        print(f"the ledger has no key, no task and no credit of {name!r}", file=sys.stderr)


@app.command()
def limit(
    account: AccountArgument,
    credits: Annotated[Credits, typer.Argument(metavar="CREDITS|none", parser=_limit)],  # noqa: A002 - as it is shown
    *,
    store: stores.StoreOption = stores.DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Let an account owe so much; makes the store if it is missing."""
    _tell([asyncio.run(_set_limit(store, account, credits.micros))], as_json=as_json)


@app.command()
def grant(
    account: AccountArgument,
    credits: CreditsArgument,  # noqa: A002 - as it is shown
    *,
    key: KeyOption,
    reason: ReasonOption = None,
    store: stores.StoreOption = stores.DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Give an account credit; makes the store if it is missing."""
    command = Grant(at_us=now_us(), amount_micros=_micros(credits), key=key, reason=reason)
    _tell([asyncio.run(_grant(store, account, command))], as_json=as_json)


@app.command()
def revoke(
    account: AccountArgument,
    credits: CreditsArgument,  # noqa: A002 - as it is shown
    *,
    of: Annotated[str, typer.Option("--grant", metavar="KEY", help="The key of the grant.", callback=_key)],
    key: KeyOption,
    reason: ReasonOption = None,
    store: stores.StoreOption = stores.DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Take a grant or a part of it back."""
    command = RevokeGrant(at_us=now_us(), amount_micros=_micros(credits), key=key, grant=of, reason=reason)
    _tell([asyncio.run(_revoke(store, account, command))], as_json=as_json)


async def _rows(store: str, account: str | None) -> tuple[list[AccountRow], bool]:
    """The rows, and whether the ledger has anything of the account that was named."""
    async with stores.to_read(store) as engine:
        accounts = Accounts(engine)
        if account is None:
            return await accounts.rows(), True
        found = await engine.accounts([account]) or await engine.keys(account)
        known = bool(found or await engine.page(TaskFilter(account=account, limit=1)))
        return [await accounts.row(account)], known


async def _set_limit(store: str, account: str, limit_micros: int | None) -> AccountRow:
    async with stores.beside(store, make=True) as engine:
        return await Accounts(engine).set_limit(account, limit_micros, by=BY, at_us=now_us())


async def _grant(store: str, account: str, command: Grant) -> AccountRow:
    async with stores.beside(store, make=True) as engine:
        return (await Accounts(engine).grant(account, command, by=BY)).row


async def _revoke(store: str, account: str, command: RevokeGrant) -> AccountRow:
    async with stores.beside(store, make=False) as engine:
        return (await Accounts(engine).revoke(account, command, by=BY)).row


def _caps(found: Settings, rows: list[AccountRow]) -> Mapping[str, int | None]:
    """How many tasks each of the accounts may have under way."""
    limits = found.budgets()
    return {row.account: limits.tasks_max(row.account) for row in rows}


def _micros(amount: Credits) -> int:
    assert amount.micros is not None, "only a limit can be none"
    return amount.micros


def _tell(rows: list[AccountRow], *, as_json: bool, caps: Mapping[str, int | None] | None = None) -> None:
    """Print the accounts; *caps* None: those are not known."""
    if as_json:
        for row in rows:
            json_line(account_view(row) | ({} if caps is None else {"tasks_max": caps[row.account]}))
        return
    columns = ("account", "limit", "granted", "held", "charged", "refunded", "expected", "tasks", "available")
    table(columns, [_as_row(row, None if caps is None else caps[row.account]) for row in rows])


def _as_row(row: AccountRow, tasks_max: int | None) -> tuple[str, ...]:
    sums = (row.held_micros, row.charged_micros, row.refunded_micros, row.expected_micros)
    available = "unlimited" if row.unlimited else credits_text(row.available_micros)
    given = (_given(row.limit_micros), _given(row.granted_micros))
    tasks = str(row.live_tasks) if tasks_max is None else f"{row.live_tasks}/{tasks_max}"
    return row.account, *given, *map(credits_text, sums), tasks, available


def _given(micros: int | None) -> str:
    return "none" if micros is None else credits_text(micros)


if __name__ == "__main__":
    from scripts.cli import run_alone

    run_alone(app)
