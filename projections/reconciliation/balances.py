"""The ledger held against itself, account by account: what each has held, charged, refunded and expected.

There are three keepers of balances: the books, which add up the log; the rows of the tasks; and the rows of the
accounts, by which creates are admitted. The books are held against each of the others. Another keeper would be in the
same way: it gives its `Balance` of each account, and `apart` tells where they differ.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from ledger.breaks import Difference
from ledger.engine import Engine
from ledger.events import BreakKind
from ledger.ids import TaskId
from ledger.money import credits_text
from ledger.records import SUM_MAX_MICROS, AccountRow, TaskFilter
from projections.books.books import FOREVER_US, Books, Period
from projections.books.books_sql import EXPECTED, LOW_BITS
from projections.follow import catch_up

PAGE_MAX = 500
LOOKS_MAX = 5
"""How often an account is looked at that is moved while it is."""
BY_TASKS, BY_ACCOUNTS = "the rows of its tasks", "its own row"


class Balance(NamedTuple):
    """What an account's tasks have cost it and may cost it yet, in micro-credits."""

    held_micros: int = 0
    charged_micros: int = 0
    refunded_micros: int = 0
    expected_micros: int = 0

    def plus(self, other: "Balance") -> "Balance":
        """Both together."""
        return Balance(*(one + another for one, another in zip(self, other, strict=True)))


class Compared(NamedTuple):
    """What differs, and how many accounts could not be compared, since they were moved all the while."""

    found: list[Difference]
    moving: int = 0


def apart(
    books: Mapping[str, Balance], other: Mapping[str, Balance], *, whose: str, at_us: int
) -> Iterator[Difference]:
    """The accounts of which the books say something else than *whose* figures."""
    for account in sorted({*books, *other}):
        here, there = books.get(account, Balance()), other.get(account, Balance())
        if here != there:
            yield Difference(
                provider="",
                kind=BreakKind.AMOUNT,
                about=f"account {account} by {whose}",
                at_stake_micros=sum(abs(one - another) for one, another in zip(here, there, strict=True)),
                since_us=at_us,
                detail=f"account {account}: {_words(here)} in the books, {_words(there)} by {whose}",
            )


async def task_balances(engine: Engine, books: Books, *, now_us: int) -> list[Difference]:
    """Where the books and the rows of the tasks differ, of one moment: not for an engine that serves.

    What is expected is not of that moment, for others may follow into the same books; `account_balances` compares it.
    """
    async with engine.snapshot():
        position = (await engine.head()).position
        await catch_up(engine, books, until=position)
        kept = await _moved(books, position)
        rows = await _of_the_tasks(engine)
    return list(apart(_bounded(kept), _bounded(rows), whose=BY_TASKS, at_us=now_us))


async def account_balances(engine: Engine, books: Books, *, now_us: int) -> Compared:
    """Where the books differ from the rows of the accounts, while others go on moving them.

    An account is compared when its row was the same before the books were brought up to the log and after they were
    asked: nothing moved it in between, for each event that does is told in its row.
    """
    found: dict[str, Difference] = {}
    left: set[str] | None = None
    for _ in range(LOOKS_MAX):
        before = await engine.accounts(None)
        await catch_up(engine, books)
        kept = await _kept(books)
        after = await engine.accounts(None)
        names = {*kept, *after} if left is None else left
        moving = {name for name in names if before.get(name) != after.get(name)}
        still = names - moving
        rows = _of_the_accounts(row for row in after.values() if row.account in still)
        here = {name: balance for name, balance in kept.items() if name in still}
        found |= {one.about: one for one in apart(here, rows, whose=BY_ACCOUNTS, at_us=now_us)}
        left = moving
        if not left:
            break
    return Compared([found[about] for about in sorted(found)], len(left or ()))


async def _kept(books: Books) -> dict[str, Balance]:
    """What the books say of each account, as far as they have followed."""
    kept = await _moved(books, FOREVER_US)
    for account, high, low in await books.ask(EXPECTED):
        expected = Balance(expected_micros=(high << LOW_BITS) + low)
        kept[account] = kept.get(account, Balance()).plus(expected)
    return _bounded(kept)


async def _moved(books: Books, position: int) -> dict[str, Balance]:
    """What was moved for each account up to *position*."""
    moved: dict[str, Balance] = {}
    for (purpose, _), sums in (await books.totals(Period(position))).items():
        own = Balance(sums.open_micros, sums.charged_micros, sums.refunded_micros)
        moved[purpose.account] = moved.get(purpose.account, Balance()).plus(own)
    return moved


async def _of_the_tasks(engine: Engine) -> dict[str, Balance]:
    rows: dict[str, Balance] = {}
    after: TaskId | None = None
    while page := await engine.page(TaskFilter(after=after, oldest_first=True, limit=PAGE_MAX)):
        for row in (placed.row for placed in page):
            own = Balance(row.held_micros, row.charged_micros, row.refunded_micros)
            rows[row.account] = rows.get(row.account, Balance()).plus(own)
        after = page[-1].row.task_id
    return rows


def _of_the_accounts(rows: Iterable[AccountRow]) -> dict[str, Balance]:
    return {
        row.account: Balance(row.held_micros, row.charged_micros, row.refunded_micros, row.expected_micros)
        for row in rows
    }


def _bounded(balances: Mapping[str, Balance]) -> dict[str, Balance]:
    """As the rows of accounts are: no sum is more than every engine holds."""
    return {name: Balance(*(min(micros, SUM_MAX_MICROS) for micros in one)) for name, one in balances.items()}


def _words(balance: Balance) -> str:
    names = ("held", "charged", "refunded", "expected")
    told = [f"{credits_text(micros)} {name}" for name, micros in zip(names, balance, strict=True) if micros]
    return ", ".join(told) or "nothing"
