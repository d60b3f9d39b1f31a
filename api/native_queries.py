"""What the native API reads of a query: the parameters that a route has, and how much a page may hold."""

from collections.abc import Collection

from api.contracts.shape import Asked
from api.deps import Deps
from api.refusals import Invalid
from projections.asked import WrongWordError
from projections.places import NoSuchPlaceError
from projections.then import Moment, moment_of

PAGE_MAX = 200
PAGE_DEFAULT = 50


def only(asked: Asked, names: Collection[str]) -> None:
    """Check that the query has no parameters but these.

    Raises:
        Invalid: it has.
    """
    unknown = sorted(set(asked.query) - set(names))
    if unknown:
        raise Invalid(f"unknown query parameter {unknown[0]}", param=unknown[0])


async def moment_in(deps: Deps, asked: Asked) -> Moment | None:
    """The moment that the query asks for; None: now.

    Raises:
        Invalid: ``at`` is none, or ``clock`` is none.
    """
    try:
        return await moment_of(deps.ledger.engine, asked.query)
    except WrongWordError as wrong:
        raise Invalid(str(wrong), param=wrong.name) from None
    except NoSuchPlaceError as wrong:
        raise Invalid(str(wrong), param="at") from None


def limit_in(asked: Asked) -> int:
    """How much the page may hold.

    Raises:
        Invalid: it is no number from 1 to `PAGE_MAX`.
    """
    text = asked.query.get("limit", str(PAGE_DEFAULT))
    if not (text.isascii() and text.isdigit() and len(text) < 4 and 1 <= int(text) <= PAGE_MAX):  # noqa: PLR2004
        raise Invalid(f"limit is a number from 1 to {PAGE_MAX}", param="limit")
    return int(text)
