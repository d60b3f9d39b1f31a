"""A small ledger with something of everything in it, and the paths to break it from outside."""

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path

from msgspec.structs import replace

from ledger.accounts import Accounts
from ledger.commands import Create, RequestCancel
from ledger.credit import Grant, RevokeGrant
from ledger.engine import Engine
from ledger.errors import Refusal
from ledger.events import School
from ledger.keyring import NewKey
from ledger.keys import Role
from ledger.ledger import Ledger
from ledger.sqlite import open_to_read, open_to_serve
from tests.builders import STRANGER, claim, ident
from tests.rules_dsl import ACCOUNT, CREATED_US, at
from tests.test_histories import history

SEEDS_PER_SCHOOL = 4
KEY_EVENTS, TERMS_EVENTS = 6, 5
HOUR_US = at(3600) - at(0)


async def fill(engine: Engine, *, terms: bool = True) -> list[NewKey]:
    """Tasks of all schools with random lives, idempotent creates and cancels, and keys in every state.

    With *terms*, accounts with limits and grants too, far beyond what the tasks need.
    """
    ledger = await Ledger(engine).start()
    keys = [
        await ledger.keys.issue(account=ACCOUNT, contract="lemondata", role=Role.CLIENT, by="test", at_us=CREATED_US),
        await ledger.keys.issue(account="gateway", contract="ledger", role=Role.WORKER, by="test", at_us=at(1)),
    ]
    lives = [(school, seed) for seed in range(SEEDS_PER_SCHOOL) for school in School]
    for number, (school, seed) in enumerate(lives):
        await _live(ledger, number, school, seed)
    keys.append(await ledger.keys.rotate(keys[0].key_id, overlap_us=HOUR_US, by="test", at_us=at(10)))
    keys.append(await ledger.keys.issue(account=STRANGER, contract="chunkr", role=Role.CLIENT, by="test", at_us=at(11)))
    await ledger.keys.revoke(keys[-1].key_id, by="test", at_us=at(12))
    if terms:
        await _give(ledger.accounts)
    await ledger.writer.close()
    return keys


async def _give(accounts: Accounts) -> None:
    grants = [Grant(at_us=at(13), amount_micros=10**9, key=f"g{number}") for number in range(2)]
    for one in grants:
        await accounts.grant(ACCOUNT, one, by="test")
    taken = RevokeGrant(at_us=at(14), amount_micros=10**8, key="r0", grant="g0", reason="a slip")
    await accounts.revoke(ACCOUNT, taken, by="test")
    await accounts.set_limit(STRANGER, 10**9, by="test", at_us=at(15))
    await accounts.set_limit(STRANGER, None, by="test", at_us=at(16))


async def _live(ledger: Ledger, number: int, school: School, seed: int) -> None:
    for step, command in enumerate(taken.command for taken in history(school, seed)):
        asked = replace(command, task_id=ident(number), expected_version=None)
        if isinstance(asked, Create):
            asked = replace(asked, claims=(claim(f"create-{number}"),))
        elif isinstance(asked, RequestCancel):
            key = f"cancel-{number}-{step // 20}"
            asked = replace(asked, claims=(claim(key, operation="cancel", window_us=HOUR_US // 60),))
        try:
            await ledger.handle(asked)
        except Refusal:
            continue


def make(path: Path, *, terms: bool = True) -> list[NewKey]:
    """A filled ledger at *path*; its keys."""

    async def _make() -> list[NewKey]:
        async with serving(path) as ledger:
            return await fill(ledger.engine, terms=terms)

    return asyncio.run(_make())


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[Ledger]:
    """The running ledger of *path*. An engine left open would keep the tests from ending."""
    ledger = await Ledger(await open_to_serve(path)).start()
    try:
        yield ledger
    finally:
        await ledger.close()


@asynccontextmanager
async def reading(path: Path) -> AsyncIterator[Engine]:
    """An engine that reads *path*."""
    engine = await open_to_read(path)
    try:
        yield engine
    finally:
        await engine.close()


@contextmanager
def broken(original: Path, copy: Path) -> Iterator[sqlite3.Connection]:
    """A copy of the ledger without what guards it, open to be broken; guarded again and committed at the end."""
    for old in copy.parent.glob(f"{copy.name}*"):
        old.unlink()
    shutil.copyfile(original, copy)
    with closing(sqlite3.connect(copy)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        triggers = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("PRAGMA ignore_check_constraints = ON")
        yield connection
        for _, sql in triggers:
            connection.execute(sql)
        connection.commit()
