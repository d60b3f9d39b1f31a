"""What the native API reads of a query: the parameters that a route has, and how much a page may hold."""

from collections.abc import Collection

from api.contracts.shape import Asked
from api.deps import Deps
from api.refusals import Invalid
from projections.places import NoSuchPlaceError
from projections.reports.as_of import Moment, moment_of
from projections.reports.parameters import WrongWordError

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


async def moment_in(deps: Deps, asked: Asked, *, of_now: str) -> Moment | None:
    """The moment that the query asks for; None: now. *of_now* is a parameter that asks for what is now.

    Raises:
        Invalid: ``at`` is none, or ``clock`` is none, or ``at`` stands beside *of_now*.
    """
    if "at" in asked.query and of_now in asked.query:
        raise Invalid(f"{of_now} is of now: leave out either it or at", param="at")
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


def wait_in(asked: Asked, *, most: int) -> int:
    """How many seconds the answer may wait for news; 0 unless the query says so.

    Raises:
        Invalid: it is no whole number from 0 to *most*.
    """
    text = asked.query.get("wait", "0")
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(most)) and int(text) <= most):
        raise Invalid(f"wait is a whole number of seconds from 0 to {most}", param="wait")
    return int(text)
