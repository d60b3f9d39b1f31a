"""Known providers: a statement of one that nobody knows is refused, for each of its lines would be a break."""

from collections.abc import Iterable

from ledger.errors import UnknownProvider
from projections.books.booked import Asked
from projections.books.books_sql import PROVIDERS


async def refuse_unknown(books: Asked, provider: str, elsewhere: Iterable[str]) -> None:
    """Check that the books have a task of *provider* or what it billed, or that it is named *elsewhere*.

    Raises:
        UnknownProvider: it is in none of them.
    """
    known = {row[0] for row in await books.ask(PROVIDERS)}.union(elsewhere)
    if provider not in known:
        raise UnknownProvider(provider, sorted(known))
