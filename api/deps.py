"""What a handler needs of the running service."""

from collections.abc import Callable
from typing import NamedTuple

from aiohttp import web
from structlog.typing import FilteringBoundLogger

from ledger.catalogue import Catalogue
from ledger.ledger import Ledger


class Deps(NamedTuple):
    """The live parts, handed to every operation: no globals."""

    ledger: Ledger
    catalogue: Catalogue
    clock: Callable[[], int]
    """Unix microseconds."""
    entropy: Callable[[int], bytes]
    log: FilteringBoundLogger
    """Bound once: binding at every line would cost a cached GET several per cent."""


DEPS: web.AppKey[Deps] = web.AppKey("deps", Deps)
