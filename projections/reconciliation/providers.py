"""Whose statement it is: one of a provider that nobody knows is refused, for each of its lines would be a break."""

from collections.abc import Iterable, Sequence

import msgspec

from ledger.errors import UnknownProvider
from projections.books.booked import Asked, by_ids
from projections.books.booked_sql import READ_MAX
from projections.books.books_sql import PROVIDERS, PROVIDERS_OF_IDS
from projections.reconciliation.statements import Line


async def refuse_unknown(books: Asked, provider: str, elsewhere: Iterable[str]) -> None:
    """Check that the books have a task of *provider* or what it billed, or that it is named *elsewhere*.

    Raises:
        UnknownProvider: it is in none of them.
    """
    known = {row[0] for row in await books.ask(PROVIDERS)}.union(elsewhere)
    if provider not in known:
        raise UnknownProvider(provider, sorted(known))


async def providers_named(books: Asked, lines: Sequence[Line]) -> set[str]:
    """The providers of the tasks that these lines name by our ids; where none names any so, by the providers' own."""
    tasks = await by_ids(books, list({line.task for line in lines if line.task is not None}))
    named = {task.purpose.provider for task in tasks.values()}
    if named:
        return named
    ids = sorted({line.provider_task_id for line in lines if line.provider_task_id})
    for start in range(0, len(ids), READ_MAX):
        wanted = msgspec.json.encode(ids[start : start + READ_MAX]).decode()
        named |= {row[0] for row in await books.ask(PROVIDERS_OF_IDS, (wanted,))}
    return named
