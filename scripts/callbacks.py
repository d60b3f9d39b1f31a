"""`task-ledger callbacks`: what could not be delivered, listed and sent again, and the secrets that are signed with.

Works on the store of a running ledger too, which takes note within a second; nothing is posted from here.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import typer

from api.callbacks import plan_of
from api.contracts import CONTRACTS
from ledger.callback_log import CallbackLog
from ledger.callbacks import Resend, RotateSecret
from ledger.engine import Engine
from ledger.errors import UnknownCallback
from ledger.ids import Spelling
from ledger.times import US_PER_SECOND, rfc3339
from projections.callbacks.queue import CallbackQueue, open_queue, queue_of
from projections.callbacks.rows import Delivery, State, Wanted, callback_view
from projections.follow import catch_up
from scripts import stores
from scripts.options import BY, OVERLAP_MAX_SECONDS, OVERLAP_SECONDS, account_in, now_us
from scripts.printed import JsonOption, json_line, table

PAGE = 200

app = typer.Typer(name="callbacks", help="List callbacks, send them again, show secrets.", add_completion=False)

CallbackId = Annotated[str, typer.Argument(metavar="ID", help="The callback, as `callbacks list` shows it.")]
Account = Annotated[str, typer.Argument(metavar="ACCOUNT", help="Whose.", callback=account_in)]


@app.command("list")
def list_(
    *,
    everything: Annotated[bool, typer.Option("--all", help="Those that wait or were delivered too.")] = False,
    account: Annotated[str | None, typer.Option(metavar="A", help="Only this account's.", show_default=False)] = None,
    store: stores.StoreOption = stores.DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """List the callbacks that were given up, newest first; exit 0 whatever there is."""
    found = asyncio.run(_listed(store, Wanted(None if everything else State.DEAD, account, limit=PAGE)))
    if as_json:
        for one in found:
            json_line(callback_view(one))
        return
    columns = ("callback", "state", "task", "event", "account", "tries", "last try", "error", "address")
    table(columns, map(_row, found))


@app.command()
def resend(
    callback_id: CallbackId,
    *,
    reason: Annotated[str | None, typer.Option(metavar="R", help="Why.", show_default=False)] = None,
    store: stores.StoreOption = stores.DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Have one posted again, now, and as often as if it were new."""
    one = asyncio.run(_resent(store, callback_id, reason))
    if as_json:
        json_line(callback_view(one))
    else:
        print(f"{one.state} {one.callback_id}: {one.url}")


@app.command()
def secret(account: Account, *, store: stores.StoreOption = stores.DEFAULT, as_json: JsonOption = False) -> None:
    """Show what the account's callbacks are signed with."""
    _show(asyncio.run(_secrets(store, account)), as_json=as_json)


@app.command()
def rotate(
    account: Account,
    *,
    overlap: Annotated[
        int, typer.Option(min=0, max=OVERLAP_MAX_SECONDS, metavar="SECONDS", help="How long the old one signs too.")
    ] = OVERLAP_SECONDS,
    store: stores.StoreOption = stores.DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Have the account's callbacks signed with a new secret, and show it."""
    _show(asyncio.run(_rotated(store, account, overlap_us=overlap * US_PER_SECOND)), as_json=as_json)


@asynccontextmanager
async def _with_queue(store: str) -> AsyncIterator[tuple[Engine, CallbackQueue]]:
    """The store, only to be read, and its queue up to the end of the log; nothing is posted."""
    async with stores.to_read(store) as engine:
        queue = await open_queue(queue_of(stores.real_path(stores.path_of(store))), engine, plan_of(CONTRACTS))
        try:
            await catch_up(engine, queue)
            yield engine, queue
        finally:
            await queue.close()


async def _listed(store: str, wanted: Wanted) -> list[Delivery]:
    found: list[Delivery] = []
    async with _with_queue(store) as (_, queue):
        while page := await queue.listed(wanted):
            found += page
            wanted = wanted._replace(before=(page[-1].position, page[-1].callback_id))
    return found


async def _resent(store: str, callback_id: str, reason: str | None) -> Delivery:
    async with _with_queue(store) as (engine, queue):
        one = await queue.get(callback_id)
        if one is None:
            raise UnknownCallback(callback_id)
        command = Resend(at_us=now_us(), task_id=one.task, about=one.about, webhook=one.webhook, reason=reason)
        async with stores.beside(store, make=False) as writer:
            await CallbackLog(writer).carry_out(command, account=one.account, by=BY)
        await catch_up(engine, queue)
        return await queue.get(callback_id) or one


async def _secrets(store: str, account: str) -> dict[str, Any]:
    async with stores.to_read(store) as engine:
        return await _shown(CallbackLog(engine, pepper=stores.pepper()), account)


async def _rotated(store: str, account: str, *, overlap_us: int) -> dict[str, Any]:
    async with stores.beside(store, make=False) as engine:
        log = CallbackLog(engine, pepper=stores.pepper())
        await log.carry_out(RotateSecret(at_us=now_us(), overlap_us=overlap_us), account=account, by=BY)
        return await _shown(log, account)


async def _shown(log: CallbackLog, account: str) -> dict[str, Any]:
    at_us = now_us()
    until_us = (await log.arranged(account)).old_until_us
    newest, *old = await log.secrets(account, at_us=at_us)
    return {
        "account": account,
        "secret": newest,
        "old_secrets": old,
        "old_until": rfc3339(until_us) if old else None,
    }


def _show(shown: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        json_line(shown)
        return
    print(f"secret  {shown['secret']}")
    for old in shown["old_secrets"]:
        print(f"until {shown['old_until']} also  {old}")


def _row(one: Delivery) -> tuple[str, ...]:
    last = "" if one.attempted_at_us is None else rfc3339(one.attempted_at_us)
    task = Spelling.UUID.spell(one.task)
    return one.callback_id, one.state, task, one.type, one.account, str(one.attempts), last, one.error or "", one.url


if __name__ == "__main__":
    from scripts.cli import run_alone

    run_alone(app)
