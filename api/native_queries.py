"""What the native API reads of a query: the parameters that a route has, and how much a page may hold."""

from collections.abc import Collection

from api.contracts.shape import Asked
from api.refusals import Invalid

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
